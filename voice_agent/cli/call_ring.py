"""AudioRing: what may have to be sent once more, and what was not sent yet, of a call's audio. Pure.

Positions are seconds of the call's audio, each an exact count of samples over the rate, so that they are right to the sample.
"""

from collections import deque
from typing import Final

import attrs

from voice_agent.cli.call_audio import AudioMessage
from voice_agent.core.units import MS, SECONDS

RING_SECONDS: Final = 30 * SECONDS
"""A megabyte of 16 kHz PCM: longer than an utterance may be, and than most outages are."""

WHOLE_WITHIN_SECONDS: Final = 100 * MS
"""So much is given up at most for a beginning at a whole millisecond: that is what the protocol can say."""

_ROUNDING_SECONDS: Final = 1e-9


@attrs.define
class AudioRing:
    """Messages in order: first those that were sent on the connection of the moment, then those that were not.

    It holds ``max_seconds``; beyond it the oldest go. While a connection carries it, what was not sent yet may be as
    much again: it has only begun to be sent, and what a connection has announced must not go behind its back.
    One message is always held, however long.
    """

    max_seconds: float = RING_SECONDS
    start_seconds: float = attrs.field(init=False, default=0.0)
    """Where the oldest message begins."""
    end_seconds: float = attrs.field(init=False, default=0.0)
    """Where the newest message ends."""
    has_gap: bool = attrs.field(init=False, default=False)
    """Whether messages went that the connection of the moment should have carried."""
    _is_carried: bool = attrs.field(init=False, default=False)
    _messages: deque[AudioMessage] = attrs.field(init=False, factory=deque)
    _sent: int = attrs.field(init=False, default=0)

    @property
    def unsent(self) -> int:
        """How many messages wait to be sent."""
        return len(self._messages) - self._sent

    def append(self, message: AudioMessage) -> None:
        """Take the next message of the call."""
        self._messages.append(message)
        self.end_seconds = message.end_seconds
        self._keep_bound()

    def take(self) -> AudioMessage | None:
        """Return the next message to send, which counts as sent then; None when there is none."""
        if not self.unsent:
            return None
        message = self._messages[self._sent]
        self._sent += 1
        return message

    def settle(self, position_seconds: float) -> None:
        """Let go of what was sent and lies wholly before the position: nobody will want it again."""
        while self._sent and self._messages[0].end_seconds <= position_seconds + _ROUNDING_SECONDS:
            self._drop_oldest()

    def rewind(self) -> float:
        """Begin again with the oldest message, for another connection; return where it begins.

        Messages of 20 ms begin at whole milliseconds at all usual rates but 11025 Hz, where every second one does.
        """
        self._sent = 0
        self._is_carried = False
        for _ in range(self._before_whole()):
            self._drop_oldest()
        self._is_carried = True
        self.has_gap = False
        return self.start_seconds

    def park(self) -> None:
        """No connection carries it any more; it still grows, where its source is live."""
        self._sent = 0
        self._is_carried = False
        self._keep_bound()

    def _before_whole(self) -> int:
        """How many messages stand before the first one that begins at a whole millisecond, where one is near."""
        begin_seconds = self.start_seconds
        for index, message in enumerate(self._messages):
            if begin_seconds > self.start_seconds + WHOLE_WITHIN_SECONDS:
                return 0
            if _is_whole(begin_seconds):
                return index
            begin_seconds = message.end_seconds
        return 0

    def _keep_bound(self) -> None:
        while len(self._messages) > 1:
            bound = self.max_seconds * (2 if self._is_carried and not self._sent else 1)
            if self.end_seconds - self.start_seconds <= bound + _ROUNDING_SECONDS:
                return
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        self.start_seconds = self._messages.popleft().end_seconds
        if self._sent:
            self._sent -= 1
        elif self._is_carried:
            self.has_gap = True


def _is_whole(seconds: float) -> bool:
    return abs(seconds * 1000 - round(seconds * 1000)) < _ROUNDING_SECONDS * 1000
