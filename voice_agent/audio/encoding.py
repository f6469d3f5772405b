"""AudioEncoder: samples into audio messages; what clients send, and what replies are played with."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from voice_agent.audio.g711 import encode_alaw, encode_mulaw
from voice_agent.audio.opus import OpusEncoder
from voice_agent.audio.pcm import encode_f32le, encode_s16le, float_to_int16
from voice_agent.core.errors import InvalidFrameError
from voice_agent.core.formats import AudioFormat
from voice_agent.core.frames import Encoding

FloatSamples = npt.NDArray[np.float32]


class AudioEncoder:
    """Encodes one stream; the samples have the format's own rate and channel count."""

    def __init__(self, audio_format: AudioFormat) -> None:
        self.audio_format = audio_format
        self._opus: OpusEncoder | None = None
        self._encode = _stateless_codec(audio_format.encoding)
        if self._encode is None:
            self._opus = OpusEncoder(audio_format.sample_rate, audio_format.channels)

    def encode(self, samples: FloatSamples) -> list[bytes]:
        """Encode float32 samples of full scale 1.0, of shape (n,) when mono and (n, channels) otherwise.

        Values beyond full scale are clipped. Returns the messages to send, in order: one, or none for no samples;
        Opus gives one for each 20 ms that became complete.

        Raises:
            InvalidFrameError: the samples are not float32 of the format's shape, or a value is NaN or infinite.
        """
        self._check(samples)
        if self._opus is not None:
            return self._opus.encode(np.clip(samples, -1, 1))
        if self._encode is None or not len(samples):
            return []
        return [self._encode(samples)]

    def flush(self) -> list[bytes]:
        """Return what still waits: for Opus the last packet, padded with silence to 20 ms. Ends the stream."""
        return [] if self._opus is None else self._opus.flush()

    def _check(self, samples: FloatSamples) -> None:
        channels = self.audio_format.channels
        shape = samples.shape
        if not (shape[1:] == (channels,) or (channels == 1 and samples.ndim == 1)):
            raise InvalidFrameError(
                f"samples of shape {shape} don't fit {channels} channels; give (n,) or (n, {channels})",
                field="samples",
            )
        if samples.dtype != np.float32:
            raise InvalidFrameError(f"samples are {samples.dtype}; float32 is needed", field="samples")
        if not np.isfinite(samples).all():
            raise InvalidFrameError("the samples hold NaN or infinity", field="samples")


def open_encoder(audio_format: AudioFormat) -> AudioEncoder:
    """Return a new stream's encoder."""
    return AudioEncoder(audio_format)


def _stateless_codec(encoding: Encoding) -> Callable[[FloatSamples], bytes] | None:
    match encoding:
        case Encoding.PCM_S16LE:
            return encode_s16le
        case Encoding.PCM_F32LE:
            return encode_f32le
        case Encoding.MULAW:
            return lambda samples: encode_mulaw(float_to_int16(samples))
        case Encoding.ALAW:
            return lambda samples: encode_alaw(float_to_int16(samples))
        case Encoding.OPUS:
            return None
