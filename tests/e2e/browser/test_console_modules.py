"""The page's modules that compute and don't show, run in the browser."""

import re
from typing import Any

import pytest

pytestmark = pytest.mark.e2e


def test_subtitles_are_cut_as_players_want_them(server: Any, open_browser: Any, open_console: Any) -> None:
    """Two lines of 42 characters a cue, no overlap, and nothing that a player takes for its own marks."""
    finals = [
        {"start": 1.0, "end": 3.0, "text": "word " * 40, "confidence": 0.9},
        {"start": 2.5, "end": 2.5, "text": "a --> b\n\nc", "confidence": 0.9},
    ]
    with open_console(open_browser(), server) as console:
        text = console.page.evaluate(
            "async finals => (await import('/console/transcript.js')).toSrt(finals)", finals
        )
    cues = text.strip().split("\n\n")
    assert [cue.split("\n")[0] for cue in cues] == [str(number) for number in range(1, len(cues) + 1)]
    times = re.findall(r"00:00:(\d\d,\d{3}) --> 00:00:(\d\d,\d{3})", text)
    moments = [moment for cue in times for moment in cue]
    assert moments == sorted(moments)
    assert len(times) == len(cues)
    assert all(len(line) <= 42 for cue in cues for line in cue.split("\n")[2:])
    assert cues[-1].endswith("a -> b c")


def test_ice_servers_are_read_from_link_headers(server: Any, open_browser: Any, open_console: Any) -> None:
    """RFC 9725, section 4.6: STUN, TURN with credentials, and other links in between."""
    header = (
        '<stun:stun.example.net>; rel="ice-server", </help>; rel="help", '
        '<turn:turn.example.net?transport=udp>; rel="ice-server"; username="a,\\"b"; credential="c=;"; '
        'credential-type="password"'
    )
    with open_console(open_browser(), server) as console:
        read = console.page.evaluate(
            "async header => (await import('/console/wire-webrtc.js')).parseIceServers(header)", header
        )
    assert read == [
        {"urls": "stun:stun.example.net"},
        {"urls": "turn:turn.example.net?transport=udp", "username": 'a,"b', "credential": "c=;"},
    ]
