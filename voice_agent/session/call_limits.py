"""CallLimits: what one call may bring in all, judged as it comes. It decides; the session tells, and ends the call.

Each limit is told of once before it ends the call. The settings are asked at each use: the limits are among those that
change for running calls too.
"""

from typing import Final

from voice_agent.core.errors import AudioRateExceededError, TranscriptTooLargeError
from voice_agent.core.events import Notice
from voice_agent.core.limits import Limit
from voice_agent.core.notices import limit_near
from voice_agent.core.rates import NO_DEBT, Rate, take
from voice_agent.settings.current import CurrentSettings
from voice_agent.settings.schema import Settings

AUDIO_NEAR_SHARE: Final = 0.75
"""A caller is told when so much of the burst is used, and again only after almost none of it was."""
AUDIO_CALM_SHARE: Final = 0.1
TEXT_NEAR_SHARE: Final = 0.9


class CallLimits:
    """One call's share of the section ``limits``; a program's own sessions have none."""

    def __init__(self, settings: CurrentSettings) -> None:
        self._settings = settings
        self._audio_debt = NO_DEBT
        self._is_audio_told = False
        self._text_chars = 0
        self._is_text_told = False

    @property
    def told(self) -> dict[str, float]:
        """What a caller should know from the beginning."""
        limits = self._settings.now.limits
        return {
            "max_audio_rate": limits.max_audio_rate,
            "audio_burst_seconds": limits.audio_burst_seconds,
            "max_transcript_chars": limits.max_transcript_chars,
        }

    def hear(self, seconds: float, now: float) -> Notice | None:
        """Count audio that came; return what the caller is to be told when much of the burst is used.

        Raises:
            AudioRateExceededError: it came too fast for too long.
        """
        limits = self._settings.now.limits
        allowed = limits.audio_burst_seconds
        outcome = take(Rate(per_second=limits.max_audio_rate, burst=allowed), self._audio_debt, now, seconds)
        self._audio_debt = outcome.debt_until
        if not outcome.is_granted:
            raise AudioRateExceededError(
                f"audio came faster than {limits.max_audio_rate:g} times real time, by more than {allowed:g} s"
            )
        used = allowed - outcome.remaining
        if used <= AUDIO_CALM_SHARE * allowed:
            self._is_audio_told = False
        if self._is_audio_told or used < AUDIO_NEAR_SHARE * allowed:
            return None
        self._is_audio_told = True
        return limit_near(
            Limit.AUDIO,
            used=used,
            allowed=allowed,
            message=f"Audio comes faster than {limits.max_audio_rate:g} times real time; by {allowed:g} s more "
            "than that, the call ends.",
        )

    def remember(self, chars: int) -> None:
        """Count text that an earlier connection of the call has brought."""
        self._text_chars += chars

    def write(self, chars: int) -> Notice | None:
        """Count the text of a final; return what the caller is to be told when little is left.

        Raises:
            TranscriptTooLargeError: this was too much.
        """
        allowed = self._settings.now.limits.max_transcript_chars
        self.remember(chars)
        if self._text_chars > allowed:
            raise TranscriptTooLargeError(f"the call's text is over the limit of {allowed} characters")
        if self._is_text_told or self._text_chars < TEXT_NEAR_SHARE * allowed:
            return None
        self._is_text_told = True
        return limit_near(
            Limit.TRANSCRIPT,
            used=self._text_chars,
            allowed=allowed,
            message=f"The call's text has {self._text_chars} characters; more than {allowed} end the call.",
        )


def told_limits(settings: Settings, limits: CallLimits | None, max_seconds: float) -> dict[str, float]:
    """Return what a caller should know from the beginning, by the names of the protocol."""
    return {
        "max_binary_bytes": settings.websocket.max_binary_bytes,
        "max_text_bytes": settings.websocket.max_text_bytes,
        "max_messages_per_second": settings.limits.max_messages_per_second,
        "max_waiting_audio_ms": settings.session.max_waiting_audio_ms,
        "idle_timeout_seconds": settings.session.idle_timeout_seconds,
        "max_duration_seconds": max_seconds,
        **({} if limits is None else limits.told),
    }
