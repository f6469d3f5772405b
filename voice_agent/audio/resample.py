"""Streaming resampling of one channel, with exact lengths and no seams, by libsamplerate or by libsoxr.

What every resampler here promises over one stream, however the input is cut into pieces:

- the outputs up to and with the flush have ``round_half_up(samples_in * output_rate / input_rate)`` samples in all;
- output sample ``k`` is the input at the time ``k / output_rate``: the filter's delay is compensated;
- the same samples come out, bit for bit, whatever the cuts.

Both libraries compensate the delay of their filters and hold samples back instead: an output appears when the filter
has seen all the input it reaches over. ``docs/decisions/0005-resampling.md`` has the measurements behind the choice.
"""

from collections.abc import Callable
from typing import Final, Literal, Protocol

import numpy as np
import numpy.typing as npt
import samplerate
import soxr

from voice_agent.core.errors import InternalError, InvalidFrameError

MonoAudio = npt.NDArray[np.float32]
Library = Literal["soxr", "samplerate"]
Quality = Literal["fast", "medium", "best"]

MIN_RATE: Final = 1_000
MAX_RATE: Final = 768_000
"""Hz; wider than what a call may have, because files come at such rates too."""

PIECE_MS: Final = 20
"""Both libraries run on the caller's thread, and libsamplerate's binding holds the GIL meanwhile: never longer."""

SAMPLERATE_CONVERTERS: Final[dict[Quality, str]] = {
    "fast": "sinc_fastest",
    "medium": "sinc_medium",
    "best": "sinc_best",
}
SOXR_RECIPES: Final[dict[Quality, str]] = {"fast": "LQ", "medium": "HQ", "best": "VHQ"}
"""MQ is left out: it costs and lags as much as HQ. QQ is a cubic interpolation, which lets aliases through."""


class StreamResampler(Protocol):
    """Resamples one channel of one call; holds that call's filter state."""

    @property
    def input_rate(self) -> int:
        """Samples a second going in."""
        ...

    @property
    def output_rate(self) -> int:
        """Samples a second coming out."""
        ...

    def process(self, samples: MonoAudio) -> MonoAudio:
        """Take float32 samples of shape (n,), n of any size; return what became ready, of shape (m,).

        Raises:
            InvalidFrameError: the samples are not of shape (n,).
            InternalError: the stream was flushed before.
        """
        ...

    def flush(self) -> MonoAudio:
        """End the stream, as if silence followed; return the rest, of shape (m,).

        Raises:
            InternalError: the stream was flushed before.
        """
        ...


def open_resampler(
    input_rate: int, output_rate: int, *, library: Library = "samplerate", quality: Quality = "fast"
) -> StreamResampler:
    """Return a new stream's resampler; where the rates are equal, samples pass through untouched.

    Raises:
        InvalidFrameError: a rate is outside 1-768 kHz.
    """
    for rate in (input_rate, output_rate):
        if not MIN_RATE <= rate <= MAX_RATE:
            raise InvalidFrameError(
                f"{rate} Hz can't be resampled; rates go from {MIN_RATE} to {MAX_RATE} Hz",
                field="sample_rate",
            )
    if input_rate == output_rate:
        return _Stream(input_rate, output_rate, None)
    if library == "soxr":
        soxr_stream = soxr.ResampleStream(
            input_rate, output_rate, 1, dtype="float32", quality=SOXR_RECIPES[quality]
        )
        return _Stream(input_rate, output_rate, soxr_stream.resample_chunk)
    converter = samplerate.Resampler(SAMPLERATE_CONVERTERS[quality], channels=1)
    ratio = output_rate / input_rate
    return _Stream(input_rate, output_rate, lambda samples: converter.process(samples, ratio))


class _Stream:
    """Feeds a filter in pieces of a bounded size, and counts what goes in and comes out.

    The end of the stream is made by feeding silence until enough has come out, and cutting off the surplus. The
    libraries' own ways of ending differ: libsamplerate's binding makes room for the outputs of the last piece only,
    so that what the filter still held back, up to 18 ms, never comes out.
    """

    def __init__(
        self, input_rate: int, output_rate: int, convert: Callable[[MonoAudio], MonoAudio] | None
    ) -> None:
        self.input_rate = input_rate
        self.output_rate = output_rate
        self._convert = convert
        self._largest_piece = input_rate * PIECE_MS // 1000
        # libsamplerate's binding offers the filter room for ceil(n * ratio) outputs, and would drop input that the
        # filter leaves because the room is full. By rounding, that room could be one short. It was never seen, but
        # with room for two it can't happen, and tiny messages cost fewer calls.
        self._smallest_piece = input_rate // output_rate + 1
        self._pending = _silence(0)
        self._samples_in = 0
        self._samples_out = 0
        self._is_flushed = False

    def process(self, samples: MonoAudio) -> MonoAudio:
        if samples.ndim != 1:
            raise InvalidFrameError(
                f"one channel is resampled at a time, shape (n,), not {samples.shape}", field="samples"
            )
        self._check_open()
        self._samples_in += len(samples)
        if self._convert is None:
            return samples
        return self._feed(self._convert, samples)

    def flush(self) -> MonoAudio:
        self._check_open()
        self._is_flushed = True
        if self._convert is None or not self._samples_in:
            return _silence(0)
        length = (2 * self._samples_in * self.output_rate + self.input_rate) // (2 * self.input_rate)
        missing = length - self._samples_out
        outputs = []
        while self._samples_out < length:
            outputs.append(self._feed(self._convert, _silence(self._largest_piece)))
        return _joined(outputs)[:missing]

    def _feed(self, convert: Callable[[MonoAudio], MonoAudio], samples: MonoAudio) -> MonoAudio:
        if len(self._pending):
            samples = np.concatenate([self._pending, samples])
        outputs = []
        start = 0
        while len(samples) - start >= self._smallest_piece:
            piece = samples[start : start + self._largest_piece]
            outputs.append(convert(np.ascontiguousarray(piece, np.float32)))
            start += len(piece)
        self._pending = samples[start:].copy()
        joined = _joined(outputs)
        self._samples_out += len(joined)
        return joined

    def _check_open(self) -> None:
        if self._is_flushed:
            raise InternalError("the resampler was flushed: its stream is over; open a new one")


def _silence(count: int) -> MonoAudio:
    return np.zeros(count, np.float32)


def _joined(pieces: list[MonoAudio]) -> MonoAudio:
    if len(pieces) == 1:
        return pieces[0]
    return np.concatenate(pieces) if pieces else _silence(0)
