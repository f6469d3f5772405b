"""SharedUsage: what callers use on other nodes, as the limits of this one count it."""

from typing import Protocol


class SharedUsage(Protocol):
    """Answers from what was heard last; nothing here waits."""

    @property
    def is_blind(self) -> bool:
        """Whether nothing is heard of other nodes, and no new call may begin then."""
        ...

    def calls_elsewhere(self, holder: str) -> int:
        """Return how many calls somebody has open on other nodes."""
        ...

    def note_begun(self, name: str, owed_seconds: float) -> None:
        """Have other nodes know that a call has used so many seconds of a rate."""
        ...


class NothingShared:
    """There are no other nodes."""

    is_blind = False

    def calls_elsewhere(self, _holder: str) -> int:
        """Return none."""
        return 0

    def note_begun(self, _name: str, _owed_seconds: float) -> None:
        """Tell nobody."""
