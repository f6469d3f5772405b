"""What must hold between settings: the one table of checks that span more than a single value."""

from collections.abc import Callable
from typing import Final, Generic, TypeVar

import attrs

from voice_agent.settings.schema import Settings

RootT = TypeVar("RootT")


@attrs.frozen
class Rule(Generic[RootT]):
    """A check over several settings; ``demand`` says what is allowed, in words for an operator."""

    keys: tuple[str, ...]
    holds: Callable[[RootT], bool]
    demand: str


RULES: Final[tuple[Rule[Settings], ...]] = (
    Rule(
        ("vad.release_threshold", "vad.threshold"),
        lambda settings: settings.vad.release_threshold <= settings.vad.threshold,
        "vad.release_threshold must not be above vad.threshold, or speech would end as it begins",
    ),
    Rule(
        ("vad.cut_search_seconds", "vad.max_utterance_seconds"),
        lambda settings: settings.vad.cut_search_seconds < settings.vad.max_utterance_seconds,
        "vad.cut_search_seconds must be below vad.max_utterance_seconds, or a cut could leave nothing",
    ),
    Rule(
        ("websocket.ping_interval_seconds", "websocket.read_timeout_seconds"),
        lambda settings: settings.websocket.ping_interval_seconds < settings.websocket.read_timeout_seconds,
        "websocket.ping_interval_seconds must be below websocket.read_timeout_seconds, "
        "or a quiet client would be taken for gone",
    ),
)
