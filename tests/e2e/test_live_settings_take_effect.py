"""One server process all through: its settings file is changed under it, and what callers meet changes with it."""

import json
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest
import trio
from trio_websocket import ConnectionClosed, ConnectionRejected

from voice_agent.audio.files import read_audio

pytestmark = pytest.mark.e2e

PATIENCE_SECONDS = 30
OFFER = "\r\n".join(
    [
        "v=0", "o=- 1 1 IN IP4 0.0.0.0", "s=-", "t=0 0", "m=audio 9 UDP/TLS/RTP/SAVPF 111", "a=mid:0", "a=sendonly",
        "a=rtcp-mux", "a=rtpmap:111 opus/48000/2", "a=ice-ufrag:abcd", "a=ice-pwd:0123456789012345678901",
        "a=fingerprint:sha-256 " + ":".join(["AB"] * 32), "a=setup:actpass", "",
    ]
)  # fmt: skip
TWO_CANDIDATES = "".join(f"a=candidate:{n} 1 udp 1 192.0.2.{n} 9 typ host\r\n" for n in (1, 2))

Connect = Callable[[str], AbstractAsyncContextManager[Any]]


@attrs.define
class Live:
    """A server and its settings file."""

    server: Any
    path: Path
    connect: Connect
    speech: bytes

    def log(self, event: str) -> list[dict[str, Any]]:
        """Return the log's lines of one event."""
        lines = [json.loads(line) for line in self.server.log().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == event]

    @asynccontextmanager
    async def changed(self, text: str) -> AsyncIterator[None]:
        """Run the block under other settings."""
        await self.write(text)
        try:
            yield
        finally:
            await self.write("# all defaults\n")

    async def write(self, text: str) -> None:
        """Replace the file, and wait until it is in force."""
        before = len(self.log("settings_changed"))
        new = self.path.with_name("new")
        new.write_text(text)
        new.replace(self.path)
        await self.until("settings_changed", more_than=before)

    async def until(self, event: str, *, more_than: int = 0) -> dict[str, Any]:
        """Wait until the log has more lines of an event; returns the last of them."""
        with trio.fail_after(PATIENCE_SECONDS):
            while len(lines := self.log(event)) <= more_than:  # noqa: ASYNC110 (another process writes it)
                await trio.sleep(0.02)
        return lines[-1]

    @property
    def version(self) -> int:
        """The version of the settings in force."""
        changes = self.log("settings_changed")
        return int(changes[-1]["version"]) if changes else 1

    def get(self, path: str, **headers: str) -> httpx.Response:
        return httpx.get(self.server.http + path, headers=headers, timeout=PATIENCE_SECONDS)


@pytest.fixture
def live(server: Any, connect: Connect, assets: Path) -> Live:
    """The file's server, with nothing changed; what it is told and its settings file lie in its own folder."""
    sentence = read_audio(assets / "beckett.wav").to_s16le()[: 16_000 * 2 * 3]
    return Live(server, server.log_path.parent / "settings.toml", connect, sentence)


async def message(socket: Any) -> dict[str, Any]:
    with trio.fail_after(PATIENCE_SECONDS):
        received: dict[str, Any] = json.loads(await socket.get_message())
    return received


async def told(socket: Any, *kinds: str) -> dict[str, Any]:
    """Return the next message of one of the types."""
    while True:
        received = await message(socket)
        if received["type"] in kinds:
            return received


async def ready(live: Live) -> dict[str, Any]:
    async with live.connect(live.server.url) as caller:
        await caller.send_message('{"type":"start"}')
        return await told(caller, "ready")


# What a caller meets: each returns something that is one before the change and another after it.


async def limit(live: Live, name: str) -> Any:
    return (await ready(live))["limits"][name]


async def partials(live: Live) -> Any:
    return (await ready(live))["partials"]


async def second_call(live: Live) -> Any:
    async with live.connect(live.server.url) as first:
        await first.send_message('{"type":"start"}')
        await told(first, "ready")
        try:
            async with live.connect(live.server.url):
                return 101
        except ConnectionRejected as refused:
            return refused.status_code


async def large_audio(live: Live) -> Any:
    async with live.connect(live.server.url) as caller:
        await caller.send_message('{"type":"start"}')
        await told(caller, "ready")
        try:
            await caller.send_message(bytes(100_000))
            await caller.send_message('{"type":"ping"}')
            return (await told(caller, "pong", "error"))["type"]
        except ConnectionClosed:
            return caller.closed.code


async def long_text(live: Live) -> Any:
    async with live.connect(live.server.url) as caller:
        await caller.send_message(json.dumps({"type": "text", "text": "x" * 1500}))
        with trio.move_on_after(1):
            return (await told(caller, "error"))["code"]
        return None


async def thirty_pings(live: Live) -> Any:
    async with live.connect(live.server.url) as caller:
        await caller.send_message('{"type":"start"}')
        for number in range(30):
            await caller.send_message(json.dumps({"type": "ping", "id": str(number)}))
        await caller.send_message('{"type":"stop"}')
        return (await told(caller, "closed"))["error_code"]


async def waiting_call(live: Live) -> Any:
    """Open a call and say nothing for a second."""
    async with live.connect(live.server.url) as caller:
        await caller.send_message('{"type":"start"}')
        await told(caller, "ready")
        with trio.move_on_after(1):
            return (await told(caller, "closed"))["reason"]
        return "open"


async def words(live: Live) -> Any:
    """Speak a sentence; whether speech was noticed, and whether words came of it."""
    async with live.connect(live.server.url) as caller:
        await caller.send_message('{"type":"start"}')
        await caller.send_message(live.speech)
        await caller.send_message('{"type":"stop"}')
        closed = None
        kinds = set()
        while closed is None:
            received = await message(caller)
            kinds.add(received["type"])
            closed = received if received["type"] == "closed" else None
        return "speech_started" in kinds, closed["transcripts"] > 0


async def offer(live: Live, body: str) -> Any:
    async with httpx.AsyncClient(timeout=PATIENCE_SECONDS) as client:
        url = f"{live.server.http}/v1/webrtc"
        answer = await client.post(url, content=body, headers={"Content-Type": "application/sdp"})
        if answer.status_code == 201:
            await client.delete(live.server.http + answer.headers["Location"])
        return answer.status_code


async def wait_on_connection(live: Live, first_bytes: bytes) -> Any:
    """Send something, then wait for a second whether the server closes."""
    async with await trio.open_tcp_stream("127.0.0.1", live.server.port) as stream:
        await stream.send_all(first_bytes)
        with trio.move_on_after(2):
            while await stream.receive_some():
                pass
            return "closed"
        return "open"


async def second_connection(live: Live) -> Any:
    async with (
        await trio.open_tcp_stream("127.0.0.1", live.server.port) as first,
        await trio.open_tcp_stream("127.0.0.1", live.server.port) as second,
    ):
        answers = []
        for stream in (first, second):
            try:
                await stream.send_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
                answers.append(bool(await stream.receive_some()))
            except trio.BrokenResourceError:
                answers.append(False)
        return answers[1]


async def stranger_page(live: Live) -> Any:
    answer = await trio.to_thread.run_sync(partial(live.get, "/healthz", Origin="https://app.example.org"))
    return answer.headers.get("access-control-allow-origin")


async def stranger(live: Live) -> Any:
    try:
        async with live.connect(live.server.url):
            return 101
    except ConnectionRejected as refused:
        return refused.status_code


async def debug_line(live: Live) -> Any:
    before = len(live.log("http_request"))
    await trio.to_thread.run_sync(partial(live.get, "/healthz"))
    # The answer is sent before it is logged.
    with trio.move_on_after(2):
        await live.until("http_request", more_than=before)
    return len(live.log("http_request")) > before


async def ticket_lifetime(live: Live) -> Any:
    async with httpx.AsyncClient(timeout=PATIENCE_SECONDS) as client:
        return (await client.post(f"{live.server.http}/v1/tickets")).json()["expires_in_seconds"]


Probe = Callable[[Live], Awaitable[Any]]
IDLE_REQUEST = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
CHANGES: list[tuple[str, str, Probe, Any, Any]] = [
    ("server", "max_calls = 1", second_call, 101, 503),
    ("server", "max_connections = 1", second_connection, True, False),
    ("server", "keep_alive_seconds = 0.2", partial(wait_on_connection, first_bytes=IDLE_REQUEST), "open", "closed"),
    ("server", "header_timeout_seconds = 0.2", partial(wait_on_connection, first_bytes=b"GET"), "open", "closed"),
    ("websocket", "max_binary_bytes = 2048", large_audio, "pong", 1009),
    ("websocket", "max_text_bytes = 400", long_text, None, "message_too_large"),
    ("limits", "max_messages_per_second = 10", thirty_pings, None, "rate_exceeded"),
    ("limits", "max_transcript_chars = 1000", long_text, None, "transcript_too_large"),
    ("session", "idle_timeout_seconds = 0.2", waiting_call, "open", "idle_timeout"),
    ("session", "max_duration_seconds = 0.2", waiting_call, "open", "max_duration"),
    ("session", "max_waiting_audio_ms = 777", partial(limit, name="max_waiting_audio_ms"), 10_000, 777),
    ("recogniser", "partials = false", partials, True, False),
    ("recogniser", "min_confidence = 1.0", words, (True, True), (True, False)),
    ("vad", "min_speech_ms = 2000", words, (True, True), (False, False)),
    ("webrtc", "max_offer_bytes = 4096", partial(offer, body=OFFER + "a=x\r\n" * 1000), 201, 413),
    ("webrtc", "max_candidates = 1", partial(offer, body=OFFER + TWO_CANDIDATES), 201, 422),
    ("access", 'anonymous = "never"', stranger, 101, 401),
    ("access", 'allowed_origins = "https://app.example.org"', stranger_page, None, "https://app.example.org"),
    ("access", "ticket_seconds = 7", ticket_lifetime, 30, 7),
    ("logging", 'level = "debug"', debug_line, False, True),
]  # fmt: skip


@pytest.mark.parametrize(
    ("section", "line", "probe", "before", "after"),
    CHANGES,
    ids=lambda value: value if isinstance(value, str) and "=" in value else "",
)
async def test_a_change_takes_effect_without_a_restart(
    live: Live, section: str, line: str, probe: Probe, before: Any, after: Any
) -> None:
    """What a caller meets is one thing before the change, another under it, and the first again when it is taken back."""
    assert await probe(live) == before
    async with live.changed(f"[{section}]\n{line}\n"):
        assert await probe(live) == after
    assert await probe(live) == before


async def test_a_running_call_keeps_what_it_began_with_and_limits_reach_it(live: Live) -> None:
    """The size of a message, which the call was told, stays; the section `limits` holds for the call that is there."""
    version = live.version
    async with live.connect(live.server.url) as caller:
        await caller.send_message('{"type":"start"}')
        assert (await told(caller, "ready"))["limits"]["max_binary_bytes"] == 262_144
        text = "[websocket]\nmax_binary_bytes = 1024\n[limits]\nmax_transcript_chars = 1000\n"
        async with live.changed(text):
            await caller.send_message(bytes(100_000))
            await caller.send_message('{"type":"ping"}')
            await told(caller, "pong")
            assert await large_audio(live) == 1009
            await caller.send_message(json.dumps({"type": "text", "text": "x" * 1500}))
            assert (await told(caller, "error"))["code"] == "transcript_too_large"
            closed = await told(caller, "closed")
    [opened] = [line for line in live.log("call_opened") if line["session"] == closed["session"]]
    assert opened["settings_version"] == version


async def test_a_wrong_file_changes_nothing(live: Live) -> None:
    """One wrong value beside a good one: refused, with the reason, and callers meet what they met."""
    before = len(live.log("settings_refused"))
    live.path.write_text("[server]\nmax_calls = 1\nmax_connections = 0\n")
    line = await live.until("settings_refused", more_than=before)
    assert "server.max_connections = 0 (settings.toml:3)" in line["reason"]
    assert await second_call(live) == 101
    live.path.write_text("# all defaults\n")


async def test_sighup_and_restart_only_settings_are_told(live: Live) -> None:
    """A changed port waits; SIGHUP reads the file again although it is as it was, and says so."""
    await live.write("[server]\nport = 1\nmax_connections = 100\n[recogniser]\nworker_threads = 1\n")
    line = live.log("settings_changed")[-1]
    assert line["changed"] == ["server.max_connections"]
    # The port was chosen by a flag, which wins over every file.
    assert line["waiting_for_restart"] == ["recogniser.worker_threads"]
    live.server.process.send_signal(signal.SIGHUP)
    line = await live.until("settings_unchanged")
    assert (line["changed"], line["waiting_for_restart"]) == ([], ["recogniser.worker_threads"])
    await live.write("# all defaults\n")


async def test_the_time_of_a_drain_is_the_one_in_force(start_server: Any, connect: Connect) -> None:
    """Grace and lame-duck seconds are read when the drain begins."""
    server = start_server()
    path = server.log_path.parent / "settings.toml"
    path.write_text("[server]\ngrace_seconds = 123\n")
    live = Live(server, path, connect, b"")
    await live.until("settings_changed")
    async with connect(server.url) as caller:
        await caller.send_message('{"type":"start"}')
        await told(caller, "ready")
        server.process.send_signal(signal.SIGTERM)
        seconds = (await told(caller, "notice"))["detail"]["grace_seconds"]
        assert 120 < seconds <= 123
        await caller.send_message('{"type":"stop"}')
        await told(caller, "closed")
    assert await trio.to_thread.run_sync(server.process.wait, PATIENCE_SECONDS) == 0
