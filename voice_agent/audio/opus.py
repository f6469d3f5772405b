"""Opus, one packet a message (RFC 6716), through libopus as PyAV brings it.

A packet is checked against the framing rules of section 3 before the decoder sees it. What lies inside the frames
is range-coded and has no checksum: bytes that keep the framing rules decode to *some* sound, and no decoder can tell
them from speech. Such garbage is heard as noise, not refused.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from fractions import Fraction
from typing import Final

import av
import numpy as np
import numpy.typing as npt

from voice_agent.core.errors import BadAudioError

DECODED_RATE: Final = 48_000
"""Hz; the decoder always writes this rate, whatever the encoder was given."""

MAX_FRAME_BYTES: Final = 1_275
"""RFC 6716, section 3.4, rule R2."""
MAX_PACKET_SAMPLES: Final = DECODED_RATE * 120 // 1000
"""Rule R5: 120 ms."""

ENCODED_FRAME_MS: Final = 20
BITS_PER_SECOND_PER_CHANNEL: Final = 32_000
"""Wideband speech is transparent to a recogniser from about 24 kbit/s; a third more costs nothing on a call."""

_SILK = (480, 960, 1_920, 2_880)
_HYBRID = (480, 960)
_CELT = (120, 240, 480, 960)
FRAME_SAMPLES: Final = _SILK * 3 + _HYBRID * 2 + _CELT * 4
"""Samples at 48 kHz of one frame, by the TOC byte's five configuration bits (section 3.1, table 2)."""

_LAYOUTS: Final = {1: "mono", 2: "stereo"}


def packet_samples(packet: bytes) -> int:
    """Length of a packet in samples per channel at 48 kHz, found without decoding it.

    Raises:
        BadAudioError: the packet breaks a framing rule of RFC 6716, section 3.4.
    """
    if not packet:
        raise _bad("it is empty")
    configuration, code = packet[0] >> 3, packet[0] & 0b11
    lengths = _frame_lengths(packet, code)
    if max(lengths) > MAX_FRAME_BYTES:
        raise _bad(f"a frame of {max(lengths)} bytes is over {MAX_FRAME_BYTES}")
    samples = FRAME_SAMPLES[configuration] * len(lengths)
    if samples > MAX_PACKET_SAMPLES:
        raise _bad(f"it lasts {samples * 1000 // DECODED_RATE} ms, more than 120 ms")
    return samples


def _frame_lengths(packet: bytes, code: int) -> list[int]:
    """Bytes of each frame, by the TOC byte's frame count code (section 3.2)."""
    size = len(packet)
    if code == 0:
        return [size - 1]
    if code == 1:
        if (size - 1) % 2:
            raise _bad("its two frames can't be of equal length")
        return [(size - 1) // 2] * 2
    if code == 3:  # noqa: PLR2004  # the last of the four codes
        return _counted_frame_lengths(packet)
    first, start = _read_length(packet, 1)
    return [first, _rest(size - start - first)]


def _counted_frame_lengths(packet: bytes) -> list[int]:
    """Bytes of each frame of a code 3 packet: a count byte, then padding and lengths as its bits say (3.2.5)."""
    if len(packet) < 2:  # noqa: PLR2004  # the TOC byte and the count byte
        raise _bad("the frame count is missing")
    is_variable, is_padded, count = packet[1] & 0x80, packet[1] & 0x40, packet[1] & 0x3F
    if count == 0:
        raise _bad("it announces no frames")
    start, padding = 2, 0
    if is_padded:
        start, padding = _read_padding(packet, start)
    if not is_variable:
        room = _rest(len(packet) - start - padding)
        if room % count:
            raise _bad(f"its {count} frames can't be of equal length")
        return [room // count] * count
    lengths: list[int] = []
    for _ in range(count - 1):
        length, start = _read_length(packet, start)
        lengths.append(length)
    return [*lengths, _rest(len(packet) - start - padding - sum(lengths))]


def _read_length(packet: bytes, start: int) -> tuple[int, int]:
    """Read a frame length of one or two bytes at ``start`` (3.2.1); return it and where the packet goes on."""
    if start >= len(packet):
        raise _bad("a frame length is missing")
    first = packet[start]
    if first < 252:  # noqa: PLR2004  # 252 to 255 announce a second byte
        return first, start + 1
    if start + 1 >= len(packet):
        raise _bad("a frame length is cut short")
    return first + 4 * packet[start + 1], start + 2


def _read_padding(packet: bytes, start: int) -> tuple[int, int]:
    """Read the padding length at ``start`` (3.2.5); return where the packet goes on, and the padding in bytes."""
    padding = 0
    while start < len(packet):
        value = packet[start]
        start += 1
        if value < 255:  # noqa: PLR2004  # 255 stands for 254 bytes and another length byte
            return start, padding + value
        padding += 254
    raise _bad("the padding length is missing")


def _rest(size: int) -> int:
    if size < 0:
        raise _bad("it is shorter than its frames")
    return size


def _bad(reason: str) -> BadAudioError:
    return BadAudioError(
        f"the message is no Opus packet: {reason}; send one packet a message, without a container",
        field="audio",
    )


class OpusDecoder:
    """Decodes one call's packets; the decoder predicts across packets, so each call has its own.

    A packet of the other channel count is mixed by libopus to ``channels``. The encoder's look-ahead (RFC 7845 calls
    it pre-skip; 6.5 ms with libopus) is not cut off, for bare packets don't say how long it is.
    """

    def __init__(self, channels: int) -> None:
        self._channels = channels
        self._codec = av.AudioCodecContext.create("libopus", "r")
        self._codec.sample_rate = DECODED_RATE
        self._codec.layout = _LAYOUTS[channels]

    def decode(self, packet: bytes) -> npt.NDArray[np.int16]:
        """Decode a packet to int16 at 48 kHz of shape (n,), or (n, 2) for two channels.

        Raises:
            BadAudioError: the packet breaks the framing rules, or libopus refuses it.
        """
        expected = packet_samples(packet)
        try:
            frames = self._codec.decode(av.Packet(packet))
        except av.FFmpegError as error:
            raise _bad(f"libopus refuses it ({error.strerror})") from error
        decoded = np.concatenate([frame.to_ndarray().reshape(-1) for frame in frames])
        if len(decoded) != expected * self._channels:
            raise _bad(f"it gave {len(decoded) // self._channels} samples instead of {expected}")
        samples: npt.NDArray[np.int16] = decoded.reshape(-1, self._channels)
        return samples[:, 0] if self._channels == 1 else samples


class OpusEncoder:
    """Encodes one stream into packets of 20 ms; what is left over waits for more, or for the flush."""

    def __init__(self, sample_rate: int, channels: int) -> None:
        self._sample_rate = sample_rate
        self._channels = channels
        self._frame_samples = sample_rate * ENCODED_FRAME_MS // 1000
        self._pending = np.zeros((0, channels), np.float32)
        self._position = 0
        self._codec = av.AudioCodecContext.create("libopus", "w")
        self._codec.sample_rate = sample_rate
        self._codec.layout = _LAYOUTS[channels]
        self._codec.format = "flt"
        self._codec.time_base = Fraction(1, sample_rate)
        self._codec.bit_rate = BITS_PER_SECOND_PER_CHANNEL * channels
        self._codec.options = {"application": "voip", "frame_duration": str(ENCODED_FRAME_MS)}

    def encode(self, samples: npt.NDArray[np.float32]) -> list[bytes]:
        """Take float32 samples of shape (n,) or (n, channels); return the packets that became complete."""
        waiting = np.concatenate([self._pending, samples.reshape(-1, self._channels)])
        whole = len(waiting) - len(waiting) % self._frame_samples
        self._pending = waiting[whole:].copy()
        packets: list[bytes] = []
        for start in range(0, whole, self._frame_samples):
            packets += self._encode_frame(waiting[start : start + self._frame_samples])
        return packets

    def flush(self) -> list[bytes]:
        """Pad the last packet with silence, and push out what the encoder looked ahead; the stream is over then."""
        packets: list[bytes] = []
        if len(self._pending):
            missing = self._frame_samples - len(self._pending)
            packets += self._encode_frame(np.pad(self._pending, ((0, missing), (0, 0))))
            self._pending = self._pending[:0]
        if self._position:
            packets += [bytes(packet) for packet in self._codec.encode(None)]
        return packets

    def _encode_frame(self, samples: npt.NDArray[np.float32]) -> list[bytes]:
        interleaved = np.ascontiguousarray(samples).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(interleaved, format="flt", layout=_LAYOUTS[self._channels])
        frame.sample_rate = self._sample_rate
        frame.pts = self._position
        is_first = self._position == 0
        self._position += len(samples)
        with _on_one_cpu() if is_first else nullcontext():
            return [bytes(packet) for packet in self._codec.encode(frame)]


@contextmanager
def _on_one_cpu() -> Iterator[None]:
    """Let FFmpeg find one CPU.

    PyAV puts a filter graph before each encoder at its first frame, and FFmpeg gives each graph a thread for every CPU
    that it may use, up to 16, which have nothing to do. PyAV offers no way to say how many; what the calling thread may
    use is what FFmpeg asks for. Elsewhere than on Linux, and where a sandbox forbids it, the threads stay.
    """
    if sys.platform != "linux":
        yield
        return
    allowed = os.sched_getaffinity(0)
    with suppress(OSError):
        os.sched_setaffinity(0, {min(allowed)})
    try:
        yield
    finally:
        with suppress(OSError):
            os.sched_setaffinity(0, allowed)
