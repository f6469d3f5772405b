"""A language model at a real server process: what it streams is said, whatever it does wrong, and who leaves closes the stream."""

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import structlog
import trio

from voice_agent.agent.llm.agent import ChatAgent
from voice_agent.agent.llm.functions import tool
from voice_agent.agent.talk import Heard, Turn
from voice_agent.settings.schema import ChatSettings

SERVER = Path(__file__).with_name("chat_server.py")
PATIENCE_SECONDS = 60
LONGEST_SECONDS = 300
"""After which the server ends by itself, should nobody end it."""


@attrs.define
class Server:
    """The server process, and the lines that it tells."""

    url: str
    lines: "trio.MemoryReceiveChannel[dict[str, Any]]"

    async def told(self, kind: str) -> dict[str, Any]:
        """Wait for the next line of a kind; others before it are passed over."""
        with trio.fail_after(PATIENCE_SECONDS):
            while kind not in (line := await self.lines.receive()):
                pass
        return line


@pytest.fixture(scope="module")
def process() -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """One server for the file."""
    with subprocess.Popen(
        [sys.executable, str(SERVER), str(LONGEST_SECONDS)], stdout=subprocess.PIPE, bufsize=0
    ) as process:
        assert process.stdout is not None
        port = json.loads(process.stdout.readline())["port"]
        yield process, port
        process.terminate()


@pytest.fixture
async def server(process: tuple[subprocess.Popen[bytes], int], nursery: trio.Nursery) -> Server:
    """The server, with its lines from here on."""
    it, port = process
    assert it.stdout is not None
    descriptor = it.stdout.fileno()
    send, receive = trio.open_memory_channel[dict[str, Any]](10_000)

    async def read() -> None:
        import os

        waiting = b""
        while True:
            await trio.lowlevel.wait_readable(descriptor)
            waiting += os.read(descriptor, 65_536)
            *lines, waiting = waiting.split(b"\n")
            for line in lines:
                send.send_nowait(json.loads(line))

    nursery.start_soon(read)
    return Server(f"http://127.0.0.1:{port}/v1", receive)


def chat(server: Server, **others: Any) -> ChatSettings:
    """Settings that leave the server all the time that a busy machine needs."""
    usual = {
        "first_token_timeout_seconds": 30.0,
        "token_timeout_seconds": 30.0,
        "budget_seconds": 60.0,
        "filler_after_seconds": 60.0,
    }
    return ChatSettings(url=server.url, model="m", api_key="secret-key", **(usual | others))


@asynccontextmanager
async def talking(talk_with: Callable[..., Any], settings: ChatSettings, **parts: Any) -> AsyncIterator[Any]:
    """A talk that has been greeted."""
    with trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as nursery:
            agent = ChatAgent(lambda: settings, **parts)
            await nursery.start(agent.run)
            talk = talk_with(agent)
            talk.at = trio.current_time()
            assert await talk.open() == [settings.greeting]
            yield talk
            nursery.cancel_scope.cancel()


async def test_what_is_streamed_is_said_in_sentences(server: Server, talk_with: Callable[..., Any]) -> None:
    """Sentences are whole, numbers too; the request is the API's, with key, prompt, limits and the talk so far."""
    async with talking(talk_with, chat(server, system_prompt="Be kind.")) as talk:
        assert await talk.hear("hi", "how much?") == ["Hello there.", "It is 42.5 grams, I think.", "Goodbye"]
    await server.told("request")
    asked = await server.told("request")
    assert (asked["path"], asked["key"]) == ("/v1/chat/completions", "Bearer secret-key")
    request = asked["request"]
    assert (request["model"], request["stream"], request["max_tokens"]) == ("m", True, 300)
    assert [(m["role"], m["content"]) for m in request["messages"]] == [
        ("system", "Be kind."),
        ("user", "(The caller has been connected.)"),
        ("assistant", ChatSettings().greeting),
        ("user", "hi"),
        ("assistant", "Hello there. It is 42.5 grams, I think. Goodbye"),
        ("user", "how much?"),
    ]


@pytest.mark.parametrize("when", ["before the first word", "after a sentence"])
async def test_who_leaves_closes_the_stream_at_once(
    server: Server, talk_with: Callable[..., Any], when: str
) -> None:
    """The turn is cancelled; the server sees the connection close, and what was said stays in the history."""
    said = f"stall {when}"
    async with talking(talk_with, chat(server)) as talk:
        spoken: list[str] = []
        turn_is_on = trio.CancelScope()

        async def say(sentence: str) -> None:
            spoken.append(sentence)
            turn_is_on.cancel()

        turn = Turn(event=Heard(said, trio.current_time()), state=talk.state, say=say)
        async with trio.open_nursery() as nursery:

            async def interrupt_when_asked() -> None:
                await server.told("request")
                if when == "before the first word":
                    turn_is_on.cancel()

            nursery.start_soon(interrupt_when_asked)
            with turn_is_on:
                await talk.agent.reply(turn)
        assert (await server.told("left"))["left"] == said
        assert spoken == (["Hello there."] if "sentence" in when else [])
        heard = talk.agent.heard(turn.state, "Hello")
        assert [message.text for message in heard.messages[-2:]] == [said, "Hello"]
        assert [message.text for message in talk.agent.heard(heard, "").messages[-1:]] == [said]


@pytest.mark.parametrize("said", ["break", "busy 0", "fail"])
async def test_what_fails_before_anything_was_said_is_tried_again(
    server: Server, talk_with: Callable[..., Any], said: str
) -> None:
    """A broken stream, 429 and 500: the caller notices nothing."""
    async with talking(talk_with, chat(server)) as talk:
        assert (await talk.hear(said))[0] in {"Again.", "Hello there."}
        assert talk.state.failures == 0


BAD = {
    "break always": "broke|RemoteProtocolError|incomplete",
    "garbage": "no object",
    "bytes": "RemoteProtocolError",
    "page": "text/html",
    "endless": "more than",
    "busy 0 always": "429: 'slow down'",
    "fail always": "500: 'oops'",
    "busy 9999": "429",
    "stall": "no word within",
}


@pytest.mark.parametrize("said", BAD)
async def test_a_server_that_does_wrong_costs_an_apology(
    server: Server, talk_with: Callable[..., Any], said: str
) -> None:
    """After its retries; the log says what it was, and the next turn is answered as if nothing had happened."""
    settings = chat(server, retries=1)
    if said == "stall":
        settings = attrs.evolve(settings, first_token_timeout_seconds=0.2)
    with structlog.testing.capture_logs() as logs:
        async with talking(talk_with, settings) as talk:
            assert await talk.hear(said) == [settings.apology]
            assert talk.state.failures == 1
            if said != "stall":
                assert (await talk.hear("hi"))[0] == "Hello there."
                assert talk.state.failures == 0
    failed = next(line for line in logs if line["event"] == "language_model_failed")
    assert any(words in failed["reason"] for words in BAD[said].split("|"))
    assert [line["event"] for line in logs].count("language_model_retried") == (said != "busy 9999")


async def test_what_breaks_off_after_a_sentence_is_not_said_again(
    server: Server, talk_with: Callable[..., Any]
) -> None:
    """What was said stays said; the half sentence is not, and the agent says that it lost its thread."""
    async with talking(talk_with, chat(server)) as talk:
        assert await talk.hear("break after a sentence") == ["Hello there.", ChatSettings().broken_apology]


async def test_a_key_that_is_refused_is_told_to_the_operator_alone(
    server: Server, talk_with: Callable[..., Any]
) -> None:
    """Not tried again; the key stands in no log; after some turns the agent gives up and says goodbye."""
    settings = chat(server, max_failures=2)
    with structlog.testing.capture_logs() as logs:
        async with talking(talk_with, settings) as talk:
            assert await talk.hear("refuse") == [settings.apology]
            assert await talk.hear("refuse") == [settings.goodbye]
            assert talk.agent.is_over(talk.state)
    assert [line["log_level"] for line in logs] == ["error", "error"]
    assert "401" in logs[0]["reason"]
    assert "secret-key" not in str(logs)


async def test_tools_are_called_with_typed_arguments_and_their_answer_is_told(
    server: Server, talk_with: Callable[..., Any]
) -> None:
    """Fragments become arguments; what is wrong with them, or unknown, or crashes, is told to the model, not to the caller."""
    doubled: list[int] = []

    @tool()
    async def double(number: int) -> int:
        """Double a number."""
        doubled.append(number)
        if number == 13:
            raise RuntimeError("a defect")
        return number * 2

    async with talking(talk_with, chat(server), tools=[double]) as talk:
        assert await talk.hear('tool double {"number": 21}') == ["It says 42."]
        assert doubled == [21]
        asked = await server.told("request")
        schema = asked["request"]["tools"][0]["function"]
        assert schema["name"] == "double"
        assert schema["parameters"]["properties"] == {"number": {"type": "integer"}}
        for line, words in (
            ('tool double {"number": "x"}', "expected int"),
            ("tool double {nonsense", "no JSON"),
            ('tool double {"number": 13}', "it failed"),
            ("tool sing {}", "there is no tool 'sing'"),
        ):
            assert words in " ".join(await talk.hear(line))
        assert doubled == [21, 13]


async def test_the_model_ends_the_call(server: Server, talk_with: Callable[..., Any]) -> None:
    """It says goodbye and calls end_call; where it only calls that, the goodbye is the setting's. Interrupted, it is none."""
    async with talking(talk_with, chat(server)) as talk:
        assert await talk.hear("bye") == ["Goodbye, friend."]
        assert talk.agent.is_over(talk.state)
        talk.state = talk.agent.heard(talk.state, "Goodbye,")
        assert not talk.agent.is_over(talk.state)
        assert await talk.hear("leave") == [ChatSettings().goodbye]
        assert talk.agent.is_over(talk.state)


async def test_nobody_listens_at_the_endpoint(talk_with: Callable[..., Any]) -> None:
    """Refused at once, with its retries; an apology, and a turn like any other."""
    settings = ChatSettings(url="http://127.0.0.1:9/v1", model="m", retries=1)
    async with talking(talk_with, settings) as talk:
        assert await talk.hear("hi") == [settings.apology]
