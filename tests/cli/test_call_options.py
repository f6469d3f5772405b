"""Addresses and headerless formats on the command line."""

import click
import pytest

from voice_agent.cli.call_options import CallUrl, RawFormat
from voice_agent.core.formats import AudioFormat
from voice_agent.core.frames import Encoding


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("ws://127.0.0.1:8080/v1/ws", "ws://127.0.0.1:8080/v1/ws"),
        ("ws://127.0.0.1:8080", "ws://127.0.0.1:8080/v1/ws"),
        ("wss://voice.example/", "wss://voice.example/v1/ws"),
        ("ws://[::1]:9000/other?token=1", "ws://[::1]:9000/other?token=1"),
    ],
)
def test_an_address_without_a_path_means_the_protocols_own(text: str, url: str) -> None:
    """Host and port are enough; a path that was given stays."""
    assert CallUrl().convert(text, None, None) == url


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("http://127.0.0.1:8080", "ws:// or wss://"),
        ("127.0.0.1:8080", "ws:// or wss://"),
        ("ws://", "no host"),
        ("ws://:8080/v1/ws", "no host"),
        ("ws://host:0/", "no host or port"),
        ("ws://host:99999/", "out of range"),
        ("ws://host:port/", "ort"),
        ("ws://[::1/", "IPv6"),
        ("ws://me:secret@host/", "would not be sent"),
        ("ws://h\u00f6st/", "characters"),
        ("ws://host/a b", "characters"),
        ("ws://host/\r\nX-Evil: 1", "characters"),
    ],
)
def test_what_is_no_address_is_refused_with_the_reason(text: str, reason: str) -> None:
    """A wrong address is wrong usage, not a failed connection."""
    with pytest.raises(click.BadParameter, match=reason):
        CallUrl().convert(text, None, None)


@pytest.mark.parametrize(
    ("text", "audio_format"),
    [
        ("pcm_s16le", AudioFormat()),
        ("mulaw:8000", AudioFormat(Encoding.MULAW, 8000)),
        ("pcm_f32le:44100:2", AudioFormat(Encoding.PCM_F32LE, 44_100, 2)),
    ],
)
def test_a_headerless_format_may_leave_out_rate_and_channels(text: str, audio_format: AudioFormat) -> None:
    """16 kHz mono is what is left out."""
    assert RawFormat().convert(text, None, None) == audio_format


@pytest.mark.parametrize(
    "text", ["", "mp3", "mulaw:fast", "mulaw:8000:1:1", "mulaw:100", "mulaw:8000:9", "alaw:-8000"]
)
def test_what_is_no_format_is_refused(text: str) -> None:
    """The message says what one looks like, or what is allowed."""
    with pytest.raises(click.BadParameter):
        RawFormat().convert(text, None, None)
