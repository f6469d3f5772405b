"""The microphone, with PortAudio played by the test."""

import sys
import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import trio
import trio.testing

from voice_agent.cli.microphone import MAX_WAITING_BLOCKS, MicrophoneError, MicrophoneSource, load_sounddevice
from voice_agent.core.errors import UnreadableFileError
from voice_agent.core.formats import AudioFormat


class FakePortAudioError(Exception):
    """PortAudio's own error."""


class FakeStream:
    """Records what it is asked for; ``play`` runs the callback in a thread of its own, as PortAudio does."""

    opened: "FakeStream"

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.is_started = False
        self.is_closed = False
        FakeStream.opened = self

    def start(self) -> None:
        """Begin."""
        self.is_started = True

    def close(self) -> None:
        """End."""
        self.is_closed = True

    def play(self, blocks: int) -> None:
        """Give ``blocks`` blocks out of one buffer that is used again and again."""

        def run() -> None:
            buffer = np.zeros((self.options["blocksize"], self.options["channels"]), np.float32)
            for i in range(blocks):
                buffer[:] = i / 1000
                self.options["callback"](buffer, len(buffer), None, None)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()


@pytest.fixture
def portaudio(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Stand in for the sounddevice module."""
    module = SimpleNamespace(InputStream=FakeStream, PortAudioError=FakePortAudioError)
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    return module


@pytest.mark.usefixtures("portaudio")
async def test_blocks_become_messages_in_the_calls_own_format() -> None:
    """The device is opened at the wire's rate and channels; each block is copied before its buffer is used again."""
    source = MicrophoneSource(AudioFormat(sample_rate=8_000), chunk_ms=20)
    assert source.is_live
    heard = []
    with trio.fail_after(60):
        async with source.open() as messages:
            stream = FakeStream.opened
            assert stream.is_started
            stream.play(3)
            async for message in messages:
                heard.append(message)
                if len(heard) == 3:
                    break
    assert stream.is_closed
    assert {k: stream.options[k] for k in ("samplerate", "channels", "dtype", "blocksize")} == {
        "samplerate": 8_000,
        "channels": 1,
        "dtype": "float32",
        "blocksize": 160,
    }
    expected = [np.full(160, np.rint(i / 1000 * 32768)).astype("<i2").tobytes() for i in range(3)]
    assert [m.data for m in heard] == expected
    assert [m.end_seconds for m in heard] == [0.02, 0.04, 0.06]


@pytest.mark.usefixtures("portaudio")
async def test_a_microphone_that_nobody_reads_does_not_fill_the_memory() -> None:
    """What is beyond two seconds is lost, and a block that comes after the end does no harm."""
    heard = 0
    with trio.fail_after(60):
        async with MicrophoneSource(AudioFormat()).open() as messages:
            FakeStream.opened.play(MAX_WAITING_BLOCKS + 50)
            await trio.testing.wait_all_tasks_blocked()
            with trio.move_on_after(0):
                async for _ in messages:
                    heard += 1
        FakeStream.opened.play(1)
        await trio.testing.wait_all_tasks_blocked()
    assert heard <= MAX_WAITING_BLOCKS


async def test_a_device_that_can_not_be_opened_is_told(portaudio: SimpleNamespace) -> None:
    """PortAudio's own words, in our own error."""

    def refuse(**_options: Any) -> None:
        raise FakePortAudioError("Invalid sample rate")

    portaudio.InputStream = refuse
    with pytest.raises(MicrophoneError, match="can't be opened: Invalid sample rate"):
        async with MicrophoneSource(AudioFormat()).open():
            pytest.fail("it was opened")


def test_a_missing_package_is_told_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is optional; its absence is no traceback."""
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(MicrophoneError, match=r"pip install 'voice-agent\[microphone\]'"):
        load_sounddevice()


def test_a_missing_library_is_told_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The import itself raises OSError where PortAudio is not there."""

    def fail(_name: str) -> None:
        raise OSError("PortAudio library not found")

    monkeypatch.setattr("voice_agent.cli.microphone.importlib.import_module", fail)
    with pytest.raises(MicrophoneError, match="apt install libportaudio2") as caught:
        load_sounddevice()
    assert isinstance(caught.value, UnreadableFileError)
