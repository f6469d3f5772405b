"""The console page: static files of the package at ``/`` and ``/console/…``, under a strict Content-Security-Policy.

Files are read once, when the application is made. Only the names listed here are served, so that no path can lead
anywhere else.
"""

import hashlib
from collections.abc import Mapping
from http import HTTPStatus
from importlib import resources
from typing import Final

import attrs
from quart import Blueprint, Response, abort, request

from voice_agent.web.described import Answer, Operation, described
from voice_agent.web.scopes import public

INDEX: Final = "index.html"

_TAG: Final = "console"
_UNCHANGED: Final = Answer(
    why="It is what `If-None-Match` says.", status=HTTPStatus.NOT_MODIFIED, headers={"ETag": "Its tag."}
)

_SCRIPT: Final = "text/javascript; charset=utf-8"
"""RFC 9239; browsers run a module only with this type, and `nosniff` keeps them from guessing another."""

CONTENT_TYPES: Final[Mapping[str, str]] = {
    INDEX: "text/html; charset=utf-8",
    "console.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
    "access.js": _SCRIPT,
    "audio-ring.js": _SCRIPT,
    "call-figures.js": _SCRIPT,
    "capture-worklet.js": _SCRIPT,
    "captions.js": _SCRIPT,
    "choices.js": _SCRIPT,
    "key-form.js": _SCRIPT,
    "microphone.js": _SCRIPT,
    "notices.js": _SCRIPT,
    "outage.js": _SCRIPT,
    "outgoing-audio.js": _SCRIPT,
    "page.js": _SCRIPT,
    "playback.js": _SCRIPT,
    "problems.js": _SCRIPT,
    "resume-point.js": _SCRIPT,
    "speech-clock.js": _SCRIPT,
    "transcript.js": _SCRIPT,
    "voice-agent-client.js": _SCRIPT,
    "waveform.js": _SCRIPT,
    "wire-webrtc.js": _SCRIPT,
    "wire-websocket.js": _SCRIPT,
    "wording.js": _SCRIPT,
}

_SOURCES: Final = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    # 'self' covers a WebSocket of the same host and port (CSP level 3, section 6.7.2.8).
    "connect-src": "'self'",
    "worker-src": "'self'",
    "img-src": "'self' data:",
    "media-src": "'self' blob:",
    "base-uri": "'none'",
    "frame-ancestors": "'none'",
    "form-action": "'none'",
}
CONTENT_SECURITY_POLICY: Final = "; ".join(f"{name} {sources}" for name, sources in _SOURCES.items())

HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=(), display-capture=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    # Kept, but asked for each time: a new version of the server brings all its files together.
    "Cache-Control": "no-cache",
}


@attrs.frozen
class ConsoleFile:
    """One file as it is served."""

    body: bytes
    content_type: str
    etag: str
    """Strong (RFC 9110, section 8.8.3), without the quotes."""


def read_console_files() -> dict[str, ConsoleFile]:
    """Return the page's files by name."""
    folder = resources.files("voice_agent.web") / "console"
    files = {}
    for name, content_type in CONTENT_TYPES.items():
        body = (folder / name).read_bytes()
        files[name] = ConsoleFile(body, content_type, hashlib.sha256(body).hexdigest()[:32])
    return files


def create_console() -> Blueprint:
    """Make the routes of the page, ready to be registered at an application."""
    files = read_console_files()
    console = Blueprint("console", __name__)

    @console.get("/")
    @public
    @described(
        Operation(
            summary="The console page.",
            tag=_TAG,
            answers=(Answer(why="The page.", body={"type": "string"}, content_type="text/html"), _UNCHANGED),
        )
    )
    async def show_page() -> Response:
        return _answer(files[INDEX])

    @console.get("/console/<name>")
    @public
    @described(
        Operation(
            summary="A file of the console page.",
            tag=_TAG,
            answers=(
                *(
                    Answer(why="The file.", body={"type": "string"}, content_type=content_type)
                    for content_type in ("text/css", "text/javascript", "image/svg+xml")
                ),
                _UNCHANGED,
            ),
        )
    )
    async def show_file(name: str) -> Response:
        if name == INDEX or name not in files:
            abort(404)
        return _answer(files[name])

    return console


def _answer(file: ConsoleFile) -> Response:
    """Return the file, or 304 to who has it already (RFC 9110, section 13.1.2)."""
    response = Response(file.body, content_type=file.content_type, headers=dict(HEADERS))
    response.set_etag(file.etag)
    if request.if_none_match.contains_weak(file.etag):
        response.status_code = 304
        response.set_data(b"")
        del response.headers["Content-Type"]
        del response.headers["Content-Length"]
    return response
