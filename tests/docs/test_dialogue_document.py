"""docs/dialogue.md and docs/gold-loan.md: drawn from the table, and an example that runs."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner

from voice_agent.agent.diagram import draw
from voice_agent.agent.gold_loan.table import TABLE
from voice_agent.agent.prices import parse_price
from voice_agent.agent.talk import Heard, Opened, Turn
from voice_agent.cli.main import main
from voice_agent.settings.fields import fields_by_key
from voice_agent.settings.schema import Settings

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs/dialogue.md").read_text(encoding="utf-8")
EXAMPLE = ROOT / "docs/examples/restaurant.py"


def example() -> ModuleType:
    """Load the example as an integrator's module."""
    spec = importlib.util.spec_from_file_location("restaurant_example", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_drawing_is_that_of_the_table() -> None:
    """`voice-agent talk --agent gold_loan --draw > docs/gold-loan.md`."""
    assert (ROOT / "docs/gold-loan.md").read_text(encoding="utf-8") == draw(TABLE)
    printed = CliRunner().invoke(main, ["talk", "--agent", "gold_loan", "--draw"])
    assert printed.output == draw(TABLE)


def test_the_document_shows_the_example_that_runs() -> None:
    """To the letter."""
    shown = re.search(r"```python\n# docs/examples/restaurant\.py\n(.*?)```", DOCUMENT, re.DOTALL)
    assert shown is not None
    assert shown[1] == EXAMPLE.read_text(encoding="utf-8")


async def test_the_example_books_a_table() -> None:
    """It asks, understands, goes back on a no, and ends."""
    agent = example().make_agent()
    said: list[str] = []

    async def say(sentence: str) -> None:
        said.append(sentence)

    state = agent.begin(0)
    lines = ["hello", "four please", "tomorrow", "no", "five", "in two days", "yes"]
    for event in (Opened(0), *(Heard(line, at) for at, line in enumerate(lines))):
        turn = Turn(event=event, state=state, say=say)
        await agent.reply(turn)
        state = turn.state
    assert agent.is_over(state)
    assert [sentence.partition(" on ")[0] for sentence in said] == [
        "For how many?",
        "For how many?",
        "On which day?",
        "A table for 4",
        "For how many?",
        "On which day?",
        "A table for 5",
        "I have written that down here. Goodbye.",
    ]
    assert state.facts.guests == 5


def test_the_feed_of_the_document_is_read() -> None:
    """The JSON shown is a price."""
    shown = re.search(r"```json\n(.*?)```", DOCUMENT, re.DOTALL)
    assert shown is not None
    assert str(parse_price(shown[1].encode(), "feed").per_gram) == "9123.50"


@pytest.mark.parametrize("key", sorted(set(re.findall(r"`((?:gold|agent)\.\w+)`", DOCUMENT))))
def test_each_setting_that_is_named_exists(key: str) -> None:
    """No document speaks of a setting that there isn't."""
    assert key in fields_by_key(Settings)


def test_each_module_that_is_named_has_what_is_named() -> None:
    """The table of readers names functions that there are."""
    rows = re.findall(r"^\| `(\w+)\.(\w+)` \|", DOCUMENT, re.MULTILINE)
    assert len(rows) == 7
    for module, name in rows:
        assert hasattr(importlib.import_module(f"voice_agent.agent.understanding.{module}"), name)
