"""Notices that more than one room gives."""

from voice_agent.core.events import Notice
from voice_agent.core.limits import Limit


def limit_near(limit: Limit, *, used: float, allowed: float, message: str) -> Notice:
    """Make the notice that goes before the end of a call at a limit."""
    return Notice(
        code="limit_near",
        message=message,
        detail={"limit": str(limit), "used": used, "allowed": allowed},
    )
