"""A setting that is declared live is read when it is used: no consumer lives on a copy from the start.

A server without models is started with settings that note who reads them; then others are put in force, calls are made,
requests are answered, the server is drained. Each live setting must have been read from the new ones, and none from
the old ones any more.
"""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from time import time
from typing import Any

import attrs
import httpx
import numpy as np
import pytest
import trio
from joserfc import jwt
from joserfc.jwk import ECKey
from trio_websocket import WebSocketConnection, wrap_client_stream

from voice_agent.cli import serve_command
from voice_agent.observability.metrics import Metrics
from voice_agent.server import run as server_run
from voice_agent.server.drain import drain
from voice_agent.server.stopping import Stopping
from voice_agent.session.services import Services
from voice_agent.session.store import retention
from voice_agent.settings.changes import Adoption
from voice_agent.settings.current import CurrentSettings
from voice_agent.settings.fields import fields_by_key
from voice_agent.settings.schema import (
    AccessSettings,
    ServerSettings,
    Settings,
    StoreSettings,
    WebRtcSettings,
)

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 60
RATE = 16_000

SHOWN_ELSEWHERE: dict[str, str] = {
    key: "tests/agent/test_gold_live.py::test_every_setting_of_the_section_is_tried_here"
    for key in fields_by_key(Settings)
    if key.startswith("gold.")
} | {
    key: "tests/agent/test_chat_live.py::test_every_setting_of_the_section_is_tried_here"
    for key, field in fields_by_key(Settings).items()
    if key.startswith("chat.") and field.live
}
"""Live settings that no part of this drive uses, with the test that changes them under a running server, or in a
running talk."""

OFFER = "\r\n".join(
    [
        "v=0",
        "o=- 1 1 IN IP4 0.0.0.0",
        "s=-",
        "t=0 0",
        "a=group:BUNDLE 0",
        "m=audio 9 UDP/TLS/RTP/SAVPF 111",
        "c=IN IP4 0.0.0.0",
        "a=mid:0",
        "a=sendonly",
        "a=rtcp-mux",
        "a=ice-ufrag:abcd",
        "a=ice-pwd:abcdefghijklmnopqrstuvwx",
        "a=fingerprint:sha-256 " + ":".join(["AB"] * 32),
        "a=setup:actpass",
        "a=rtpmap:111 opus/48000/2",
        "",
    ]
)


def noting(settings: Settings, reads: set[str]) -> Settings:
    """Return the same settings; what is read of them is added to ``reads``."""
    return attrs.evolve(
        settings,
        **{
            section.name: _noting(section.name, getattr(settings, section.name), reads)
            for section in attrs.fields(Settings)
        },
    )


def _noting(section: str, values: Any, reads: set[str]) -> Any:
    kind = type(values)
    names = {field.name for field in attrs.fields(kind)}

    class Noting(kind):  # type: ignore[misc, valid-type]
        __slots__ = ()

        def __getattribute__(self, name: str) -> Any:
            if name in names:
                reads.add(f"{section}.{name}")
            return super().__getattribute__(name)

    copy = object.__new__(Noting)
    for name in names:
        object.__setattr__(copy, name, getattr(values, name))
    return copy


@attrs.define
class Driven:
    """A running server, and what has been read of the settings that it began with, and of those in force now."""

    current: CurrentSettings
    server: Any
    desk: Any
    stopping: Stopping
    old: set[str] = attrs.field(factory=set)
    new: set[str] = attrs.field(factory=set)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.addresses[0][1]}"


OpenServices = Callable[..., AbstractAsyncContextManager[Services]]


@asynccontextmanager
async def driven(
    monkeypatch: pytest.MonkeyPatch, open_scripted_services: OpenServices
) -> AsyncIterator[Driven]:
    """Start a server and put noting settings in force, then give it to be driven."""

    @asynccontextmanager
    async def open_services(settings: Settings, *, metrics: Metrics, **_: Any) -> AsyncIterator[Services]:
        async with open_scripted_services(settings=settings) as services:
            yield attrs.evolve(services, metrics=metrics)

    monkeypatch.setattr(server_run, "open_services", open_services)
    monkeypatch.setattr(retention, "LOOK_SECONDS", 0.05)
    plain = Settings(
        server=ServerSettings(port=0, grace_seconds=0.5, lame_duck_seconds=0.1),
        store=StoreSettings(kind="memory"),
    )
    old: set[str] = set()
    current = CurrentSettings(noting(plain, old))
    stopping = Stopping(current)
    async with server_run._open_server(current, Metrics(), stopping, None) as (server, desk):
        it = Driven(current, server, desk, stopping, old)
        current.replace(noting(plain, it.new))
        old.clear()
        it.new.clear()
        with trio.fail_after(PATIENCE_SECONDS):
            yield it


async def call_over_websocket(it: Driven, resource: str = "/v1/ws") -> None:
    """Speak one utterance, with partials, and stop."""
    loud = (np.random.default_rng(1).uniform(-6000, 6000, RATE)).astype("<i2").tobytes()
    async with connected(it.address, resource) as socket:
        await socket.send_message(json.dumps({"type": "start"}))
        await socket.send_message(loud)
        await socket.send_message(bytes(2 * RATE))
        kinds = []
        while "final" not in kinds:
            kinds.append(json.loads(await socket.get_message())["type"])
        await socket.send_message(json.dumps({"type": "stop"}))
        while kinds[-1] != "closed":
            kinds.append(json.loads(await socket.get_message())["type"])


@asynccontextmanager
async def connected(address: str, resource: str) -> AsyncIterator[WebSocketConnection]:
    """Open a WebSocket; the library leaves its socket to the garbage collector when the server closes first."""
    host, _, port = address.rpartition(":")
    stream = await trio.open_tcp_stream(host, int(port))
    try:
        async with trio.open_nursery() as nursery:
            yield await wrap_client_stream(nursery, stream, address, resource)
            nursery.cancel_scope.cancel()
    finally:
        await trio.aclose_forcefully(stream)


async def ask_over_http(it: Driven, **headers: str) -> str:
    """Ask for what there is, begin a WebRTC call and end it, and ask for a ticket; returns the ticket."""
    async with httpx.AsyncClient(base_url=f"http://{it.address}", timeout=30, headers=headers) as client:
        for path in ("/", "/healthz", "/readyz", "/metrics"):
            await client.get(path)
        answer = await client.post("/v1/webrtc", content=OFFER, headers={"Content-Type": "application/sdp"})
        assert answer.status_code == 201, answer.text
        await client.delete(answer.headers["Location"])
        return str((await client.post("/v1/tickets")).json()["ticket"])


@asynccontextmanager
async def key_set_served(key: ECKey) -> AsyncIterator[str]:
    """Serve the key set of whoever signs tokens; gives its address."""
    body = json.dumps({"keys": [key.as_dict(private=False)]}).encode()

    async def answer(stream: trio.SocketStream) -> None:
        await stream.receive_some(65_536)
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        await stream.send_all(f"{head}Connection: close\r\n\r\n".encode() + body)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, answer, 0, host="127.0.0.1"))
        yield f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/keys"
        nursery.cancel_scope.cancel()


async def call_with_token_and_ticket(it: Driven) -> None:
    """Configure tokens and TURN servers, and call with both: what is off by default is used too."""
    key = ECKey.generate_key(parameters={"kid": "1", "alg": "ES256", "use": "sig"})
    async with key_set_served(key) as url:
        plain = attrs.evolve(
            it.current.now,
            access=AccessSettings(jwt_issuer="us", jwt_audience="voice", jwks_url=url),
            webrtc=WebRtcSettings(turn_servers="turn:127.0.0.1:9?transport=udp", turn_secret="x" * 32),
        )
        it.current.replace(noting(plain, it.new))
        claims = {"iss": "us", "aud": "voice", "sub": "me", "exp": int(time()) + 600, "scope": "call observe"}
        token = jwt.encode({"alg": "ES256", "kid": "1"}, claims, key)
        ticket = await ask_over_http(it, Authorization=f"Bearer {token}")
        await call_over_websocket(it, f"/v1/ws?ticket={ticket}")


async def drive(it: Driven) -> None:
    """Use whatever follows the settings."""
    await call_over_websocket(it)
    await ask_over_http(it)
    await call_with_token_and_ticket(it)
    serve_command._adopt_logging(Adoption(settings=it.current.now, changed=("logging.level",), waiting=()))
    it.stopping.begin("request")
    await drain(it.desk, it.stopping, it.server)


async def test_what_is_live_is_read_from_the_settings_in_force(
    monkeypatch: pytest.MonkeyPatch, open_scripted_services: OpenServices
) -> None:
    """Nothing live is read from the settings of the start any more, and everything live from those that replaced them."""
    monkeypatch.setattr(serve_command, "configure_logging", lambda *_, **__: None)
    live = {key for key, field in fields_by_key(Settings).items() if field.live}
    async with driven(monkeypatch, open_scripted_services) as it:
        await drive(it)
        old, new = it.old & live, it.new & live
    assert not old, f"read from the settings that the server began with: {sorted(old)}"
    missing = live - new - SHOWN_ELSEWHERE.keys()
    assert not missing, (
        f"declared live, and read by nothing here after a change: {sorted(missing)}. Use it in drive(), or name the "
        "test that changes it under a running server in SHOWN_ELSEWHERE, or declare it without live=True"
    )


async def test_a_copy_from_the_start_is_found(
    monkeypatch: pytest.MonkeyPatch, open_scripted_services: OpenServices
) -> None:
    """A consumer that keeps the settings of the start is what this drive is there to find."""
    async with driven(monkeypatch, open_scripted_services) as it:
        kept = it.desk.services
        monkeypatch.setattr(type(it.desk), "services_for", lambda _desk, _in_force: kept)
        await call_over_websocket(it)
        it.stopping.begin("request")
        await drain(it.desk, it.stopping, it.server)
    assert "vad.threshold" in it.old
    assert "vad.threshold" not in it.new


def test_what_is_shown_elsewhere_is_there() -> None:
    """Each test that is named exists, and each setting is one that is live."""
    for key, test in SHOWN_ELSEWHERE.items():
        path, _, name = test.partition("::")
        assert f"def {name}(" in (ROOT / path).read_text(encoding="utf-8")
        assert fields_by_key(Settings)[key].live
