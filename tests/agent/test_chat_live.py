"""Everything of the section ``chat`` but the address follows the settings in force, also in a talk that runs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest
import trio

from voice_agent.agent.llm.agent import ChatAgent
from voice_agent.agent.talk import Silence
from voice_agent.settings.current import CurrentSettings
from voice_agent.settings.fields import fields_by_key
from voice_agent.settings.schema import ChatSettings, Settings

CHAT = ChatSettings(url="http://127.0.0.1:9/v1", model="m", filler="Hm.", retries=0)
IN_REQUEST: dict[str, tuple[dict[str, Any], str]] = {
    "model": ({"model": "another"}, '"model": "another"'),
    "api_key": ({"api_key": "another-key"}, "Bearer another-key"),
    "system_prompt": ({"system_prompt": "Be brief."}, "Be brief."),
    "system_prompt_file": ({"system_prompt_file": "PATH"}, "From the file."),
    "temperature": ({"temperature": 0.25}, '"temperature": 0.25'),
    "max_reply_tokens": ({"max_reply_tokens": 7}, '"max_tokens": 7'),
    "reply_limit_field": ({"reply_limit_field": "max_completion_tokens"}, '"max_completion_tokens": 300'),
    "max_tool_rounds": ({"max_tool_rounds": 0}, "without tools"),
    "max_history_tokens": ({"max_history_tokens": 100}, "without the greeting"),
}
"""A change, and what the next request says of it."""
IN_TALK: dict[str, tuple[dict[str, Any], str, str]] = {
    "first_token_timeout_seconds": ({"first_token_timeout_seconds": 9.0}, "stall", "@9"),
    "budget_seconds": ({"budget_seconds": 3.0}, "stall", "@3"),
    "token_timeout_seconds": ({"token_timeout_seconds": 8.0}, "halfway", "@8"),
    "retries": ({"retries": 1}, "once", "Well."),
    "filler": ({"filler": "So."}, "stall", "So. I'm sorry"),
    "filler_after_seconds": ({"filler_after_seconds": 9.0}, "stall", "@4"),
    "apology": ({"apology": "Oh no."}, "stall", "Oh no."),
    "broken_apology": ({"broken_apology": "Where was I?"}, "halfway", "Where was I?"),
    "max_failures": ({"max_failures": 1}, "stall", "Goodbye."),
    "goodbye": ({"goodbye": "So long."}, "leave", "So long."),
    "reprompt": ({"reprompt": "Hello?"}, "(silence)", "Hello?"),
    "max_reprompts": ({"max_reprompts": 0}, "(silence)", "Goodbye."),
    "greeting": ({"greeting": "Welcome."}, "(open)", "Welcome."),
}
"""A change, what the caller says, and what is said then (and, behind an @, after how many seconds)."""


def event(**delta: Any) -> bytes:
    return f"data: {json.dumps({'choices': [{'delta': delta}]})}\n\n".encode()


@attrs.define
class Endpoint:
    """A model under virtual time: answers by the last words, and keeps what it was asked."""

    asked: list[str] = attrs.field(factory=list)

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        told = json.dumps(body, indent=0) + str(request.headers.get("authorization"))
        told += "" if "tools" in body else "without tools"
        told += "" if ChatSettings().greeting in told else "without the greeting"
        self.asked.append(told)
        words = body["messages"][-1]["content"].split("\n")[-1]

        async def stream() -> Any:
            match words:
                case "stall":
                    await trio.sleep_forever()
                case "halfway":
                    yield event(content="It is so. And ")
                    await trio.sleep_forever()
                case "once" if len(self.asked) == 1:
                    return
                case "leave":
                    yield event(tool_calls=[{"index": 0, "id": "1", "function": {"name": "end_call"}}])
                case _:
                    yield event(content="Well.")
            yield b"data: [DONE]\n\n"

        return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=stream())


async def talk_under(
    talk_with: Callable[..., Any], change: dict[str, Any], line: str
) -> tuple[str, list[str]]:
    """Begin a talk, change the settings, say a line; return what was said, with times, and what was asked."""
    endpoint = Endpoint()
    current = CurrentSettings(Settings(chat=CHAT))
    agent = ChatAgent(lambda: current.now.chat, transport=httpx.MockTransport(endpoint))
    said: list[str] = []
    async with trio.open_nursery() as nursery:
        await nursery.start(agent.run)
        talk = talk_with(agent)
        talk.at = trio.current_time()
        await talk.open()
        current.replace(Settings(chat=attrs.evolve(CHAT, **change)))
        began_at = trio.current_time()
        if line == "(open)":
            said += await talk.open()
        elif line == "(silence)":
            said += await talk.tell(Silence(9))
        else:
            said += await talk.hear(line)
        took = trio.current_time() - began_at
        nursery.cancel_scope.cancel()
    return f"{' '.join(said)}@{took:g}", endpoint.asked


@pytest.mark.parametrize(("change", "told"), IN_REQUEST.values(), ids=IN_REQUEST.keys())
async def test_what_is_asked_follows_the_settings_in_force(
    talk_with: Callable[..., Any],
    tmp_path: Path,
    change: dict[str, Any],
    told: str,
) -> None:
    """A talk that began with other settings asks as the new ones say; with the old ones it doesn't."""
    file = tmp_path / "prompt.txt"
    file.write_text("From the file.")
    change = {name: str(file) if value == "PATH" else value for name, value in change.items()}
    line = "well, " + "I say " * 40
    with trio.fail_after(60):
        _, asked_before = await talk_under(talk_with, {}, line)
        _, asked = await talk_under(talk_with, change, line)
    assert told in asked[0]
    assert told not in asked_before[0]


@pytest.mark.parametrize(("change", "line", "told"), IN_TALK.values(), ids=IN_TALK.keys())
async def test_what_is_said_follows_the_settings_in_force(
    talk_with: Callable[..., Any],
    autojump_clock: trio.testing.MockClock,
    change: dict[str, Any],
    line: str,
    told: str,
) -> None:
    """A talk that began with other settings says what the new ones say, and when; before, it did not."""
    before, _ = await talk_under(talk_with, {}, line)
    after, _ = await talk_under(talk_with, change, line)
    words, _, seconds = told.partition("@")
    assert words in after
    assert not seconds or after.endswith(f"@{seconds}")
    assert before != after


async def test_the_limit_of_a_talk_is_that_at_its_beginning(autojump_clock: trio.testing.MockClock) -> None:
    """The next call has the new one."""
    current = CurrentSettings(Settings(chat=CHAT))
    agent = ChatAgent(lambda: current.now.chat, transport=httpx.MockTransport(Endpoint()))
    assert agent.due(agent.begin(5)) == 5 + 1200
    current.replace(Settings(chat=attrs.evolve(CHAT, limit_seconds=60)))
    assert agent.due(agent.begin(5)) == 65


def test_every_setting_of_the_section_is_tried_here() -> None:
    """None is declared live on trust; `asks_ahead` is tried in test_chat_turn.py, for it takes a turn that isn't settled."""
    live = {
        field.name for field in fields_by_key(Settings).values() if field.section == "chat" and field.live
    }
    assert live == {*IN_REQUEST, *IN_TALK, "limit_seconds", "asks_ahead"}
