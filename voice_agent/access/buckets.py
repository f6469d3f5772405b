"""Buckets: one token bucket for each key or address, in memory whose size is fixed when the server starts.

The table is like a processor's cache: a key's hash chooses a row, and the key may use any of the row's places. Two facts
make it safe:

* **What is forgotten owes nothing.** A place is reused only when the debt in it has ended, and a bucket without debt is
  like a new one. So nobody can get their own bucket, or anybody's, reset by crowding it out.
* **Who finds no place shares.** When all places of a row owe, newcomers to that row share one more bucket. They are
  limited together, so the whole table never grants more than its buckets do, however many keys ask.

What somebody with ten million addresses gains: as many allowances as there are places and rows, no more; and while they
keep all of a row's places in debt, a stranger who falls into it is limited with them. The hash is salted with a secret of
the process, so rows can't be aimed at. Keeping the table full takes ``max_keys * rate`` requests a second: for 32,768
places and 20 requests a second each, 650,000.
"""

import os
from array import array
from typing import Final

from voice_agent.core.rates import Outcome, Rate, take

PLACES_A_ROW: Final = 16
"""With half of all places in debt, one newcomer in 250 finds its row taken; with 8 it would be one in 50."""

_BITS: Final = (1 << 64) - 1


class Buckets:
    """Token buckets for up to ``max_keys`` keys that owe something at the same time; the rest share.

    Time is the caller's, in seconds, above 0, and only moves forward.
    """

    def __init__(self, max_keys: int) -> None:
        self._rows = max(1, -(-max_keys // PLACES_A_ROW))
        places = self._rows * PLACES_A_ROW
        self._salt = os.urandom(16).hex()
        self._prints = array("Q", bytes(8 * places))
        self._debts = array("d", bytes(8 * places))
        self._shared = array("d", bytes(8 * self._rows))

    @property
    def capacity(self) -> int:
        """Keys that have a bucket of their own at most."""
        return len(self._debts)

    @property
    def size_bytes(self) -> int:
        """Memory of the whole table; it never changes."""
        return sum(part.itemsize * len(part) for part in (self._prints, self._debts, self._shared))

    def owing(self, now: float) -> int:
        """Count the keys that owe something; looks at the whole table."""
        return sum(debt > now for debt in self._debts)

    def take(self, key: str, rate: Rate, now: float, cost: float = 1.0) -> Outcome:
        """Ask for ``cost`` from the key's bucket; what is refused costs nothing."""
        debts, place = self._find(key, now)
        outcome = take(rate, debts[place], now, cost)
        if outcome.is_granted:
            debts[place] = outcome.debt_until
        return outcome

    def look(self, key: str, rate: Rate, now: float, cost: float = 1.0) -> Outcome:
        """Say what :meth:`take` would say, and take nothing."""
        debts, place = self._find(key, now)
        return take(rate, debts[place], now, cost)

    def charge(self, key: str, seconds: float, now: float, *, window_seconds: float) -> None:
        """Add to the key's debt what was taken elsewhere, up to the whole burst, whose window it is; refuses nothing."""
        debts, place = self._find(key, now)
        most = max(debts[place], now + window_seconds)
        debts[place] = min(max(debts[place], now) + seconds, most)

    def _find(self, key: str, now: float) -> "tuple[array[float], int]":
        """Return where the key's debt stands; a free place is the key's from now on, for as long as it owes."""
        # Python's own hash is SipHash; behind a secret salt its rows and prints can't be foreseen.
        print_ = hash(self._salt + key) & _BITS
        row = print_ % self._rows
        first = row * PLACES_A_ROW
        prints, debts = self._prints, self._debts
        free = -1
        for place in range(first, first + PLACES_A_ROW):
            if debts[place] <= now:
                if free < 0:
                    free = place
            elif prints[place] == print_:
                return debts, place
        if free < 0:
            return self._shared, row
        prints[free] = print_
        return debts, free
