"""AudioDecoder: a call's audio messages into frames, whatever the encoding."""

from collections.abc import Callable

from voice_agent.audio.g711 import decode_alaw, decode_mulaw
from voice_agent.audio.opus import DECODED_RATE, OpusDecoder
from voice_agent.audio.pcm import decode_f32le, decode_s16le
from voice_agent.core.errors import BadAudioError, InvalidFrameError
from voice_agent.core.formats import AudioFormat
from voice_agent.core.frames import AudioFrame, Encoding, Samples


class AudioDecoder:
    """Decodes one call's messages, and counts where in the call they stand.

    ``sample_rate`` (Hz) and ``channels`` are those of the frames: Opus always decodes at 48 kHz, every other
    encoding at the format's own rate. There is nothing to close: an Opus decoder goes with the object.
    """

    def __init__(self, audio_format: AudioFormat) -> None:
        self.audio_format = audio_format
        self.channels = audio_format.channels
        self.sample_rate = (
            DECODED_RATE if audio_format.encoding is Encoding.OPUS else audio_format.sample_rate
        )
        self._position = 0
        self._decode = _codec(audio_format)

    @property
    def position(self) -> int:
        """Samples per channel decoded since the call began."""
        return self._position

    def decode(self, data: bytes) -> AudioFrame:
        """Decode one message of any length; an Opus message is one packet.

        PCM frames view ``data`` without a copy. A refused message leaves the position as it was.

        Raises:
            BadAudioError: the message is empty, or its bytes are not audio of the agreed format.
        """
        if not data:
            raise BadAudioError("the audio message is empty; send whole samples", field="audio")
        try:
            # A frame may outlive a caller's buffer, so it never views one that can change; bytes are not copied.
            samples = self._decode(bytes(data))
        except InvalidFrameError as error:
            raise BadAudioError(
                f"the message is not {self.audio_format.encoding.value} audio: {error.message}", field="audio"
            ) from error
        frame = AudioFrame(samples, self.sample_rate, self._position, self.audio_format.encoding)
        self._position = frame.end
        return frame


def open_decoder(audio_format: AudioFormat) -> AudioDecoder:
    """Return a new call's decoder."""
    return AudioDecoder(audio_format)


def _codec(audio_format: AudioFormat) -> Callable[[bytes], Samples]:
    channels = audio_format.channels
    match audio_format.encoding:
        case Encoding.PCM_S16LE:
            return lambda data: decode_s16le(data, channels)
        case Encoding.PCM_F32LE:
            return lambda data: decode_f32le(data, channels)
        case Encoding.MULAW:
            return lambda data: _interleaved(decode_mulaw(data), channels)
        case Encoding.ALAW:
            return lambda data: _interleaved(decode_alaw(data), channels)
        case Encoding.OPUS:
            return OpusDecoder(channels).decode


def _interleaved(samples: Samples, channels: int) -> Samples:
    if channels == 1:
        return samples
    if len(samples) % channels:
        raise InvalidFrameError(
            f"{len(samples)} bytes are no whole number of {channels}-channel samples", field="samples"
        )
    return samples.reshape(-1, channels)
