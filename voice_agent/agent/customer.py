"""The customer: what is known of a caller by what they said. None is not known; nothing is guessed."""

from datetime import date
from decimal import Decimal
from enum import Enum
from typing import Final

import attrs

NO_LENDER: Final = "none"
"""The caller has no loan with anybody now."""
LENDER_NOT_TOLD: Final = "not told"
"""The caller was asked, and did not say."""


class Segment(Enum):
    """Which kind of customer a caller is, for those who follow up."""

    UNKNOWN = "unknown"
    NEW = "new"
    SWITCHING = "switching"


@attrs.frozen(kw_only=True)
class Profile:
    """What is known of a caller; the facts of the gold-loan dialogue."""

    consent: bool | None = None
    """To being recorded."""
    lender: str | None = None
    """A name, :data:`NO_LENDER` or :data:`LENDER_NOT_TOLD`."""
    lender_rate_percent: Decimal | None = None
    """What the caller says they pay there, a year."""
    grams: Decimal | None = None
    karat: int | None = None
    wished_rupees: Decimal | None = None
    telephone: str | None = None
    city: str | None = None
    visit_day: date | None = None
    language: str = "en"
    """What the talk is held in; English is all there is."""

    @property
    def segment(self) -> Segment:
        """Follows from the current lender."""
        match self.lender:
            case None | "not told":
                return Segment.UNKNOWN
            case "none":
                return Segment.NEW
            case _:
                return Segment.SWITCHING
