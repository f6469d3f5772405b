"""Who gets in at a real server process, over both wires: pages of strangers, forged addresses, other names."""

import contextlib
import http.client
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.e2e

HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
OFFER = {"Content-Type": "application/sdp"}


def ask(server: Any, path: str, *, method: str = "GET", body: bytes | None = None, **headers: str) -> Any:
    """Status, headers and body of a request; ``x_y`` stands for the header ``X-Y``."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)) as connection:
        connection.request(method, path, body=body, headers=named)
        answer = connection.getresponse()
        return answer.status, answer.headers, b"" if answer.status == 101 else answer.read()


def shake(server: Any, **headers: str) -> Any:
    """Status and code of a WebSocket handshake; 101 has no code."""
    status, _, body = ask(server, "/v1/ws", **HANDSHAKE, **headers)
    return status, json.loads(body)["code"] if status != 101 else None


def post(server: Any, **headers: str) -> Any:
    """Status and code of a WebRTC offer that is none: 400 says that it was let in."""
    status, _, body = ask(server, "/v1/webrtc", method="POST", body=b"garbage", **OFFER, **headers)
    return status, json.loads(body)["code"]


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://127.0.0.1", "https://127.0.0.1:{port}", "garbage"]
)
def test_a_page_of_a_stranger_gets_nothing_on_either_wire(server: Any, origin: str) -> None:
    """403 before the handshake and before the offer is read: no call begins by another site's page."""
    origin = origin.format(port=server.port)
    assert shake(server, Origin=origin) == (403, "forbidden_origin")
    assert post(server, Origin=origin) == (403, "forbidden_origin")
    status, headers, _ = ask(server, "/metrics", Origin=origin)
    assert status == 403
    assert headers["Access-Control-Allow-Origin"] is None


def test_the_server_s_own_page_is_served(server: Any) -> None:
    """The console's own requests carry its origin."""
    assert shake(server, Origin=server.http) == (101, None)
    assert post(server, Origin=server.http) == (400, "invalid_sdp")


def test_a_page_under_another_name_may_call_but_sees_and_ends_nothing(server: Any) -> None:
    """A name that leads to loopback makes a page the server's own (DNS rebinding): it gets what a caller gets."""
    rebound = {"Host": f"evil.example:{server.port}", "Origin": f"http://evil.example:{server.port}"}
    assert shake(server, **rebound) == (101, None)
    assert ask(server, "/metrics", **rebound)[0] == 403
    assert ask(server, "/metrics", Host="evil.example")[0] == 403
    assert ask(server, "/metrics", Host="localhost")[0] == 200


@pytest.mark.parametrize("sign", ["X-Forwarded-For", "Forwarded", "Via", "X-Real-IP", "X-Forwarded-Host"])
def test_who_comes_by_a_proxy_is_not_this_machine(server: Any, sign: str) -> None:
    """Whatever the header claims: strangers of a proxy may call, and no more."""
    assert ask(server, "/metrics", **{sign: "127.0.0.1"})[0] == 403
    assert shake(server, **{sign: "127.0.0.1"}) == (101, None)


def test_a_listed_site_may_use_both_wires_and_read_the_answers(start_server: Any) -> None:
    """Exactly the site that is listed; a preflight is answered from the routes themselves."""
    server = start_server(access__allowed_origins="https://app.example, http://localhost:3000")
    assert shake(server, Origin="https://app.example") == (101, None)
    assert shake(server, Origin="https://app.example:8443") == (403, "forbidden_origin")
    assert shake(server, Origin="http://localhost:3000") == (101, None)
    asked = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
    status, headers, _ = ask(server, "/v1/webrtc", method="OPTIONS", **asked)
    assert status == 204
    assert headers["Access-Control-Allow-Origin"] == "https://app.example"
    assert "POST" in headers["Access-Control-Allow-Methods"]
    assert headers["Accept-Post"] == "application/sdp"
    status, headers, _ = ask(server, "/metrics", method="OPTIONS", **asked)
    assert status == 200
    assert "GET" in headers["Access-Control-Allow-Methods"]
    status, headers, body = ask(
        server, "/v1/webrtc", method="POST", body=b"garbage", Origin="https://app.example", **OFFER
    )
    assert (status, json.loads(body)["code"]) == (400, "invalid_sdp")
    assert headers["Access-Control-Allow-Origin"] == "https://app.example"
    assert "Location" in headers["Access-Control-Expose-Headers"]


def test_behind_a_proxy_that_ends_tls_the_page_is_its_own(start_server: Any) -> None:
    """With the proxy trusted, scheme and host are those that the browser sees."""
    server = start_server(access__trusted_proxies="127.0.0.0/8")
    seen = {
        "Origin": "https://voice.example",
        "X-Forwarded-For": "192.0.2.7",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "voice.example",
    }
    assert shake(server, **seen) == (101, None)
    assert shake(server, **{**seen, "X-Forwarded-Proto": "http"}) == (403, "forbidden_origin")


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"SERVER__HOST": "0.0.0.0"}, "anybody-from-anywhere-may-call"),  # noqa: S104 (it is refused)
        ({"SERVER__HOST": "0.0.0.0", "ACCESS__ANONYMOUS": "loopback"}, "anybody-from-anywhere-may-call"),  # noqa: S104
        ({"ACCESS__ALLOWED_ORIGINS": "*"}, "access.allowed_origins"),
        ({"ACCESS__TRUSTED_PROXIES": "0.0.0.0/0"}, "access.trusted_proxies"),
    ],
)
def test_settings_that_would_let_everybody_in_stop_the_start(
    tmp_path: Path, settings: dict[str, str], code: str
) -> None:
    """Exit 78 before anything listens, with words that say what to change."""
    environ = {**os.environ, **{f"VOICE_AGENT__{name}": value for name, value in settings.items()}}
    done = subprocess.run(
        [sys.executable, "-m", "voice_agent", "serve", "--port", "0"],
        env=environ,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 78
    assert code in done.stderr
    assert done.stdout == ""


def test_the_words_that_let_everybody_call_let_them_do_nothing_else(start_server: Any) -> None:
    """On every interface, without keys: calls are served, metrics are not."""
    server = start_server(
        server__host="0.0.0.0",  # noqa: S104 (the words below are what is tested)
        access__anonymous="anybody-from-anywhere-may-call",
    )
    assert shake(server) == (101, None)
    assert ask(server, "/metrics")[0] == 403
    assert ask(server, "/healthz")[0] == 200


def test_never_means_nobody(start_server: Any) -> None:
    """On loopback, without keys: 401 with the way in, on both wires; public addresses go on."""
    server = start_server(access__anonymous="never")
    assert shake(server) == (401, "unauthenticated")
    assert post(server) == (401, "unauthenticated")
    status, headers, _ = ask(server, "/metrics")
    assert (status, headers["WWW-Authenticate"]) == (401, 'Bearer realm="voice_agent"')
    assert ask(server, "/healthz")[0] == 200
    assert ask(server, "/")[0] == 200


SECRET = "tk.very-SECRET-0123456789"  # noqa: S105 (of nobody)


def test_nothing_that_is_shown_reaches_the_log(start_server: Any) -> None:
    """At the most talkative level: neither header nor query nor subprotocol, right or wrong."""
    server = start_server(logging__level="debug", access__anonymous="never")
    ask(server, f"/v1/ws?ticket={SECRET}", **HANDSHAKE)
    ask(server, f"/nowhere?ticket={SECRET}")
    for path in ("/metrics", "/v1/webrtc"):
        ask(server, path, Authorization=f"Bearer {SECRET}")
        ask(server, path, X_API_Key=SECRET)
    shake(server, Sec_WebSocket_Protocol=f"voice-agent.v1, voice-agent.ticket.{SECRET}")
    ask(server, "/metrics", Authorization=f"Bearer {SECRET}", X_API_Key=SECRET)
    assert server.stop() == 0
    assert "http_request" in server.log()
    assert "SECRET" not in server.log()
