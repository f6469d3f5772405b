"""Keys and tickets at a real server process, over both wires: right, wrong, missing, somebody else's."""

import contextlib
import http.client
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from voice_agent.access.keys import NewKey, new_key

pytestmark = pytest.mark.e2e

HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
OFFER = "\r\n".join(
    [
        "v=0", "o=- 1 1 IN IP4 0.0.0.0", "s=-", "t=0 0", "m=audio 9 UDP/TLS/RTP/SAVPF 111", "a=mid:0", "a=sendonly",
        "a=rtcp-mux", "a=rtpmap:111 opus/48000/2", "a=ice-ufrag:abcd", "a=ice-pwd:0123456789012345678901",
        "a=fingerprint:sha-256 " + ":".join(["AB"] * 32), "a=setup:actpass", "",
    ]
)  # fmt: skip
FRAGMENT = "a=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\nm=audio 9 RTP/AVP 0\r\na=mid:0\r\n"
WRONG = "va_kiosk_" + 64 * "0"


@attrs.frozen
class Guarded:
    """A server with keys."""

    server: Any
    kiosk: str
    """May call."""
    other: str
    """May call too, as somebody else."""
    eyes: str
    """May observe, not call."""

    def ask(self, method: str, path: str, *, body: str | None = None, **headers: str) -> Any:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        with contextlib.closing(
            http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=30)
        ) as connection:
            connection.request(method, path, body, named)
            answer = connection.getresponse()
            return answer.status, answer.headers, b"" if answer.status == 101 else answer.read()

    def as_(self, key: str, method: str, path: str, *, body: str | None = None, **headers: str) -> Any:
        return self.ask(method, path, body=body, Authorization=f"Bearer {key}", **headers)

    def shake(self, query: str = "", **headers: str) -> int:
        return int(self.ask("GET", f"/v1/ws{query}", **HANDSHAKE, **headers)[0])

    def ticket(self) -> str:
        status, _, body = self.as_(self.kiosk, "POST", "/v1/tickets")
        assert status == 201
        return str(json.loads(body)["ticket"])


def line(key: NewKey, *scopes: str) -> str:
    return f'{key.key_id} = {{ sha256 = "{key.sha256}", scopes = {json.dumps(scopes)} }}'


@pytest.fixture
def guarded(start_server: Any) -> Iterator[Guarded]:
    """Whatever a test does, no secret of it may stand in the log."""
    kiosk, other, eyes = new_key("kiosk"), new_key("other"), new_key("eyes")
    lines = [line(kiosk, "call"), line(other, "call"), line(eyes, "observe")]
    server = start_server(access__keys="\n".join(lines), logging__level="debug")
    yield Guarded(server, kiosk.text, other.text, eyes.text)
    assert server.stop() == 0
    log = server.log()
    for secret in (
        kiosk.text,
        other.text,
        eyes.text,
        WRONG,
        *(text[-64:] for text in (kiosk.text, eyes.text)),
    ):
        assert secret not in log
    assert "Traceback" not in log


def test_a_websocket_call_needs_a_key_that_may_call(guarded: Guarded) -> None:
    """Wherever it stands; none, a wrong one, one that may do other things, and two of them are refused."""
    assert guarded.shake() == 401
    assert guarded.shake(Authorization=f"Bearer {guarded.kiosk}") == 101
    assert guarded.shake(X_API_Key=guarded.kiosk) == 101
    assert guarded.shake(Authorization=f"Bearer {WRONG}") == 401
    assert guarded.shake(Authorization=f"Bearer {guarded.eyes}") == 403
    assert guarded.shake(Authorization=f"Bearer {guarded.kiosk}", X_API_Key=guarded.kiosk) == 400
    assert guarded.shake(f"?key={guarded.kiosk}") == 401


def test_a_ticket_opens_one_call(guarded: Guarded) -> None:
    """As subprotocol or in the query, once; the server never answers with it."""
    ticket = guarded.ticket()
    offered = f"voice-agent.v1, voice-agent.ticket.{ticket}"
    status, headers, _ = guarded.ask("GET", "/v1/ws", **HANDSHAKE, Sec_WebSocket_Protocol=offered)
    assert status == 101
    assert headers["Sec-WebSocket-Protocol"] == "voice-agent.v1"
    assert ticket not in str(headers)
    assert guarded.shake(Sec_WebSocket_Protocol=offered) == 401
    ticket = guarded.ticket()
    assert guarded.shake(f"?language=en&ticket={ticket}") == 101
    assert guarded.shake(f"?language=en&ticket={ticket}") == 401
    assert ticket not in guarded.server.log()
    assert guarded.ask("POST", "/v1/tickets")[0] == 401
    assert guarded.as_(guarded.eyes, "POST", "/v1/tickets")[0] == 403


def test_a_webrtc_call_is_its_own_caller_s(guarded: Guarded) -> None:
    """To another key it does not exist: PATCH, DELETE and GET are answered like those of a made-up address."""
    sdp, fragment = "application/sdp", "application/trickle-ice-sdpfrag"
    assert guarded.ask("POST", "/v1/webrtc", body=OFFER, Content_Type=sdp)[0] == 401
    assert guarded.as_(WRONG, "POST", "/v1/webrtc", body=OFFER, Content_Type=sdp)[0] == 401
    assert guarded.as_(guarded.eyes, "POST", "/v1/webrtc", body=OFFER, Content_Type=sdp)[0] == 403
    status, headers, _ = guarded.as_(guarded.kiosk, "POST", "/v1/webrtc", body=OFFER, Content_Type=sdp)
    assert status == 201
    address, trickle = headers["Location"], {"Content_Type": fragment, "If_Match": headers["ETag"]}
    for method, body in (("GET", None), ("PATCH", FRAGMENT), ("DELETE", None)):
        assert guarded.ask(method, address, body=body, **trickle)[0] == 401
        answers = [
            guarded.as_(guarded.other, method, path, body=body, **trickle)
            for path in (address, "/v1/webrtc/" + "x" * 32)
        ]
        assert [answer[0] for answer in answers] == [404, 404]
        assert answers[0][2] == answers[1][2]
    assert guarded.as_(guarded.kiosk, "PATCH", address, body=FRAGMENT, **trickle)[0] == 204
    assert guarded.as_(guarded.kiosk, "DELETE", address)[0] == 200


def test_other_addresses_ask_for_their_own_scopes(guarded: Guarded) -> None:
    """Metrics are for who may observe; what is public serves whoever shows whatever."""
    assert guarded.ask("GET", "/metrics")[0] == 401
    assert guarded.as_(guarded.kiosk, "GET", "/metrics")[0] == 403
    assert guarded.as_(guarded.eyes, "GET", "/metrics")[0] == 200
    for path in ("/healthz", "/readyz", "/"):
        assert guarded.ask("GET", path)[0] == 200
        assert guarded.as_(WRONG, "GET", path)[0] == 200


def test_voice_agent_call_shows_the_key_of_a_file(guarded: Guarded, assets: Path, tmp_path: Path) -> None:
    """The key is on no command line; without it the command says what to do, with 69."""
    command = [sys.executable, "-m", "voice_agent", "call", "--url", guarded.server.url, "--speed", "0"]
    speech = str(assets / "beckett.wav")
    environ = {name: value for name, value in os.environ.items() if name != "VOICE_AGENT_KEY"}

    def run(*more: str, **variables: str) -> Any:
        return subprocess.run(
            [*command, *more, speech],
            env=environ | variables,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    refused = run()
    assert refused.returncode == 69
    assert "--key-file" in refused.stderr
    (tmp_path / "key").write_text(guarded.kiosk + "\n")
    heard = run("--key-file", str(tmp_path / "key"))
    assert heard.returncode == 0, heard.stderr
    assert "fail better" in heard.stdout.lower()
    wrong = run(VOICE_AGENT_KEY=WRONG)
    assert wrong.returncode == 69
    assert WRONG not in wrong.stdout + wrong.stderr
    assert '"key": "kiosk"' in guarded.server.log()
