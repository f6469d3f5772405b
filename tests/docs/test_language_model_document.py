"""docs/language-model.md: its example runs, and the settings that it names exist."""

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from voice_agent.agent.agents import make_agent
from voice_agent.agent.llm.agent import ChatAgent
from voice_agent.agent.talk import Heard, Opened, Turn
from voice_agent.settings.fields import fields_by_key
from voice_agent.settings.load import load_settings
from voice_agent.settings.schema import AgentSettings, ChatSettings, GoldSettings, Settings

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs/language-model.md").read_text(encoding="utf-8")
EXAMPLE = ROOT / "docs/examples/gold_chat.py"
SETTINGS = Settings(
    agent=AgentSettings(factory="gold_chat:make_agent"),
    chat=ChatSettings(url="http://127.0.0.1:9/v1", model="m"),
    gold=GoldSettings(
        price_per_gram=9000.0, price_time="2026-11-25T09:30:00+05:30", price_max_age_hours=87_600
    ),
)


def test_the_document_shows_the_example_that_runs() -> None:
    """To the letter."""
    shown = re.search(r"```python\n# docs/examples/gold_chat\.py\n(.*?)```", DOCUMENT, re.DOTALL)
    assert shown is not None
    assert shown[1] == EXAMPLE.read_text(encoding="utf-8")


@pytest.mark.parametrize("key", sorted(set(re.findall(r"`((?:chat|agent)\.\w+)`", DOCUMENT))))
def test_each_setting_that_is_named_exists(key: str) -> None:
    """No document speaks of a setting that there isn't."""
    assert key in fields_by_key(Settings)


def test_the_settings_that_are_shown_are_accepted(tmp_path: Path) -> None:
    """As a settings file."""
    shown = re.search(r"```toml\n(.*?)```", DOCUMENT, re.DOTALL)
    assert shown is not None
    (tmp_path / "settings.toml").write_text(shown[1], encoding="utf-8")
    loaded = load_settings(files=(tmp_path / "settings.toml",), environ={})
    assert isinstance(make_agent(lambda: loaded.settings), ChatAgent)


async def test_the_example_reckons_with_the_desk_s_figures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is found by the setting that names it; the model asks for an estimate, and is told the desk's."""
    monkeypatch.syspath_prepend(EXAMPLE.parent)
    agent: Any = make_agent(lambda: SETTINGS)
    asked: list[Any] = []

    def delta(delta: dict[str, Any]) -> bytes:
        return f"data: {json.dumps({'choices': [{'delta': delta}]})}\n\n".encode()

    async def stream(told: dict[str, Any]) -> AsyncIterator[bytes]:
        yield delta(told)
        yield b"data: [DONE]\n\n"

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(json.loads(request.content))
        last = asked[-1]["messages"][-1]
        call = {"name": "eligibility", "arguments": '{"grams": 40.0, "karat": 22}'}
        told = (
            {"content": f"At most {json.loads(last['content'])['quote']['limit']} rupees."}
            if last["role"] == "tool"
            else {"tool_calls": [{"index": 0, "id": "1", "function": call}]}
        )
        return httpx.Response(
            200,
            headers={"content-type": "text/event-stream"},
            content=stream(told),
        )

    agent._transport = httpx.MockTransport(answer)
    said: list[str] = []

    async def say(sentence: str) -> None:
        said.append(sentence)

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            await nursery.start(agent.run)
            state = agent.begin(trio.current_time())
            for event in (Opened(0), Heard("what would I get for forty grams of 22 carat?", 1)):
                turn = Turn(event=event, state=state, say=say)
                await agent.reply(turn)
                state = turn.state
            nursery.cancel_scope.cancel()
    assert said[1:] == ["At most 247320 rupees."]
    names = [told["function"]["name"] for told in asked[0]["tools"]]
    assert names == ["price", "eligibility", "branch", "visit", "opening_hours", "end_call"]
    schema = asked[0]["tools"][4]["function"]
    assert schema["description"] == "When the desk is open."
    assert schema["parameters"]["properties"]["weekday"]["description"] == "in English, as monday"
