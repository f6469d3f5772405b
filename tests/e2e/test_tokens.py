"""Tokens at a real server process, with a key set from a real HTTP server; and keys that change while it runs."""

import base64
import contextlib
import http.client
import http.server
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from joserfc.jwk import ECKey, OctKey, RSAKey
from joserfc.jws import JWSRegistry

from voice_agent.access.keys import NewKey, new_key

pytestmark = pytest.mark.e2e

SECRET = "a shared secret of more than 32 bytes"  # noqa: S105 - made up
HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


def encoded(part: bytes | dict[str, Any]) -> str:
    raw = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def signed(algorithm: str, key: Any, claims: dict[str, Any], **header: Any) -> str:
    start = f"{encoded({'alg': algorithm, 'kid': key.kid} | header)}.{encoded(claims)}"
    return f"{start}.{encoded(JWSRegistry.algorithms[algorithm].sign(start.encode(), key))}"


def claims(**more: Any) -> dict[str, Any]:
    good = {"iss": "https://id.example.org/", "aud": "voice-agent", "sub": "alice", "scope": "call"}
    return good | {"exp": int(time.time()) + 600} | more


def line(key: NewKey, *scopes: str) -> str:
    return f'{key.key_id} = {{ sha256 = "{key.sha256}", scopes = {json.dumps(scopes)} }}\n'


@attrs.define
class Provider:
    """Publishes what it is given, at ``url``; nothing while ``is_down``."""

    keys: list[Any] = attrs.field(factory=list)
    is_down: bool = False
    url: str = ""
    requests: int = 0


@pytest.fixture
def provider() -> Iterator[Provider]:
    made = Provider()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.requests += 1
            if made.is_down:
                self.send_error(500)
                return
            body = json.dumps({"keys": [key.as_dict(private=False) for key in made.keys]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made.url = f"http://127.0.0.1:{server.server_address[1]}/keys"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield made
        server.shutdown()
        thread.join()


def ask(server: Any, method: str, path: str, credential: str, **headers: str) -> tuple[int, bytes, str]:
    """Status, body and challenge of a request that shows a credential."""
    shown = {"Authorization": f"Bearer {credential}"} if credential else {}
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)) as connection:
        connection.request(method, path, headers=shown | headers)
        answer = connection.getresponse()
        body = b"" if answer.status == 101 else answer.read()
        return answer.status, body, answer.headers.get("WWW-Authenticate", "")


def shake(server: Any, credential: str) -> int:
    return ask(server, "GET", "/v1/ws", credential, **HANDSHAKE)[0]


def test_tokens_open_calls_and_hostile_ones_get_one_answer(start_server: Any, provider: Provider) -> None:
    """HS256, RS256 and ES256 side by side; rotation and outage of the provider; fifty ways to forge get the same 401."""
    rsa, ec, late = (
        RSAKey.generate_key(2048, {"kid": "rsa"}),
        ECKey.generate_key("P-256", {"kid": "ec"}),
        ECKey.generate_key("P-256", {"kid": "late"}),
    )
    secret = OctKey.import_key(SECRET)
    provider.keys = [rsa, ec]
    server = start_server(
        access__jwt_issuer="https://id.example.org/",
        access__jwt_audience="voice-agent",
        access__jwt_secret=SECRET,
        access__jwks_url=provider.url,
        logging__level="debug",
    )
    good = [
        signed("HS256", secret, claims(), kid="any"),
        signed("RS256", rsa, claims()),
        signed("ES256", ec, claims(aud=["others", "voice-agent"])),
    ]
    for token in good:
        assert shake(server, token) == 101
        assert ask(server, "GET", "/metrics", token)[0] == 403, "the scope is call"
    watcher = signed("ES256", ec, claims(scope="openid observe", sub="grafana"))
    assert (ask(server, "GET", "/metrics", watcher)[0], shake(server, watcher)) == (200, 403)

    hostile = [
        *(f"{encoded({'alg': name})}.{encoded(claims())}." for name in ("none", "None", "NONE", "nOnE", "")),
        *(
            signed("HS256", OctKey(form, form, None), claims(), kid="rsa")
            for form in (rsa.as_pem(), rsa.as_der())
        ),
        signed("HS384", secret, claims(), kid="any"),
        signed("PS256", rsa, claims()),
        signed("RS256", rsa, claims(), kid="ec"),
        signed("RS256", rsa, claims(), kid="../../../../dev/null"),
        signed("RS256", rsa, claims(), kid="unknown", jku=provider.url, x5u=provider.url),
        signed("ES256", late, claims(), jwk=late.as_dict(private=False)),
        signed("ES256", late, claims(), kid="ec", jwk=late.as_dict(private=False)),
        signed("ES256", ec, claims(), crit=["exp"]),
        signed("ES256", ec, claims(), crit=["b64"], b64=False),
        signed("ES256", ec, claims(), typ="dpop+jwt"),
        signed("ES256", ec, claims(exp=int(time.time()) - 60)),
        signed("ES256", ec, claims(exp=None)),
        signed("ES256", ec, claims(exp=float("1e300"))),
        signed("ES256", ec, claims(nbf=int(time.time()) + 600)),
        signed("ES256", ec, claims(iat=int(time.time()) + 600)),
        signed("ES256", ec, claims(aud="others")),
        signed("ES256", ec, claims(aud=["others"])),
        signed("ES256", ec, claims(aud=[])),
        signed("ES256", ec, claims(iss="https://id.example.com/")),
        signed("ES256", ec, claims(sub="")),
        signed("ES256", ec, claims(sub="a\nb")),
        signed("ES256", ec, claims(scope=["call"])),
        signed("ES256", ec, claims(tenant=7)),
        signed("ES256", ec, claims(quotas={"max_calls": -1})),
        signed("ES256", ec, claims(quotas={"max_cals": 1})),
        good[2][:-4],
        good[2].rpartition(".")[0] + ".",
        good[1].rpartition(".")[0] + "." + good[2].rpartition(".")[2],
        ".".join([good[2].split(".")[0], encoded(claims(scope="admin")), good[2].split(".")[2]]),
        "a.b.c",
        "..",
        "x" * 9000,
        "va_kiosk_" + "0" * 64,
        "va_",
    ]
    answers = {ask(server, "GET", "/metrics", token) for token in hostile}
    ((status, body, challenge),) = answers
    assert (status, json.loads(body)["code"]) == (401, "unauthenticated")
    assert 'error="invalid_token"' in challenge
    for token in hostile:
        assert shake(server, token) == 401
    assert provider.requests == 1, "unknown keys are asked for once in ten seconds at most"

    provider.keys.append(late)
    rotated = signed("ES256", late, claims())
    deadline = time.monotonic() + 60
    while shake(server, rotated) != 101:
        assert time.monotonic() < deadline, server.log()
        time.sleep(1)
    provider.is_down = True
    for token in (*good, rotated):
        assert shake(server, token) == 101
    log = server.log()
    assert server.stop() == 0
    assert "Traceback" not in log
    assert SECRET not in log
    assert not any(part in log for token in (*good, rotated) for part in token.split(".")[1:])
    reasons = {json.loads(entry).get("reason") for entry in log.splitlines() if '"audit"' in entry}
    assert {"jwt_algorithm", "jwt_signature", "jwt_expired", "jwt_audience", "key_unknown"} <= reasons


def test_keys_in_a_mounted_file_come_and_go_while_the_server_runs(start_server: Any, tmp_path: Path) -> None:
    """A key is replaced without a restart; a broken file changes nothing; with no key left, nobody gets in."""
    old, new, eyes = new_key("old"), new_key("new"), new_key("eyes")
    path = tmp_path / "keys.toml"

    def write(text: str) -> None:
        other = path.with_suffix(".new")
        other.write_text(text)
        other.chmod(0o600)
        other.replace(path)

    def becomes(expected: dict[str, int]) -> None:
        deadline = time.monotonic() + 30
        while {key: shake(server, key) for key in expected} != expected:
            assert time.monotonic() < deadline, server.log()
            time.sleep(0.1)

    write(line(old, "call") + line(eyes, "observe"))
    server = start_server(access__keys_file=path)
    becomes({old.text: 101, new.text: 401})
    ticket = json.loads(ask(server, "POST", "/v1/tickets", old.text)[1])["ticket"]
    write(line(old, "call") + line(new, "call") + line(eyes, "observe"))
    becomes({old.text: 101, new.text: 101})
    write(line(new, "call") + line(eyes, "observe"))
    becomes({old.text: 401, new.text: 101})
    assert ask(server, "GET", f"/v1/ws?ticket={ticket}", "", **HANDSHAKE)[0] == 401, "its tickets go along"
    write("new = {")
    deadline = time.monotonic() + 30
    while '"settings_refused"' not in server.log():
        assert time.monotonic() < deadline, server.log()
        time.sleep(0.1)
    becomes({old.text: 401, new.text: 101})
    write("# nobody\n")
    becomes({old.text: 401, new.text: 401})
    assert server.stop() == 0
    log = server.log()
    assert "Traceback" not in log
    assert not any(secret in log for key in (old, new, eyes) for secret in (key.text, key.sha256))
