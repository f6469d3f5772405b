"""The attack file: bad input of every kind against one server process with keys, tokens and origins configured.

Each attack is data, in the modules beside this one: what is sent, and the exact answer. After all of them the same process
serves a call with the same words, and its memory is where it was.
"""

import json
import os
import re
import runpy
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from trio_websocket import ConnectionClosed

from voice_agent.access.keys import new_key
from voice_agent.audio.files import read_audio

pytestmark = pytest.mark.e2e

HERE = Path(__file__).parent
HTTP = runpy.run_path(str(HERE / "http_attacks.py"))
TOKENS = runpy.run_path(str(HERE / "token_attacks.py"))
FRAMES = runpy.run_path(str(HERE / "websocket_attacks.py"))
SECRET = "a-secret-that-both-sides-share-32-bytes"  # noqa: S105 - of this test's server
PATIENCE_SECONDS = 60
AT_ONCE = 8
MEMORY_MARGIN_MIB = 64

SETTINGS = [
    ("a port that is none", {"SERVER__PORT": "70000"}, ""),
    ("words for a number", {"SERVER__MAX_CALLS": "many"}, ""),
    ("not a number", {"SERVER__GRACE_SECONDS": "nan"}, ""),
    ("a setting that is none", {"SERVER__PROT": "1"}, ""),
    ("a secret in a file", {}, '[webrtc]\nturn_secret = "hidden"\n'),
    ("a short token secret", {"ACCESS__JWT_SECRET": "short"}, ""),
    ("every origin", {"ACCESS__ALLOWED_ORIGINS": "*"}, ""),
    ("an origin with a path", {"ACCESS__ALLOWED_ORIGINS": "https://a.example/x"}, ""),
    ("a network that is none", {"ACCESS__TRUSTED_PROXIES": "everywhere"}, ""),
    ("half a file", {}, "[server\nport = "),
    ("a key that is none", {"ACCESS__KEYS": 'a = { sha256 = "short" }'}, ""),
    ("a scope that is none", {"ACCESS__KEYS": f'a = {{ sha256 = "{"0" * 64}", scopes = ["root"] }}'}, ""),
]


class Target:
    """The server, and how attacks reach it."""

    def __init__(self, server: Any, secrets: dict[str, str]) -> None:
        self.server = server
        self.secrets = secrets

    async def exchange(self, sent: bytes, *, upgrade: bytes = b"") -> bytes:
        """Send bytes, after an upgrade where one is given, and return what comes until the server closes."""
        for name, secret in self.secrets.items():
            sent = sent.replace(b"{%b}" % name.encode(), secret.encode())
        received = bytearray()
        with trio.fail_after(PATIENCE_SECONDS):
            async with await trio.open_tcp_stream("127.0.0.1", self.server.port) as stream:
                try:
                    if upgrade:
                        await stream.send_all(upgrade)
                        while b"\r\n\r\n" not in received:
                            received += await stream.receive_some(4096) or b"\r\n\r\n"
                    await stream.send_all(sent)
                    async for piece in stream:
                        received += piece
                except trio.BrokenResourceError:
                    pass
        return bytes(received)

    @property
    def upgrade(self) -> bytes:
        return (
            "GET /v1/ws HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
            f"X-API-Key: {self.secrets['CALLER']}\r\n\r\n"
        ).encode()

    @property
    def memory_mib(self) -> float:
        status = Path(f"/proc/{self.server.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024


async def side_by_side(attack: Callable[..., Any], attacks: list[Any]) -> list[str]:
    """Make the attacks, some at once; return what went otherwise than expected."""
    wrong: list[str] = []
    limit = trio.CapacityLimiter(AT_ONCE)

    async def one(arguments: Any) -> None:
        async with limit:
            complaint = await attack(*arguments)
            if complaint:
                wrong.append(complaint)

    async with trio.open_nursery() as nursery:
        for arguments in attacks:
            nursery.start_soon(one, arguments)
    return sorted(wrong)


async def attack_http(target: Target, name: str, sent: bytes, expected: str) -> str:
    received = await target.exchange(sent)
    found = "closed"
    if received:
        head, _, body = received.partition(b"\r\n\r\n")
        status = head.split()[1].decode()
        code = re.search(rb'"code": "(\w+)"', body)
        found = f"{status} {code[1].decode() if code else repr(body[:80])}"
        if received.count(b"HTTP/1.1 ") > 1:
            found += " and a second answer"
    return "" if found == expected else f"{name}: {found} instead of {expected}"


async def attack_with_token(target: Target, name: str, token: str) -> str:
    sent = HTTP["request"]("/v1/sessions", f"Authorization: Bearer {token}")
    return await attack_http(target, f"token: {name}", sent, "401 unauthenticated")


async def attack_websocket(target: Target, name: str, sent: bytes, expected: int) -> str:
    received = await target.exchange(sent, upgrade=target.upgrade)
    head, _, frames = received.partition(b"\r\n\r\n")
    if b" 101 " not in head.partition(b"\r\n")[0] + b" " or b"permessage-deflate" in head:
        return f"{name}: {head!r}"
    closes = [
        int.from_bytes(found[1], "big") for found in re.finditer(rb"\x88[\x02-\x7d](..)", frames, re.DOTALL)
    ]
    return "" if expected in closes else f"{name}: {closes or frames[:80]!r} instead of {expected}"


async def hold_call(target: Target, connect: Any, speech: bytes) -> tuple[str, float]:
    """Make an ordinary call; return its words, and how long the last ones took."""
    headers = [(b"X-API-Key", target.secrets["CALLER"].encode())]
    words = []
    async with connect(target.server.url, headers=headers) as caller:
        for begin in range(0, len(speech), 64_000):
            await caller.send_message(speech[begin : begin + 64_000])
        began = time.monotonic()
        await caller.send_message('{"type":"stop"}')
        try:
            with trio.fail_after(PATIENCE_SECONDS):
                while True:
                    message = json.loads(await caller.get_message())
                    if message["type"] == "final":
                        words.append(message["text"])
        except ConnectionClosed:
            return " ".join(words), time.monotonic() - began


async def test_every_attack_gets_its_answer_and_the_server_is_as_before(
    start_server: Any, connect: Any, assets: Path
) -> None:
    """No attack gets anything but its answer; the log has no trace and no secret; words and memory are as before."""
    boss, caller = new_key("boss"), new_key("caller")
    secrets = {
        "KEY": boss.text,
        "CALLER": caller.text,
        "WRONG": "va_boss_" + "0" * 64,
        "UPPER": boss.text.upper(),
        "HALF": boss.text[:40],
    }
    keys = [
        f'{key.key_id} = {{ sha256 = "{key.sha256}", scopes = {json.dumps(scopes)} }}'
        for key, scopes in ((boss, ["observe", "admin"]), (caller, ["call"]))
    ]
    server = start_server(
        access__keys="\n".join(keys),
        access__jwt_secret=SECRET,
        access__jwt_issuer="https://id.test/",
        access__jwt_audience="voice-agent",
        access__allowed_origins="https://app.example.org",
        server__header_timeout_seconds=2,
        limits__requests_per_second_per_key=10_000,
        limits__requests_burst_per_key=10_000,
        limits__calls_per_minute_per_key=10_000,
        limits__calls_burst_per_key=10_000,
        logging__level="debug",
    )
    target = Target(server, secrets)
    speech = read_audio(assets / "beckett.wav").to_s16le()[:320_000]
    words, seconds = await hold_call(target, connect, speech)
    assert words
    assert not await attack_http(
        target,
        "a right token",
        HTTP["request"]("/v1/sessions/x", f"Authorization: Bearer {TOKENS['make'](SECRET)}"),
        "404 not_found",
    ), "the tokens that are refused must be refused for what is wrong with them"
    memory = target.memory_mib

    http_attacks = [(target, *attack) for attack in HTTP["ATTACKS"]]
    token_attacks = [(target, *attack) for attack in TOKENS["attacks"](SECRET)]
    frame_attacks = [(target, *attack) for attack in FRAMES["ATTACKS"]]
    wrong = await side_by_side(attack_http, http_attacks)
    wrong += await side_by_side(attack_with_token, token_attacks)
    wrong += await side_by_side(attack_websocket, frame_attacks)
    count = len(http_attacks) + len(token_attacks) + len(frame_attacks)
    assert not wrong, "\n".join(wrong)
    assert count >= 100

    words_after, seconds_after = await hold_call(target, connect, speech)
    memory_after = target.memory_mib
    print(
        f"{count} attacks; last words after {seconds:.2f} s before and {seconds_after:.2f} s after; "
        f"memory {memory:.0f} MiB before and {memory_after:.0f} MiB after"
    )
    assert words_after == words
    assert memory_after < memory + MEMORY_MARGIN_MIB
    assert await trio.to_thread.run_sync(server.stop) == 0
    log = server.log()
    assert "Traceback" not in log
    assert "203.0.113.66" not in log  # nobody named a proxy whose word counts
    for secret in (boss.text, caller.text, SECRET):
        assert secret not in log


@pytest.mark.parametrize(("name", "environ", "toml"), [pytest.param(*one, id=one[0]) for one in SETTINGS])
def test_settings_that_can_t_be_meant_stop_the_start(
    name: str, environ: dict[str, str], toml: str, tmp_path: Path
) -> None:
    """Exit code 78, before anything listens, with the setting named and no secret shown."""
    (tmp_path / "settings.toml").write_text(toml)
    done = subprocess.run(
        [sys.executable, "-m", "voice_agent", "serve", "--port", "0"],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
        cwd=tmp_path,
        env={**os.environ, **{f"VOICE_AGENT__{key}": value for key, value in environ.items()}},
    )
    assert done.returncode == 78, done.stderr
    assert "listening" not in done.stdout
    assert "Traceback" not in done.stderr
    assert "hidden" not in done.stderr
