"""Dealing sources to calls."""

import pytest

from voice_agent.cli.call_audio import MemorySource
from voice_agent.cli.call_run import deal
from voice_agent.core.formats import AudioFormat

SOURCE = MemorySource(AudioFormat(), [])


@pytest.mark.parametrize(
    ("labels", "slots", "dealt"),
    [
        ("a", 1, [["1a"]]),
        ("a", 3, [["1a"], ["2a"], ["3a"]]),
        ("ab", 3, [["1a"], ["2b"], ["3a"]]),
        ("abc", 1, [["1a", "2b", "3c"]]),
        ("abcde", 2, [["1a", "3c", "5e"], ["2b", "4d"]]),
    ],
)
def test_every_slot_calls_and_every_source_is_heard(labels: str, slots: int, dealt: list[list[str]]) -> None:
    """Round-robin in both directions; calls are numbered from 1 in the order of dealing."""
    plan = deal([(label, SOURCE) for label in labels], slots)
    assert [[f"{planned.number}{planned.label}" for planned in slot] for slot in plan] == dealt
