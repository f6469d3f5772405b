"""AudioFormat: what a caller's audio messages hold."""

from typing import Final

import attrs

from voice_agent.core.errors import InvalidFrameError, UnsupportedFormatError
from voice_agent.core.frames import Encoding, check_shape

OPUS_RATES: Final = (8_000, 12_000, 16_000, 24_000, 48_000)
"""RFC 6716, section 2: the rates that Opus knows."""


@attrs.frozen
class AudioFormat:
    """Encoding, sample rate in Hz and channel count; the default is what a bare client sends."""

    encoding: Encoding = Encoding.PCM_S16LE
    sample_rate: int = 16_000
    channels: int = 1

    def __attrs_post_init__(self) -> None:
        """Raise :class:`UnsupportedFormatError` for audio that can't be heard."""
        try:
            check_shape(self.sample_rate, self.channels)
        except InvalidFrameError as error:
            raise UnsupportedFormatError(error.message, field=error.field) from error
        if self.encoding is Encoding.OPUS and self.sample_rate not in OPUS_RATES:
            raise UnsupportedFormatError(
                f"Opus has no rate of {self.sample_rate} Hz; use one of {', '.join(map(str, OPUS_RATES))}",
                field="sample_rate",
            )

    @classmethod
    def parse(cls, encoding: str, sample_rate: int, channels: int) -> "AudioFormat":
        """Make a format from a caller's words.

        Raises:
            UnsupportedFormatError: the encoding is unknown, or the rate or channel count is out of range.
        """
        try:
            known = Encoding(encoding)
        except ValueError:
            raise UnsupportedFormatError(
                f"encoding {encoding[:40]!r} is unknown; use one of {', '.join(Encoding)}", field="encoding"
            ) from None
        return cls(known, sample_rate, channels)
