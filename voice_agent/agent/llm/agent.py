"""ChatAgent: a language model in the seat of an agent."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final

import attrs
import cattrs
import httpx
import structlog
import trio

from voice_agent.agent.dialogue_errors import AgentFactoryError
from voice_agent.agent.llm import history
from voice_agent.agent.llm.answering import Answer
from voice_agent.agent.llm.endpoint import ChatEndpoint, open_endpoint
from voice_agent.agent.llm.history import CALL_BEGINS, CALLER_IS_SILENT, ChatState
from voice_agent.agent.llm.using import UsedTools
from voice_agent.agent.talk import Heard, HungUp, Opened, Silence, Turn
from voice_agent.agent.tools import Tool
from voice_agent.core.errors import (
    InternalError,
    InvalidFieldError,
    LanguageModelFailedError,
    LanguageModelRefusedError,
)
from voice_agent.core.units import KIB
from voice_agent.settings.schema import ChatSettings
from voice_agent.settings.urls import is_http

MAX_PROMPT_BYTES: Final = 64 * KIB

log: Final = structlog.get_logger(__name__)


class ChatAgent:
    """An agent whose answers a language model writes.

    ``settings`` is asked in each turn, so that a change takes effect in running talks. ``tools`` are what the model may use beside
    ``end_call``. ``beside`` are tasks that run as long as the agent does, for tools that need one. ``transport`` replaces
    the network, for tests.

    Raises:
        AgentFactoryError: no address or no model is set.
        ValueError: two tools have one name.
        TypeError: a tool takes what no JSON schema is known for.
    """

    def __init__(
        self,
        settings: Callable[[], ChatSettings],
        *,
        tools: Iterable[Tool[Any, Any]] = (),
        beside: Iterable[Callable[[], Awaitable[object]]] = (),
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        chat: ChatSettings = settings()
        if not is_http(chat.url) or not chat.model:
            raise AgentFactoryError(
                "a language model needs chat.url, as https://host/v1, and chat.model", field="chat.url"
            )
        self._settings = settings
        self._tools = UsedTools(tools)
        self._beside = tuple(beside)
        self._transport = transport
        self._endpoint: ChatEndpoint | None = None

    def begin(self, at: float) -> ChatState:
        """Return the state of a call that begins."""
        chat: ChatSettings = self._settings()
        return ChatState(ends_at=at + chat.limit_seconds)

    def due(self, state: ChatState) -> float | None:
        """Return when the talk has lasted as long as it may."""
        return None if state.is_over else state.ends_at

    def is_over(self, state: ChatState) -> bool:
        """Whether the agent has said goodbye, or the caller is gone."""
        return state.is_over

    def may_record(self, state: ChatState) -> bool:  # noqa: ARG002 - the protocol's signature
        """What is kept of a call is for the server's settings to say; nobody is asked for consent."""
        return True

    def dump(self, state: ChatState) -> Mapping[str, Any]:
        """Return the state as JSON has it."""
        return history.dump(state, trio.current_time())

    def load(self, told: Mapping[str, Any]) -> ChatState:
        """Return the state that was dumped, perhaps by another process.

        Raises:
            InvalidFieldError: it is none.
        """
        try:
            return history.load(told, trio.current_time())
        except (cattrs.BaseValidationError, TypeError, ValueError) as error:
            told_wrong = "; ".join(cattrs.transform_error(error, path="state"))
            raise InvalidFieldError(f"the state is none of a chat: {told_wrong}", field="state") from None

    def heard(self, state: ChatState, text: str) -> ChatState:
        """Keep of what was said last only what the caller heard; a goodbye that was interrupted is none."""
        chat: ChatSettings = self._settings()
        if chat.filler:
            # No part of the answer; a model that reads it in its own words begins to say it by itself.
            text = "" if chat.filler.startswith(text) else text.removeprefix(chat.filler)
        return attrs.evolve(history.keep_heard(state, text.strip()), is_over=False)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep connections to the endpoint, and do what the tools need done."""
        chat: ChatSettings = self._settings()
        async with (
            open_endpoint(chat.url, self._key, self._transport) as self._endpoint,
            trio.open_nursery() as nursery,
        ):
            for task in self._beside:
                nursery.start_soon(task)
            task_status.started()
            await trio.sleep_forever()

    def _key(self) -> str:
        chat: ChatSettings = self._settings()
        return chat.api_key

    async def reply(self, turn: Turn) -> None:
        """Answer an event."""
        chat: ChatSettings = self._settings()
        state: ChatState = turn.state
        match turn.event:
            case Opened():
                turn.state = history.hear(state, CALL_BEGINS)
                if chat.greeting:
                    await _say(turn, chat.greeting)
                else:
                    await self._answer(turn, chat)
            case Heard(text=text) if text.strip():
                turn.state = attrs.evolve(history.hear(state, text.strip()), reprompts=0)
                await self._answer(turn, chat)
            case Silence() if state.reprompts < chat.max_reprompts:
                asked = history.hear(state, CALLER_IS_SILENT)
                turn.state = attrs.evolve(asked, reprompts=state.reprompts + 1)
                await _say(turn, chat.reprompt)
            case HungUp():
                turn.state = attrs.evolve(state, is_over=True)
            case Heard():
                pass
            case _:
                await _end(turn, chat)
        kept = history.bounded(turn.state.messages, chat.max_history_tokens)
        turn.state = attrs.evolve(turn.state, messages=kept)

    async def _answer(self, turn: Turn, chat: ChatSettings) -> None:
        if self._endpoint is None:
            raise InternalError("ChatAgent.run is not running")
        try:
            prompt = await _system_prompt(chat)
        except LanguageModelRefusedError as error:
            await _apologise(turn, chat, error, has_spoken=False)
            return
        if not chat.asks_ahead:
            await turn.settled()
        outcome = await Answer(turn, chat, self._endpoint, self._tools, prompt).give()
        if outcome.fault is not None:
            await _apologise(turn, chat, outcome.fault, has_spoken=outcome.has_spoken)
            return
        turn.state = attrs.evolve(turn.state, failures=0, is_over=outcome.ends_call)


async def _system_prompt(chat: ChatSettings) -> str:
    if not chat.system_prompt_file:
        return chat.system_prompt
    try:
        async with await trio.open_file(chat.system_prompt_file, "rb") as file:
            prompt = await file.read(MAX_PROMPT_BYTES + 1)
        if len(prompt) > MAX_PROMPT_BYTES:
            raise LanguageModelRefusedError(f"chat.system_prompt_file is over {MAX_PROMPT_BYTES} bytes")
        return prompt.decode()
    except OSError as error:
        raise LanguageModelRefusedError(f"chat.system_prompt_file can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise LanguageModelRefusedError("chat.system_prompt_file is no UTF-8") from None


async def _apologise(
    turn: Turn,
    chat: ChatSettings,
    fault: LanguageModelFailedError | LanguageModelRefusedError,
    *,
    has_spoken: bool,
) -> None:
    """Say that it went wrong, once; after too many times in a row, goodbye."""
    if isinstance(fault, LanguageModelRefusedError):
        log.error("language_model_refused", code=fault.code, reason=fault.message)
    else:
        log.warning("language_model_failed", code=fault.code, reason=fault.message)
    failures = turn.state.failures + 1
    turn.state = attrs.evolve(turn.state, failures=failures)
    if chat.max_failures and failures >= chat.max_failures:
        await _end(turn, chat)
    else:
        await _say(turn, chat.broken_apology if has_spoken else chat.apology)


async def _end(turn: Turn, chat: ChatSettings) -> None:
    await _say(turn, chat.goodbye)
    turn.state = attrs.evolve(turn.state, is_over=True)


async def _say(turn: Turn, sentence: str) -> None:
    turn.state = history.say(turn.state, sentence)
    await turn.say(sentence)
