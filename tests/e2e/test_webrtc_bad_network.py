"""Speech over WebRTC through networks that lose, delay and reorder packets, to a real server process."""

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ifaddr
import jiwer
import pytest

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.alone,
    pytest.mark.skipif(
        all(ip.ip == "127.0.0.1" or not ip.is_IPv4 for a in ifaddr.get_adapters() for ip in a.ips),
        reason="aiortc's client does not gather loopback addresses, and there is no other IPv4 address here",
    ),
]

LIMIT = 0.15
CLOCK_LIMIT_SECONDS = 0.020
FIRST_SECONDS, SOON_SECONDS, AGAIN_SECONDS = 3.2, 16.0, 63.2
"""When the same file is played. Whole windows of voice activity (32 ms) lie between, so that a true clock hears the same
starts; and silence is before each, for its state at a call's very begin is another."""
FILE_SECONDS = 11
MATCH_SECONDS = 0.3


def starts(messages: list[dict[str, Any]], begin: float) -> list[float]:
    """When speech began on the server's clock while a file was played, counted from the file's begin."""
    found = [message["start"] for message in messages if message["type"] == "speech_started"]
    return [start - begin for start in found if begin <= start < begin + FILE_SECONDS]


def drifts(first: list[float], again: list[float]) -> list[float]:
    """How much later each start came when it was heard again; what was found only once is left out."""
    nearest = [min((later - start for later in again), key=abs) for start in first]
    return [drift for drift in nearest if abs(drift) < MATCH_SECONDS]


def test_speech_through_bad_networks_is_understood(
    start_server: Any,
    call: Callable[..., Any],
    network: Callable[..., Any],
    assets: Path,
    words: Callable[[str], str],
    two_cities_words: str,
    beckett_words: str,
) -> None:
    """30 ± 30 ms late and so reordered, both ways, without and with 5 % lost: at most 15 % of the words are wrong.

    The same words a minute later stand a minute later on the server's clock, within 20 ms.
    """
    server = start_server()
    beckett = assets / "beckett.wav"
    files = [f"{beckett}@{FIRST_SECONDS}", assets / "two_cities.wav", f"{beckett}@{AGAIN_SECONDS}"]
    jitter = ("--delay-ms", "30", "--jitter-ms", "30")
    networks = {"reordered": network(*jitter, "--seed", "4")}
    networks["lossy"] = network(*jitter, "--loss", "0.05", "--seed", "5")
    callers = {kind: call(server, *files, "--through", it.place) for kind, it in networks.items()}
    for kind, caller in callers.items():
        networks[kind].lead_to(caller.wait_for("answered")["answer"])
    said = f"{beckett_words} {two_cities_words} {beckett_words}"
    for kind, caller in callers.items():
        closed = caller.wait_for("closed")
        counts = networks[kind].end()
        heard = words(caller.finals)
        error_rate = jiwer.wer(said, heard)
        drift = drifts(starts(caller.messages, FIRST_SECONDS), starts(caller.messages, AGAIN_SECONDS))
        print(f"\n{kind}: {counts}\nword error rate {error_rate:.1%}: {heard}")
        print(f"drift over a minute: median {statistics.median(drift) * 1000:.0f} ms, mean ", end="")
        print(f"{statistics.mean(drift) * 1000:.1f} ms of {[round(d * 1000) for d in drift]}")
        assert closed["dropped_audio_ms"] == 0
        assert counts["to_server_reordered"] > 100
        assert (counts.get("to_server_lost", 0) > 50) is (kind == "lossy")
        assert error_rate <= LIMIT
        assert len(drift) >= 4
        assert abs(statistics.median(drift)) <= CLOCK_LIMIT_SECONDS
    assert server.stop() == 0
    assert "Traceback" not in server.log()
    print("\n".join(line for line in server.log().splitlines() if "webrtc_statistics" in line))


def test_a_sender_that_falls_silent_is_heard_to_its_end(
    start_server: Any,
    call: Callable[..., Any],
    assets: Path,
    words: Callable[[str], str],
    beckett_words: str,
) -> None:
    """Discontinuous transmission: the last words are final although nothing more is sent, and media time goes on."""
    server = start_server()
    files = [f"{assets / 'beckett.wav'}@{seconds}" for seconds in (FIRST_SECONDS, SOON_SECONDS)]
    caller = call(server, *files, "--dtx", "--hold")
    while caller.wait_for("final")["end"] < SOON_SECONDS + 8:
        pass
    caller.tell("stop")
    closed = caller.wait_for("closed")
    left_out = caller.wait_for("gone")["left_out"]
    error_rate = jiwer.wer(f"{beckett_words} {beckett_words}", words(caller.finals))
    print(f"\n{left_out} packets were not sent; {closed}; word error rate {error_rate:.1%}: {caller.finals}")
    assert left_out > 50
    assert error_rate <= LIMIT
    assert server.stop() == 0
    assert "Traceback" not in server.log()
