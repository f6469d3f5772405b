"""WebRTC calls through a real server process: an aiortc client, GStreamer's WHIP client, a TURN server, and SIGTERM."""

import http.client
import json
import os
import shutil
import signal
import subprocess
import time
import wave
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import ifaddr
import jiwer
import pytest
import trio
from trio_websocket import ConnectionClosed

from voice_agent.audio.files import read_audio
from voice_agent.transports.webrtc.turn import turn_credentials

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(
        all(ip.ip == "127.0.0.1" or not ip.is_IPv4 for a in ifaddr.get_adapters() for ip in a.ips),
        reason="aiortc's client does not gather loopback addresses, and there is no other IPv4 address here",
    ),
]

LIMIT = 0.08
GRACE_SECONDS = 3
LONGEST_PAUSE_SECONDS = 2.5
"""Between two words of the speech: from the end of the file to its beginning again, and a breath."""


def ask(server: Any, path: str, offer: str | None = None) -> tuple[int, Any, str]:
    """GET, or POST an offer; return status, headers and body."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        headers = {} if offer is None else {"Content-Type": "application/sdp"}
        connection.request("GET" if offer is None else "POST", path, offer, headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read().decode()
    finally:
        connection.close()


def test_speech_over_opus_is_understood(
    start_server: Any,
    call: Callable[..., Any],
    assets: Path,
    words: Callable[[str], str],
    two_cities_words: str,
    beckett_words: str,
) -> None:
    """Both shipped files at once, as Opus: ready, partials, finals, closed; at most 8 % of the words are wrong."""
    server = start_server()
    callers = [call(server, assets / "two_cities.wav"), call(server, assets / "beckett.wav")]
    for caller in callers:
        closed = caller.wait_for("closed")
        assert (closed["reason"], closed["dropped_audio_ms"]) == ("stopped", 0)
        assert closed["network"]["packets_received"] > 100
        assert closed["network"]["round_trip_ms"] is not None
        assert closed["network"]["bitrate"] > 8_000
        kinds = [m["type"] for m in caller.messages]
        assert kinds[:2] == ["answered", "ready"]
        assert "partial" in kinds
    said = [words(caller.finals) for caller in callers]
    for reference, heard in zip((two_cities_words, beckett_words), said, strict=True):
        print(f"word error rate {jiwer.wer(reference, heard):.1%}: {heard}")
    assert jiwer.wer([two_cities_words, beckett_words], said) <= LIMIT
    assert metric(server, 'voice_agent_webrtc_packets_total{outcome="received"}') > 1000
    assert metric(server, "voice_agent_webrtc_round_trip_seconds_count") >= len(callers)
    assert server.stop() == 0
    assert "Traceback" not in server.log()


def test_delete_ends_the_session_within_a_second(
    start_server: Any, call: Callable[..., Any], assets: Path
) -> None:
    """HTTP DELETE in mid-call: last words, closed with `stopped`, and the address is gone."""
    server = start_server()
    caller = call(server, assets / "beckett.wav", "--hold")
    place = caller.wait_for("answered")["location"]
    caller.wait_for("final")
    told_at = time.monotonic()
    caller.tell("delete")
    assert caller.wait_for("closed")["reason"] == "stopped"
    seconds = time.monotonic() - told_at
    print(f"DELETE to closed: {seconds:.3f} s")
    server.wait_for_close_record()
    assert ask(server, place)[0] == 404
    assert server.stop() == 0


def test_a_killed_client_is_noticed(start_server: Any, call: Callable[..., Any], assets: Path) -> None:
    """No goodbye, no packets: the network says that nobody listens there, so no timeout is waited for."""
    server = start_server(webrtc__media_timeout_seconds=120)
    caller = call(server, assets / "beckett.wav", "--hold")
    caller.wait_for("final")
    killed_at = time.monotonic()
    caller.process.kill()
    record = server.wait_for_close_record()
    print(f"kill to close record: {time.monotonic() - killed_at:.3f} s")
    assert record["reason"] == "hangup"
    assert server.stop() == 0


def test_a_call_whose_media_never_arrives_ends_by_itself(start_server: Any, assets: Path) -> None:
    """Signalled, answered, and then nothing: a close record after the set-up time, and the place is free again."""
    server = start_server(webrtc__setup_timeout_seconds=1, server__max_calls=1)
    offer = "\r\n".join(
        [
            "v=0", "o=- 1 1 IN IP4 0.0.0.0", "s=-", "t=0 0", "m=audio 9 UDP/TLS/RTP/SAVPF 111", "a=mid:0",
            "a=sendonly", "a=rtcp-mux", "a=rtpmap:111 opus/48000/2", "a=ice-ufrag:abcd",
            "a=ice-pwd:0123456789012345678901", "a=fingerprint:sha-256 " + ":".join(["AB"] * 32),
            "a=setup:actpass", "a=candidate:1 1 udp 1 192.0.2.99 9 typ host", "",
        ]
    )  # fmt: skip
    assert ask(server, "/v1/webrtc", offer)[0] == 201
    status, headers, _ = ask(server, "/v1/webrtc", offer)
    assert (status, headers["retry-after"]) == (503, "5")
    record = server.wait_for_close_record()
    assert (record["reason"], record["error_code"]) == ("caller_error", "ice_timeout")
    deadline = time.monotonic() + 10
    while ask(server, "/readyz")[0] != 200:
        assert time.monotonic() < deadline
    assert server.stop() == 0
    assert "Traceback" not in server.log()


def repeat(source: Path, target: Path, times: int) -> None:
    """Write a file that says the same several times."""
    with wave.open(str(source)) as file:
        parameters, samples = file.getparams(), file.readframes(file.getnframes())
    with wave.open(str(target), "wb") as file:
        file.setparams(parameters)
        file.writeframes(samples * times)


async def speak(socket_: Any, pieces: list[bytes]) -> None:
    """Send ten pieces a second, until the server has enough."""
    began = trio.current_time()
    with suppress(ConnectionClosed):
        for number, piece in enumerate(pieces):
            await trio.sleep_until(began + number / 10)
            await socket_.send_message(piece)


async def test_sigterm_during_calls_of_both_kinds(
    start_server: Any, connect: Any, call: Callable[..., Any], assets: Path, tmp_path: Path
) -> None:
    """Six people go on speaking: each is told, understood up to the deadline, and closed cleanly; exit code 0 by then.

    Three WebRTC and three WebSocket calls. The speech outlasts the grace time: short sentences, over and over.
    """
    # Without partials, so that six people speaking without a pause are no load for any machine that runs tests.
    server = start_server(server__grace_seconds=GRACE_SECONDS, recogniser__partials="no")
    file = tmp_path / "over_and_over.wav"
    repeat(assets / "beckett.wav", file, 5)
    callers = [call(server, file, "--hold") for _ in range(3)]
    speech = read_audio(file)
    pcm, step = speech.to_s16le(), speech.sample_rate // 10 * 2
    pieces = [pcm[at : at + step] for at in range(0, len(pcm), step)]
    told: list[list[dict[str, Any]]] = []
    close_codes: list[int] = []

    async def over_websocket(heard: trio.Event) -> None:
        messages: list[dict[str, Any]] = []
        told.append(messages)
        start = {"type": "start", "encoding": "pcm_s16le", "sample_rate": speech.sample_rate, "channels": 1}
        async with connect(server.url) as socket_, trio.open_nursery() as nursery:
            await socket_.send_message(json.dumps(start))
            nursery.start_soon(speak, socket_, pieces)
            with suppress(ConnectionClosed):
                while True:
                    messages.append(json.loads(await socket_.get_message()))
                    if messages[-1]["type"] == "final":
                        heard.set()
            close_codes.append(socket_.closed.code)
            nursery.cancel_scope.cancel()

    with trio.fail_after(90):
        async with trio.open_nursery() as nursery:
            for heard in [trio.Event() for _ in range(3)]:
                nursery.start_soon(over_websocket, heard)
                await heard.wait()
            for caller in callers:
                await trio.to_thread.run_sync(caller.wait_for, "final")
            server.process.send_signal(signal.SIGTERM)
            told_at = time.monotonic()
            for caller in callers:
                nursery.start_soon(trio.to_thread.run_sync, caller.wait_for, "gone")
            code = await trio.to_thread.run_sync(server.process.wait, 30)
            print(
                f"SIGTERM to exit: {time.monotonic() - told_at:.2f} s of {GRACE_SECONDS} s and the last words"
            )
    assert code == 0, server.log()
    assert close_codes == [1012] * 3
    assert all(caller.messages.pop()["type"] == "gone" for caller in callers)
    for messages in [*told, *(caller.messages for caller in callers)]:
        codes = [m.get("code") for m in messages]
        assert codes.count("draining") == 1
        *_, last_words, closed = [m for m in messages if m["type"] in ("final", "closed")]
        assert messages.index(last_words) > codes.index("draining")
        print(f"heard {closed['audio_seconds']:.2f} s, last words until {last_words['end']:.2f} s")
        assert last_words["end"] > closed["audio_seconds"] - LONGEST_PAUSE_SECONDS
        assert (closed["type"], closed["reason"], closed["tasks_left"]) == ("closed", "drain", 0)
        assert messages[-1] is closed
    assert "Traceback" not in server.log()


def test_a_relayed_call_completes(
    start_server: Any, call: Callable[..., Any], assets: Path, coturn: Any
) -> None:
    """Neither side offers anything but TURN addresses, with time-limited credentials: the words come through coturn."""
    url = coturn.url
    server = start_server(
        webrtc__turn_servers=url, webrtc__turn_secret=coturn.secret, webrtc__relay_only="yes"
    )
    username, credential = turn_credentials(coturn.secret, expires_at=int(time.time()) + 600)
    caller = call(server, assets / "beckett.wav", "--relay", f"{url}|{username}|{credential}")
    answered = caller.wait_for("answered")
    candidates = [line for line in answered["answer"].splitlines() if line.startswith("a=candidate")]
    assert candidates
    assert all(" typ relay" in line for line in candidates)
    assert caller.wait_for("closed")["transcripts"] >= 5
    assert server.stop() == 0
    assert coturn.secret not in server.log()


PORT_MAPPER = """
void *g_object_new(unsigned long, const char *, ...);
void *gupnp_simple_igd_thread_new(void) { return g_object_new(80, 0); }
unsigned long gupnp_simple_igd_get_type(void) { return 80; }
void gupnp_simple_igd_add_port(void) {}
void gupnp_simple_igd_remove_port(void) {}
void gupnp_simple_igd_remove_port_local(void) {}
int gupnp_simple_igd_delete_all_mappings(void) { return 1; }
"""
"""In the place of the library that would map ports on a home router: the real one needs libsoup 3, whip-client has
libsoup 2, and the two abort in one process. 80 is G_TYPE_OBJECT."""


@pytest.fixture
def whip_environment(tmp_path: Path) -> dict[str, str]:
    """What makes Debian 12's whip-client start at all."""
    if shutil.which("whip-client") is None or shutil.which("cc") is None:
        pytest.skip("whip-client or cc is not installed (Debian packages simple-whip-client, gcc)")
    libraries, plugins = tmp_path / "lib", tmp_path / "plugins"
    libraries.mkdir()
    plugins.mkdir()
    (tmp_path / "mapper.c").write_text(PORT_MAPPER)
    name = "libgupnp-igd-1.0.so.4"
    command = ["cc", "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", str(libraries / name)]
    subprocess.run([*command, str(tmp_path / "mapper.c")], check=True)
    for plugin in Path("/usr/lib").glob("*-linux-gnu/gstreamer-1.0/*.so"):
        if not any(word in plugin.name for word in ("soup", "adaptivedemux2", "webrtchttp")):
            (plugins / plugin.name).symlink_to(plugin)
    if not (plugins / "libgstnice.so").exists():
        pytest.skip("GStreamer's ICE element is not installed (Debian package gstreamer1.0-nice)")
    return {
        **os.environ,
        "LD_LIBRARY_PATH": str(libraries),
        "GST_PLUGIN_SYSTEM_PATH_1_0": str(plugins),
        "GST_REGISTRY": str(tmp_path / "registry.bin"),
    }


def test_gstreamer_s_whip_client_is_transcribed(
    start_server: Any, assets: Path, tmp_path: Path, whip_environment: dict[str, str]
) -> None:
    """A send-only WHIP encoder, not ours, that trickles: it connects, and its words are counted at the close."""
    server = start_server()
    pipeline = (
        f"filesrc location={assets / 'beckett.wav'} ! wavparse ! audioconvert ! audioresample ! identity sync=true ! "
        "opusenc ! rtpopuspay pt=111 ! application/x-rtp,media=audio,encoding-name=OPUS,payload=111"
    )
    with (tmp_path / "whip.log").open("w") as log:
        process = subprocess.Popen(
            ["whip-client", "-u", f"{server.http}/v1/webrtc", "-A", pipeline],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=whip_environment,
        )
    try:
        deadline = time.monotonic() + 40
        while metric(server, 'voice_agent_transcripts_total{kind="final"}') < 5:
            told = (tmp_path / "whip.log").read_text()
            assert process.poll() is None, told
            assert time.monotonic() < deadline, (tmp_path / "whip.log").read_text() + server.log()
            time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        record = server.wait_for_close_record()
    finally:
        process.kill()
        process.wait()
    assert record["reason"] in {"stopped", "hangup"}
    assert record["transcripts"] >= 5
    assert server.stop() == 0


def metric(server: Any, name: str) -> float:
    lines = ask(server, "/metrics")[2].splitlines()
    return next((float(line.split()[-1]) for line in lines if line.startswith(name + " ")), 0.0)
