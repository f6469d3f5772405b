"""Heard: up to where in a call's audio everything is settled, told from the events in the order in which they leave.

What lies before that place need not be sent again when the session is resumed: its finals are kept, or there are none. It is
at the beginning of the earliest utterance that has no final yet; while there is none, a little behind what has been heard,
because speech that is just beginning is noticed late. It never goes back.
"""

from math import floor
from typing import Final

from voice_agent.core.errors import RecognitionFailedError
from voice_agent.core.events import Fault, Notice, SessionEvent, SpeechStarted, SpeechStopped, Transcript
from voice_agent.settings.schema import VadSettings

MARGIN_MS: Final = 150
"""What resampler and framing hold back, and a window more."""


def unnoticed_ms(settings: VadSettings) -> int:
    """Return how long before it is noticed an utterance may have begun: 502 ms with the default settings."""
    return settings.min_speech_ms + settings.pre_roll_ms + MARGIN_MS


class Heard:
    """One call's settled audio, in milliseconds from the call's first sample."""

    def __init__(self, unnoticed_ms: int, settled_ms: int = 0) -> None:
        self._unnoticed_ms = unnoticed_ms
        self._settled_ms = settled_ms
        self._open: dict[int, int] = {}
        """Where each utterance without a final began, by its number."""
        self._cut: int | None = None
        self.utterances = 0
        """The highest number of an utterance so far."""

    def note(self, event: SessionEvent) -> int:
        """Take the next event; return up to where everything is settled now."""
        match event:
            case SpeechStarted(utterance=utterance, start=start):
                self._open[utterance] = _ms(start)
                self.utterances = max(self.utterances, utterance)
            case SpeechStopped(utterance=utterance, is_cut=True):
                self._cut = utterance
            case Transcript(result=result) if result.is_final:
                self.utterances = max(self.utterances, result.utterance)
                was_open = self._open.pop(result.utterance, None) is not None
                if was_open:
                    self._settle(_ms(result.end))
            case Notice(code="no_words", detail=detail):
                self._close(detail.get("utterance"))
            case Fault(code=RecognitionFailedError.code):
                # Recognised in their order, one at a time.
                self._close(min(self._open, default=None))
        return self.settled_at(event.position_ms)

    def settled_at(self, position_ms: int) -> int:
        """Return up to where everything is settled when ``position_ms`` have been heard and no event waits."""
        if not self._open:
            self._settle(position_ms - self._unnoticed_ms)
        return self._settled_ms

    def is_cut(self, utterance: int) -> bool:
        """Whether the audio broke off in the utterance."""
        return utterance == self._cut

    def _close(self, utterance: int | None) -> None:
        # Half a word is easily taken for none: it stays open, and is heard again with its other half.
        if utterance is not None and not self.is_cut(utterance):
            self._open.pop(utterance, None)

    def _settle(self, ms: int) -> None:
        self._settled_ms = max(self._settled_ms, min([ms, *self._open.values()]))


def _ms(seconds: float) -> int:
    """Whole milliseconds, rounded down: a bit may be heard twice, none is lost."""
    return max(0, floor(seconds * 1000))
