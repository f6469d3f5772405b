"""The stages of the gold-loan dialogue, with their limits and required facts, and what callers can want."""

from typing import Final

from voice_agent.agent.dialogue import Stage
from voice_agent.core.units import MINUTES, SECONDS

INTENTS: Final = (
    "loan inquiry",
    "interest rate",
    "eligibility",
    "switch lender",
    "objection",
    "schedule visit",
    "documentation",
    "affirmative",
    "negative",
    "greeting",
    "farewell",
    "person",
    "repeat",
)
"""What callers can want. ``person`` asks for a human being, ``repeat`` to say it again."""
FACTS: Final = "facts"
"""The caller told something new, and asked nothing."""

STAGES: Final = (
    Stage(name="greeting", limit_seconds=60 * SECONDS, question="ask consent", requires=("consent",)),
    Stage(name="discovery", limit_seconds=2 * MINUTES, question="ask lender", requires=("lender",)),
    Stage(name="qualification", limit_seconds=3 * MINUTES, question="ask gold", requires=("grams", "karat")),
    Stage(name="presentation", limit_seconds=4 * MINUTES, question="ask interest"),
    Stage(name="objection", limit_seconds=3 * MINUTES, question="ask doubt"),
    Stage(name="closing", limit_seconds=3 * MINUTES, question="ask visit"),
    Stage(name="farewell", limit_seconds=10 * SECONDS, question="", is_parting=True),
    Stage(name="ended", is_final=True),
)
