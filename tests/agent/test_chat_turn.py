"""A turn of a language model under virtual time: what is said when, and what an interruption leaves."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import attrs
import httpx
import pytest
import structlog
import trio

from voice_agent.agent.dialogue_errors import AgentFactoryError
from voice_agent.agent.llm.agent import ChatAgent
from voice_agent.agent.llm.functions import tool
from voice_agent.agent.llm.history import CALLER_IS_SILENT, Role
from voice_agent.agent.talk import Heard, HungUp, Silence, TimeUp, Turn
from voice_agent.core.errors import InternalError, SettingsError
from voice_agent.settings.load import load_settings
from voice_agent.settings.schema import ChatSettings

CHAT = ChatSettings(url="http://127.0.0.1:9/v1", model="m")
EVENTS = {"content-type": "text/event-stream"}
Script = list[str | float | dict[str, Any] | httpx.Response]
"""What the model does, reply by reply: text, seconds that it waits, calls of tools; or a whole answer. "|" ends a reply."""


async def nothing() -> AsyncIterator[bytes]:
    """A body without bytes, streamed."""
    return
    yield b""  # what makes this a generator


@attrs.define
class Model:
    """A model that plays scripts, one for each request, the last one again and again."""

    scripts: list[Script]
    asked_at: list[float] = attrs.field(factory=list)
    asked: list[Any] = attrs.field(factory=list)

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked_at.append(trio.current_time())
        self.asked.append(json.loads(request.content))
        script = self.scripts[min(len(self.asked), len(self.scripts)) - 1]
        if isinstance(script[0], httpx.Response):
            return httpx.Response(script[0].status_code, headers=script[0].headers, content=nothing())

        async def stream() -> AsyncIterator[bytes]:
            reason = "stop"
            for part in script:
                match part:
                    case float():
                        await trio.sleep(part)
                        continue
                    case "length":
                        reason = "length"
                        continue
                    case str():
                        delta: dict[str, Any] = {"content": part}
                    case _:
                        delta = {"tool_calls": [{"index": 0, "id": "1", "function": part}]}
                yield f"data: {json.dumps({'choices': [{'delta': delta}]})}\n\n".encode()
            yield f"data: {json.dumps({'choices': [{'finish_reason': reason}]})}\n\n".encode()

        return httpx.Response(200, headers=EVENTS, content=stream())


@attrs.define
class Stage:
    """A model and a talk with it; what is said stands with the time."""

    agent: ChatAgent
    model: Model
    state: Any
    said: list[tuple[str, float]] = attrs.field(factory=list)
    seconds_a_sentence: float = 0.0

    async def say(self, sentence: str) -> None:
        self.said.append((sentence, trio.current_time()))
        await trio.sleep(self.seconds_a_sentence)

    def turn(self, event: Any = None, **others: Any) -> Turn:
        return Turn(event=event or Heard("hi", 0), state=self.state, say=self.say, **others)

    async def tell(self, event: Any = None) -> list[str]:
        before = len(self.said)
        turn = self.turn(event)
        await self.agent.reply(turn)
        self.state = turn.state
        return [sentence for sentence, _ in self.said[before:]]


@asynccontextmanager
async def playing(*scripts: Script, chat: ChatSettings = CHAT, **parts: Any) -> AsyncIterator[Stage]:
    model = Model(list(scripts))
    agent = ChatAgent(lambda: chat, transport=httpx.MockTransport(model), **parts)
    async with trio.open_nursery() as nursery:
        await nursery.start(agent.run)
        yield Stage(agent, model, agent.begin(trio.current_time()))
        nursery.cancel_scope.cancel()


Clock = trio.testing.MockClock
"""Seconds cost nothing here, and are exact."""


async def test_the_filler_is_said_once_and_only_when_nothing_was(autojump_clock: Clock) -> None:
    """After its time, before the answer; not in a turn that began to answer in time, however slow it goes on."""
    async with playing([3.0, "It is gold. "], [1.0, "Yes. ", 3.5, "It is."]) as stage:
        await stage.tell()
        assert stage.said == [("One moment, please.", 2.0), ("It is gold.", 3.0)]
        assert stage.state.messages[-1].text == "It is gold.", "the filler is no part of the history"
        assert await stage.tell() == ["Yes.", "It is."]


async def test_sentences_are_said_while_the_rest_is_written(autojump_clock: Clock) -> None:
    """And the reply is read to its end, however long a voice takes: no endpoint waits for that."""
    async with playing(["One. ", 1.0, "Two. ", 1.0, "Three."]) as stage:
        stage.seconds_a_sentence = 100.0
        await stage.tell()
        assert stage.said == [("One.", 0.0), ("Two.", 100.0), ("Three.", 200.0)]
        assert stage.state.failures == 0


async def test_the_budget_bounds_all_waiting_for_the_endpoint(autojump_clock: Clock) -> None:
    """Tries and pauses together; what is left is too little for another try then."""
    chat = attrs.evolve(CHAT, retries=10, first_token_timeout_seconds=4.0, budget_seconds=10.0, filler="")
    async with playing([60.0], chat=chat) as stage:
        assert await stage.tell() == [chat.apology]
        assert len(stage.model.asked) == 3
        assert trio.current_time() <= 10.0
        assert stage.said[0][1] == trio.current_time()


async def test_a_server_that_wants_to_be_left_alone_is(autojump_clock: Clock) -> None:
    """For as long as it says, in seconds or as a date, if the turn has that long; else the caller is told at once."""
    date = {"Date": "Wed, 25 Nov 2026 06:00:00 GMT", "Retry-After": "Wed, 25 Nov 2026 06:00:05 GMT"}
    for fields, at in (({"Retry-After": "3"}, 3.0), (date, 5.0)):
        async with playing([httpx.Response(429, headers=fields)], ["Well."]) as stage:
            began_at = trio.current_time()
            assert (await stage.tell())[-1] == "Well."
            assert stage.model.asked_at[1] - began_at == at
    for fields in ({"Retry-After": "60"}, {"Retry-After": "9" * 400}):
        async with playing([httpx.Response(503, headers=fields)]) as stage:
            began_at = trio.current_time()
            assert await stage.tell() == [CHAT.apology]
            assert trio.current_time() == began_at


async def test_pauses_grow(autojump_clock: Clock) -> None:
    """By chance between once and twice a pause that doubles."""
    chat = attrs.evolve(CHAT, retries=3)
    async with playing([httpx.Response(500, headers={"Retry-After": "soon"})], chat=chat) as stage:
        await stage.tell()
        times = stage.model.asked_at
        pauses = [later - one for one, later in pairwise(times)]
        assert len(pauses) == 3
        assert all(0.2 * 2**n <= pause <= 0.4 * 2**n for n, pause in enumerate(pauses))


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (["All of it. And hal", "length"], ["All of it."]),
        (["All of it. And more.", "length"], ["All of it.", "And more."]),
        (["Half a sent", "length"], ["Half a sent"]),
        (["<think>Hm. So.</think>", "Yes."], ["Yes."]),
        (["👍"], [CHAT.apology]),
        ([""], [CHAT.apology]),
    ],
)
async def test_what_is_said_of_odd_replies(script: Script, said: list[str], autojump_clock: Clock) -> None:
    """Cut at the limit: whole sentences; without words: an apology, for a caller who hears nothing would wait."""
    async with playing(script) as stage:
        assert await stage.tell() == said


async def test_effects_wait_until_the_caller_has_surely_finished(autojump_clock: Clock) -> None:
    """A turn that is prepared while the caller might speak on does nothing; what is pure may be looked up meanwhile."""
    used: list[str] = []

    @tool(is_pure=True)
    async def look() -> str:
        """Look it up."""
        used.append("look")
        return "seen"

    @tool()
    async def book() -> str:
        """Book it."""
        used.append("book")
        return "booked"

    scripts: list[Script] = [[{"name": "look"}], [{"name": "book"}], ["Booked."]]
    async with playing(*scripts, tools=[look, book]) as stage:
        settled = trio.Event()
        turn = stage.turn(settled=settled.wait)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stage.agent.reply, turn)
            await trio.sleep(30)
            assert used == ["look"]
            assert [message.text for message in turn.state.messages if message.role is Role.TOOL] == [
                '"seen"'
            ]
            settled.set()
        assert used == ["look", "book"]
        assert stage.said[-1][0] == "Booked."


async def test_who_pays_for_each_request_may_wait_until_it_is_sure(autojump_clock: Clock) -> None:
    """With `asks_ahead` the model is asked at once; without it, when the caller has surely finished."""
    for asks_ahead, asked_after in ((True, 0.0), (False, 5.0)):
        async with playing(["Well."], chat=attrs.evolve(CHAT, asks_ahead=asks_ahead)) as stage:

            async def settled() -> None:
                await trio.sleep(5)

            began_at = trio.current_time()
            await stage.agent.reply(stage.turn(settled=settled))
            assert stage.model.asked_at == [began_at + asked_after]


async def test_a_tool_that_is_interrupted_is_known_to_have_begun(autojump_clock: Clock) -> None:
    """So that the next turn doesn't do it twice without a word."""

    @tool(limit_seconds=100)
    async def book() -> str:
        """Book it."""
        await trio.sleep_forever()
        return "never"

    async with playing([{"name": "book"}], ["I don't know."], tools=[book]) as stage:
        turn = stage.turn()
        with trio.move_on_after(5):
            await stage.agent.reply(turn)
        stage.state = stage.agent.heard(turn.state, "")
        assert "not known" in stage.state.messages[-1].text
        await stage.tell(Heard("did you?", 9))
        roles = [message["role"] for message in stage.model.asked[-1]["messages"]]
        assert roles == ["system", "user", "assistant", "tool", "user"]


async def test_a_tool_has_its_time_and_a_model_its_rounds(autojump_clock: Clock) -> None:
    """What takes too long is told to the model; who only uses tools must answer in the end."""

    @tool(limit_seconds=1)
    async def slow() -> str:
        """Be slow."""
        await trio.sleep_forever()
        return "never"

    chat = attrs.evolve(CHAT, max_tool_rounds=2)
    async with playing(
        [{"name": "slow"}], [{"name": "slow"}], ["So be it."], tools=[slow], chat=chat
    ) as stage:
        assert (await stage.tell())[-1] == "So be it."
        assert "took longer than 1 s" in stage.model.asked[1]["messages"][-1]["content"]
        assert stage.model.asked[2]["tool_choice"] == "none"


async def test_silence_time_and_hanging_up(autojump_clock: Clock) -> None:
    """Asked again as often as the settings say, then goodbye; at the talk's end goodbye; a caller who is gone is told nothing."""
    async with playing(["Well."]) as stage:
        assert stage.agent.due(stage.state) == CHAT.limit_seconds
        assert await stage.tell(Silence(1)) == [CHAT.reprompt]
        assert stage.state.messages[0].text == CALLER_IS_SILENT
        await stage.tell()
        assert [await stage.tell(Silence(1)) for _ in range(3)] == [
            [CHAT.reprompt],
            [CHAT.reprompt],
            [CHAT.goodbye],
        ]
        assert stage.agent.is_over(stage.state)
        assert stage.agent.due(stage.state) is None
    for event, said in ((TimeUp(1), [CHAT.goodbye]), (HungUp(1), [])):
        async with playing(["Well."]) as stage:
            assert await stage.tell(event) == said
            assert stage.agent.is_over(stage.state)


async def test_nothing_is_not_answered_and_the_model_may_greet(autojump_clock: Clock) -> None:
    """An empty final costs no request; without a greeting the model is asked for one."""
    from voice_agent.agent.talk import Opened

    async with playing(["Welcome."], chat=attrs.evolve(CHAT, greeting="")) as stage:
        assert await stage.tell(Heard("  ", 1)) == []
        assert stage.model.asked == []
        assert await stage.tell(Opened(1)) == ["Welcome."]


async def test_what_the_voice_raises_comes_out_as_it_is(autojump_clock: Clock) -> None:
    """The seat knows its own errors; a group of them it would not."""

    class NoVoiceError(Exception):
        pass

    async def say(_: str) -> None:
        raise NoVoiceError

    async with playing(["Well. ", 3.0, "Never said."]) as stage:
        turn = Turn(event=Heard("hi", 0), state=stage.state, say=say)
        with pytest.raises(NoVoiceError):
            await stage.agent.reply(turn)


@pytest.mark.parametrize("content", [None, b"\xff", b"x" * 70_000], ids=["missing", "no UTF-8", "too long"])
async def test_a_prompt_file_that_cannot_be_read_is_for_the_operator(
    tmp_path: Any, content: bytes | None, autojump_clock: Clock
) -> None:
    """The caller hears the apology; the endpoint is not asked."""
    file = tmp_path / "prompt"
    if content is not None:
        file.write_bytes(content)
    async with playing(["Well."], chat=attrs.evolve(CHAT, system_prompt_file=str(file))) as stage:
        with structlog.testing.capture_logs() as logs:
            assert await stage.tell() == [CHAT.apology]
        assert [line["event"] for line in logs] == ["language_model_refused"]
        assert stage.model.asked == []


async def test_a_key_that_no_header_can_hold_is_told_without_it(autojump_clock: Clock) -> None:
    """A line break in a mounted secret, say."""
    chat = attrs.evolve(CHAT, api_key="secret\nkey", url="http://127.0.0.1:9/v1")
    model = Model([["Well."]])

    async def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.LocalProtocolError("Illegal header value b'Bearer secret\\nkey'")

    agent = ChatAgent(lambda: chat, transport=httpx.MockTransport(refuse))
    async with trio.open_nursery() as nursery:
        await nursery.start(agent.run)
        stage = Stage(agent, model, agent.begin(0))
        with structlog.testing.capture_logs() as logs:
            assert await stage.tell() == [chat.apology]
        assert "secret" not in str(logs)
        nursery.cancel_scope.cancel()


def test_without_an_address_there_is_no_agent() -> None:
    """Told before the server starts; and a key is not sent where everybody could read it."""
    with pytest.raises(AgentFactoryError, match=r"chat\.url"):
        ChatAgent(ChatSettings)
    for others, words in (
        ({}, r"needs chat\.url"),
        (
            {"VOICE_AGENT__CHAT__URL": "http://10.0.0.1/v1", "VOICE_AGENT__CHAT__API_KEY": "k"},
            r"chat\.api_key is sent only",
        ),
    ):
        with pytest.raises(SettingsError, match=words):
            load_settings(
                files=(),
                environ={"VOICE_AGENT__AGENT__FACTORY": "chat", "VOICE_AGENT__CHAT__MODEL": "m", **others},
            )


async def test_an_agent_that_does_not_run_says_so(autojump_clock: Clock) -> None:
    """A seat that forgot to run it has a defect."""
    agent = ChatAgent(lambda: CHAT)
    with pytest.raises(InternalError):
        await agent.reply(Turn(event=Heard("hi", 0), state=agent.begin(0), say=trio.lowlevel.checkpoint))  # type: ignore[arg-type]


def test_a_tool_must_tell_what_it_takes() -> None:
    """Async, with a docstring, annotations, and kinds that JSON can hold; names of its own."""

    async def silent(x: int) -> None: ...

    async def untyped(x) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
        """Do."""

    async def odd(x: object) -> None:
        """Do."""

    async def many(*x: int) -> None:
        """Do."""

    def plain(x: int) -> None:
        """Do."""

    for function in (silent, untyped, odd, many, plain):
        with pytest.raises(TypeError):
            tool()(function)  # type: ignore[arg-type]

    @tool()
    async def end_call() -> None:
        """End it."""

    with pytest.raises(ValueError, match="end_call"):
        ChatAgent(lambda: CHAT, tools=[end_call])
