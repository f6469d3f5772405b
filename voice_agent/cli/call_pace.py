"""CallPace: when a client at another speed than that of sound may send, by what the server's ``ready`` allows."""

import math
from typing import Final

import attrs

from voice_agent.cli.call_messages import number_at
from voice_agent.core.units import MS

# How much of what is allowed is used.
SHARE_OF_WAITING_AUDIO: Final = 0.5
SHARE_OF_MESSAGE_RATE: Final = 0.8
SHARE_OF_AUDIO_RATE: Final = 0.95
SHARE_OF_AUDIO_BURST: Final = 0.7
"""A server gives notice at three quarters."""

# What is assumed of a server that does not say.
DEFAULT_WAITING_AUDIO_MS: Final = 10_000
DEFAULT_MESSAGES_PER_SECOND: Final = 1_000


@attrs.frozen(kw_only=True)
class CallPace:
    """The pace that a server allows; times in seconds."""

    max_ahead: float
    """Audio that may have been sent and not been heard yet."""
    between_messages: float
    audio_rate: float
    """Audio sent per second, once the burst is used."""
    audio_burst: float

    @classmethod
    def from_limits(cls, limits: object) -> "CallPace":
        """Read the ``limits`` of a ``ready``, whatever they are."""
        waiting_ms = number_at(limits, "max_waiting_audio_ms", DEFAULT_WAITING_AUDIO_MS)
        messages = number_at(limits, "max_messages_per_second", DEFAULT_MESSAGES_PER_SECOND)
        return cls(
            max_ahead=waiting_ms * MS * SHARE_OF_WAITING_AUDIO,
            between_messages=1 / max(1.0, messages * SHARE_OF_MESSAGE_RATE),
            audio_rate=max(1.0, number_at(limits, "max_audio_rate", math.inf) * SHARE_OF_AUDIO_RATE),
            audio_burst=number_at(limits, "audio_burst_seconds", 0.0) * SHARE_OF_AUDIO_BURST,
        )

    def due(self, end_seconds: float, *, began_at: float, sent_at: float) -> float:
        """Return when audio that ends at ``end_seconds`` may be sent; ``sent_at`` is when the last message was."""
        owed_seconds = (end_seconds - self.audio_burst) / self.audio_rate
        return max(sent_at + self.between_messages, began_at + owed_seconds)
