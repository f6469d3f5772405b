"""``voice-agent call`` as a user runs it, against a server of protocol v1 that is played in a thread."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import soundfile
import trio
from click.testing import CliRunner, Result
from trio_websocket import ConnectionClosed, WebSocketConnection, WebSocketRequest, serve_websocket

from voice_agent.cli.call_command import call

RUN_CALL = "from voice_agent.cli.call_command import call; call()"
PROCESS_SECONDS = 60


@attrs.define
class PlayedServer:
    """Where the server is, and what it was told: (play, start message, bytes of audio) of each call that ended."""

    port: int
    calls: "queue.SimpleQueue[tuple[str, dict[str, Any], int]]"
    audio_began: threading.Event

    def url(self, play: str) -> str:
        """Return the address under which calls are played so."""
        return f"ws://127.0.0.1:{self.port}/v1/ws?{play}"


_seq: "weakref.WeakKeyDictionary[WebSocketConnection, int]" = weakref.WeakKeyDictionary()


async def play(request: WebSocketRequest, server: PlayedServer) -> None:
    """Play one call as the query asks: well, refuse, die, fatal or mute."""
    how = request.path.partition("?")[2]
    if how == "refuse":
        await request.reject(503, body=b"full")
        return
    connection = await request.accept()
    try:
        await _play(connection, how, server)
    except ConnectionClosed:
        return


async def _play(connection: WebSocketConnection, how: str, server: PlayedServer) -> None:
    start = json.loads(await connection.get_message())
    if how == "resume" and "resume" not in start:
        await _say(connection, "ready", session="s", resume={"token": "t", "window_seconds": 60})
        await connection.get_message()
        server.audio_began.set()
        await connection._stream.aclose()
        return
    again = {"resumed": True, "heard_ms": 0, "resume": {"token": "u", "window_seconds": 60}, "seq": 9}
    await _say(connection, "ready", session=f"s-{how}", protocol=1, **(again if "resume" in start else {}))
    audio_bytes = 0
    while isinstance(message := await connection.get_message(), bytes):
        audio_bytes += len(message)
        server.audio_began.set()
        if how == "die" and audio_bytes > 3000:
            await connection._stream.aclose()
            return
        if how == "fatal" and audio_bytes > 3000:
            await _say(connection, "error", code="bad_audio", message="odd", fatal=True, field=None)
            await _say(connection, "closed", reason="caller_error", duration_seconds=1)
            await connection.aclose(4400)
            return
    assert json.loads(message) == {"type": "stop"}
    server.calls.put((how, start, audio_bytes))
    if how == "mute":
        await trio.sleep_forever()
    await _say(connection, "partial", utterance=1, text="it was", start=0.0, end=0.1, stable="it")
    await _say(connection, "notice", code="overflow", message="too fast", detail={})
    await _say(connection, "final", utterance=1, text="It was.", start=0.0, end=0.1, stable="It was.")
    await _say(connection, "closed", reason="stopped", duration_seconds=1.0, audio_seconds=1.0, transcripts=1)
    await connection.aclose(1000)


async def _say(connection: WebSocketConnection, kind: str, **fields: Any) -> None:
    # Above any `ready`, for a resumed call takes no number twice.
    _seq[connection] = _seq.get(connection, 9) + 1
    await connection.send_message(
        json.dumps({"type": kind, "seq": _seq[connection], "position_ms": 0, **fields})
    )


@pytest.fixture
def server() -> Iterator[PlayedServer]:
    """Run the server in a thread, for the command runs Trio in this one."""
    started: queue.SimpleQueue[tuple[PlayedServer, trio.lowlevel.TrioToken, trio.CancelScope]] = (
        queue.SimpleQueue()
    )

    async def serve() -> None:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                played = PlayedServer(0, queue.SimpleQueue(), threading.Event())
                listening = await nursery.start(
                    serve_websocket, lambda request: play(request, played), "127.0.0.1", 0, None
                )
                played.port = listening.port
                started.put((played, trio.lowlevel.current_trio_token(), scope))

    thread = threading.Thread(target=trio.run, args=(serve,))
    thread.start()
    played, token, scope = started.get(timeout=60)
    yield played
    token.run_sync_soon(scope.cancel)
    thread.join(10)
    assert not thread.is_alive()


@pytest.fixture
def wav(tmp_path: Path) -> Path:
    """A fifth of a second of 16 kHz mono: 6400 bytes on the wire."""
    return write_wav(tmp_path / "short.wav", 0.2)


def write_wav(path: Path, seconds: float) -> Path:
    """Write a quiet tone."""
    tone = 0.1 * np.sin(np.arange(round(seconds * 16_000)) / 10)
    soundfile.write(path, tone, 16_000)
    return path


def run(*args: object) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(call, [str(arg) for arg in args])


def test_finals_go_to_standard_output_and_the_rest_to_standard_error(server: PlayedServer, wav: Path) -> None:
    """At the speed of sound, with partials, notices, the close record and the latencies."""
    result = run("--url", server.url("well"), wav)
    assert result.exit_code == 0, result.output
    assert result.stdout == "It was.\n"
    notice, closing, final_latency, partial_latency = result.stderr.splitlines()
    assert notice == "notice [overflow]: too fast"
    assert closing == (
        "call 1 (short.wav): stopped after 1.0 s, 0.2 s of audio sent, 1 final, close code 1000"
    )
    assert final_latency.startswith("final latency    p50 0.")
    assert partial_latency.startswith("partial latency  p50 0.")
    how, start, audio_bytes = server.calls.get(timeout=60)
    assert (how, audio_bytes) == ("well", 6400)
    assert start == {
        "type": "start",
        "encoding": "pcm_s16le",
        "sample_rate": 16_000,
        "channels": 1,
        "language": "en",
        "partials": True,
    }


def test_every_option_reaches_the_server(server: PlayedServer, wav: Path) -> None:
    """Format, language, partials and trailing silence; at another speed the latencies are not given."""
    result = run(
        *("--url", server.url("well"), "--speed", 0, "--encoding", "mulaw", "--rate", 8000, "--channels", 2),
        *("--no-partials", "--silence-seconds", 0.3, "--chunk-ms", 100, "--language", "en", wav),
    )
    assert result.exit_code == 0, result.output
    assert "latency not measured: audio was sent as fast as it was heard" in result.stderr
    _, start, audio_bytes = server.calls.get(timeout=60)
    assert (start["encoding"], start["sample_rate"], start["channels"]) == ("mulaw", 8000, 2)
    assert start["partials"] is False
    assert audio_bytes == 8000 * 2 // 2


def test_a_headerless_file_is_sent_as_it_is(server: PlayedServer, tmp_path: Path) -> None:
    """--raw says what it holds."""
    path = tmp_path / "audio.raw"
    path.write_bytes(bytes(3200))
    result = run("--url", server.url("well"), "--raw", "pcm_s16le:16000:1", "--speed", 4, path)
    assert result.exit_code == 0, result.output
    assert "audio was sent at 4 times the speed of sound" in result.stderr
    assert server.calls.get(timeout=60)[2] == 3200


def test_json_gives_every_message_of_every_call_and_a_summary(server: PlayedServer, tmp_path: Path) -> None:
    """Each line parses; calls are told apart; files are dealt out in turn to the calls at once."""
    short, longer = write_wav(tmp_path / "a.wav", 0.1), write_wav(tmp_path / "b.wav", 0.2)
    result = run("--url", server.url("well"), "--json", "--calls", 3, short, longer)
    assert result.exit_code == 0, result.output
    *messages, last = [json.loads(line) for line in result.stdout.splitlines()]
    for number in (1, 2, 3):
        kinds = [line["message"]["type"] for line in messages if line["call"] == number]
        assert kinds == ["ready", "partial", "notice", "final", "closed"]
    assert all(line["received_at"] > 1_600_000_000 for line in messages)
    timed = [line["message"]["type"] for line in messages if "latency_seconds" in line]
    assert sorted(timed) == ["final"] * 3 + ["partial"] * 3
    summary = last["summary"]
    assert [(c["call"], c["audio"], c["audio_seconds"], c["text"]) for c in summary["calls"]] == [
        (1, "a.wav", 0.1, "It was."),
        (2, "b.wav", 0.2, "It was."),
        (3, "a.wav", 0.1, "It was."),
    ]
    assert summary["final_latency_seconds"]["count"] == 3
    assert summary["exit_code"] == 0


def test_more_files_than_calls_are_called_one_after_the_other(server: PlayedServer, tmp_path: Path) -> None:
    """Every file is heard, whatever --calls is."""
    files = [write_wav(tmp_path / f"{i}.wav", 0.02 * (i + 1)) for i in range(3)]
    result = run("--url", server.url("well"), "--speed", 0, *files)
    assert result.exit_code == 0, result.output
    assert result.stdout == "1  It was.\n2  It was.\n3  It was.\n"
    assert [server.calls.get(timeout=60)[2] for _ in files] == [640, 1280, 1920]


@pytest.mark.parametrize(
    ("how", "exit_code", "words"),
    [
        ("refuse", 69, "failed [server_unreachable]: ws://127.0.0.1:"),
        ("die", 70, "failed [connection_lost]"),
        ("fatal", 70, "failed [bad_audio]: odd"),
    ],
)
def test_each_failure_has_its_words_and_its_exit_code(
    server: PlayedServer, wav: Path, how: str, exit_code: int, words: str
) -> None:
    """No traceback, one line that says why."""
    result = run("--url", server.url(how), wav)
    assert result.exit_code == exit_code, result.output
    assert words in result.stderr
    assert "Traceback" not in result.output


def test_a_call_that_is_resumed_is_a_good_call(server: PlayedServer, tmp_path: Path) -> None:
    """The connection breaks once: exit 0, every sample was sent to somebody, and both lines say what happened."""
    path = write_wav(tmp_path / "long.wav", 0.5)
    result = run("--url", server.url("resume"), "--url", server.url("resume"), path)
    assert result.exit_code == 0, result.output
    assert result.stdout == "It was.\n"
    lost, back, *_, closing, _, _ = result.stderr.splitlines()
    assert lost.startswith("connection lost (the server went away without a close record: close code 1006)")
    assert back.startswith("resumed after ")
    assert back.endswith(" s, nothing lost")
    assert "resumed once" in closing
    assert server.calls.get(timeout=60)[2] == 16_000


def test_several_calls_at_once_are_resumed_each_for_itself(server: PlayedServer, tmp_path: Path) -> None:
    """Each with its number; for machines, in lines of their own."""
    path = write_wav(tmp_path / "long.wav", 0.5)
    result = run("--url", server.url("resume"), "--json", "--calls", 3, path)
    assert result.exit_code == 0, result.output
    *lines, last = [json.loads(line) for line in result.stdout.splitlines()]
    for number in (1, 2, 3):
        kinds = [
            next(iter(line.keys() - {"call", "received_at", "latency_seconds"}))
            for line in lines
            if line["call"] == number
        ]
        assert kinds[:4] == ["message", "reconnecting", "resumed", "message"]
    assert [call["resumes"] for call in last["summary"]["calls"]] == [1, 1, 1]


def test_no_resume_makes_a_lost_connection_the_end(server: PlayedServer, wav: Path) -> None:
    """For those who would rather know."""
    result = run("--url", server.url("resume"), "--no-resume", wav)
    assert result.exit_code == 70, result.output
    assert "trying again" not in result.stderr


def test_the_next_server_is_called_when_one_does_not_take_the_call(server: PlayedServer, wav: Path) -> None:
    """Also from the variable, which holds several addresses with spaces between."""
    result = run("--url", server.url("refuse"), "--url", server.url("well"), wav)
    assert result.exit_code == 0, result.output
    both = f"{server.url('refuse')} {server.url('well')}"
    result = CliRunner(env={"VOICE_AGENT_URL": both}).invoke(call, [str(wav)])
    assert result.exit_code == 0, result.output


@pytest.mark.e2e
def test_ctrl_c_while_there_is_no_connection_leaves_at_once(server: PlayedServer, tmp_path: Path) -> None:
    """SIGINT in an outage: exit 130, no traceback, and no wait for a server that is gone."""
    gone = "ws://127.0.0.1:1/v1/ws"
    path = write_wav(tmp_path / "long.wav", 600)
    process = start_process("--url", server.url("resume"), *(["--url", gone] * 9), path)
    assert server.audio_began.wait(PROCESS_SECONDS)
    assert process.stderr is not None
    while "still no connection" not in process.stderr.readline():
        pass
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PROCESS_SECONDS)
    assert process.returncode == 130, err
    assert out == ""
    assert "Traceback" not in err


def test_a_file_that_can_not_be_read_stops_everything_before_the_first_call(
    server: PlayedServer, wav: Path, tmp_path: Path
) -> None:
    """One bad file of two: exit 66, and the server hears of nothing."""
    result = run("--url", server.url("well"), wav, tmp_path / "missing.wav")
    assert result.exit_code == 66
    assert result.stderr.startswith(f"voice-agent call: {tmp_path}/missing.wav can't be read: ")
    assert server.calls.empty()


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["--microphone", "a.wav"],
        ["--microphone", "--calls", "2"],
        ["--rate", "1", "a.wav"],
        ["--encoding", "opus", "--rate", "44100", "a.wav"],
        ["--encoding", "mp3", "a.wav"],
        ["--url", "http://127.0.0.1/", "a.wav"],
        ["--speed", "-1", "a.wav"],
        ["--calls", "0", "a.wav"],
    ],
)
def test_wrong_usage_exits_with_2(args: list[str]) -> None:
    """Before anything is opened."""
    result = run(*args)
    assert result.exit_code == 2, result.output
    assert "Usage:" in result.stderr


def test_no_microphone_is_told_and_exits_with_66(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server room has none."""
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    result = run("--microphone")
    assert result.exit_code == 66
    assert result.stderr.startswith("voice-agent call: reading a microphone needs the package sounddevice")


def test_help_documents_the_exit_codes() -> None:
    """What a script may rely on."""
    text = run("--help").stdout
    for code in ("0 ", "2 ", "66 ", "69 ", "70 ", "130 "):
        assert f"\n    {code}" in text


def start_process(*args: object, **options: Any) -> subprocess.Popen[str]:
    """Start the command in a process of its own, with a signal handling as in a shell."""
    return subprocess.Popen(
        [sys.executable, "-c", RUN_CALL, *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        **options,
    )


@pytest.mark.e2e
def test_ctrl_c_hangs_up_waits_for_the_last_final_and_exits_with_130(
    server: PlayedServer, tmp_path: Path
) -> None:
    """SIGINT in mid-call: `stop` is sent, the last words are shown, no traceback; the next file is not begun."""
    path = write_wav(tmp_path / "long.wav", 600)
    process = start_process("--url", server.url("well"), path, path)
    assert server.audio_began.wait(PROCESS_SECONDS)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PROCESS_SECONDS)
    assert process.returncode == 130, err
    assert out == "1  It was.\n"
    assert "Traceback" not in err
    assert "hanging up; Ctrl-C again leaves at once" in err
    assert "stopped after" in err
    assert 0 < server.calls.get(timeout=60)[2] < 600 * 32_000
    assert server.calls.empty()


@pytest.mark.e2e
def test_a_second_ctrl_c_leaves_at_once(server: PlayedServer, tmp_path: Path) -> None:
    """Also from a server that says nothing."""
    process = start_process("--url", server.url("mute"), write_wav(tmp_path / "long.wav", 600))
    assert server.audio_began.wait(PROCESS_SECONDS)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    assert process.stderr.readline() == "hanging up; Ctrl-C again leaves at once\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PROCESS_SECONDS)
    assert process.returncode == 130, err
    assert out == ""
    assert "Traceback" not in err


@pytest.mark.e2e
def test_a_reader_that_goes_away_ends_the_command_quietly(server: PlayedServer, tmp_path: Path) -> None:
    """``voice-agent call … | head -1``: no traceback when the pipe is closed."""
    process = start_process("--url", server.url("well"), "--json", write_wav(tmp_path / "long.wav", 600))
    assert process.stdout is not None
    assert server.audio_began.wait(PROCESS_SECONDS)
    process.stdout.close()
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait(PROCESS_SECONDS) != 0
    assert "Traceback" not in err
