"""One answer of a language model: asked, retried, with its tools, said sentence by sentence while the rest is written.

Two tasks in one nursery: one asks and reads, as fast as the endpoint sends; the other says. A reply is read to its end even while
its first sentence is being spoken, for no endpoint waits as long as a voice takes; its length is bounded. The turn's scope
holds both, so that an interruption closes the stream and stops the voice at once.
"""

import random
from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs
import structlog
import trio

from voice_agent.agent.llm.endpoint import ChatEndpoint, Patience, Reply
from voice_agent.agent.llm.history import Message, bounded, say, written
from voice_agent.agent.llm.sentences import SentenceSplitter, is_whole
from voice_agent.agent.llm.spoken import Spoken, ThoughtFilter
from voice_agent.agent.llm.using import END_CALL, UsedTools
from voice_agent.agent.talk import Turn
from voice_agent.core.errors import LanguageModelFailedError, LanguageModelRefusedError
from voice_agent.core.units import MS
from voice_agent.settings.schema import ChatSettings

MAX_SENTENCES: Final = 512
"""That wait to be said, in one turn; what a model writes beyond is dropped."""
FIRST_PAUSE_SECONDS: Final = 200 * MS
"""Before the second try, and twice as long before each further one; as much again by chance, so that many calls that failed
together don't ask together."""

log: Final = structlog.get_logger(__name__)


@attrs.frozen(kw_only=True)
class Outcome:
    """How an answer ended."""

    fault: LanguageModelFailedError | LanguageModelRefusedError | None
    has_spoken: bool
    """Whether anything of the model's was said."""
    ends_call: bool
    """Whether the model wants the call to end."""


class Answer:
    """The answer of one turn."""

    def __init__(
        self, turn: Turn, chat: ChatSettings, endpoint: ChatEndpoint, tools: UsedTools, system_prompt: str
    ) -> None:
        self._turn = turn
        self._chat: ChatSettings = chat
        self._endpoint = endpoint
        self._tools = tools
        self._system_prompt = system_prompt
        self._seconds_left = chat.budget_seconds
        self._retries_left = chat.retries
        self._said = 0
        self._ends_call = False
        self._fault: LanguageModelFailedError | LanguageModelRefusedError | None = None

    async def give(self) -> Outcome:
        """Ask, and say what comes. What ``turn.say`` raises comes out as it is."""
        sentences, to_say = trio.open_memory_channel[str](MAX_SENTENCES)
        said_wrong: Exception | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write, sentences)
            try:
                await self._speak(to_say)
            except Exception as error:  # noqa: BLE001 - kept for behind the nursery, which would make a group of it
                said_wrong = error
                nursery.cancel_scope.cancel()
        if said_wrong is not None:
            raise said_wrong
        return Outcome(fault=self._fault, has_spoken=self._said > 0, ends_call=self._ends_call)

    async def _speak(self, to_say: trio.MemoryReceiveChannel[str]) -> None:
        first: list[str] = []
        with trio.move_on_after(self._chat.filler_after_seconds) as waiting:
            async for sentence in to_say:
                first.append(sentence)
                break
        if waiting.cancelled_caught and self._chat.filler:
            await self._turn.say(self._chat.filler)
        for sentence in first:
            await self._say(sentence)
        async for sentence in to_say:
            await self._say(sentence)

    async def _say(self, sentence: str) -> None:
        self._said += 1
        # Decided before it is spoken: what was heard of it replaces it, if it is cut off.
        self._turn.state = say(self._turn.state, sentence)
        await self._turn.say(sentence)

    async def _write(self, sentences: trio.MemorySendChannel[str]) -> None:
        async with sentences:
            try:
                await self._rounds(sentences)
            except (LanguageModelFailedError, LanguageModelRefusedError) as fault:
                self._fault = fault

    async def _rounds(self, sentences: trio.MemorySendChannel[str]) -> None:
        """Ask, use the tools that are asked for, ask again with what they answered; at last without tools."""
        messages = list(bounded(self._turn.state.messages, self._chat.max_history_tokens))
        for left in range(self._chat.max_tool_rounds, -1, -1):
            text, reply = await self._ask(messages, sentences, may_use_tools=left > 0)
            if not reply.calls or not left:
                return
            asked, *answers = await self._tools.use(self._turn, reply.calls)
            messages += [attrs.evolve(asked, text=text), *answers]
            if any(call.name == END_CALL for call in reply.calls):
                self._ends_call = True
                if not text.strip():
                    sentences.send_nowait(self._chat.goodbye)
                return

    async def _ask(
        self, messages: Sequence[Message], sentences: trio.MemorySendChannel[str], *, may_use_tools: bool
    ) -> tuple[str, Reply]:
        """Ask until a reply comes, as long as nothing of a broken one was said, the tries last and the time does."""
        request = self._request(messages, may_use_tools=may_use_tools)
        pause_seconds = FIRST_PAUSE_SECONDS
        while True:
            writing = _Writing(sentences)
            started_at = trio.current_time()
            try:
                reply = await self._endpoint.ask(request, self._patience(), writing.take)
                writing.end(reply.finish_reason)
                if not writing.has_spoken and not reply.calls:
                    raise LanguageModelFailedError("the model's reply has no words")  # noqa: TRY301 - retried as others
            except LanguageModelFailedError as error:
                self._seconds_left -= trio.current_time() - started_at
                wait_seconds = max(error.retry_after_seconds, pause_seconds * random.uniform(1, 2))  # noqa: S311
                if writing.has_spoken or not self._retries_left or wait_seconds >= self._seconds_left:
                    raise
                log.info("language_model_retried", reason=error.message, wait_seconds=round(wait_seconds, 2))
            else:
                self._seconds_left -= trio.current_time() - started_at
                return writing.text, reply
            await trio.sleep(wait_seconds)
            self._seconds_left -= wait_seconds
            self._retries_left -= 1
            pause_seconds *= 2

    def _patience(self) -> Patience:
        return Patience(
            first_seconds=self._chat.first_token_timeout_seconds,
            next_seconds=self._chat.token_timeout_seconds,
            whole_seconds=max(self._seconds_left, 0.0),
        )

    def _request(self, messages: Sequence[Message], *, may_use_tools: bool) -> Mapping[str, Any]:
        chat: ChatSettings = self._chat
        request: dict[str, Any] = {
            "model": chat.model,
            "messages": written(messages, self._system_prompt),
            chat.reply_limit_field: chat.max_reply_tokens,
        }
        if chat.temperature >= 0:
            request["temperature"] = chat.temperature
        if may_use_tools:
            request["tools"] = self._tools.told
        elif any(message.calls for message in messages):
            # Those that were used must be known all the same.
            request |= {"tools": self._tools.told, "tool_choice": "none"}
        return request


class _Writing:
    """One try: the text as it comes, cut into sentences for the voice."""

    def __init__(self, sentences: trio.MemorySendChannel[str]) -> None:
        self.text = ""
        self.has_spoken = False
        self._sentences = sentences
        self._thoughts = ThoughtFilter()
        self._splitter = SentenceSplitter()
        self._spoken = Spoken()

    def take(self, text: str) -> None:
        """Take a piece of text as the endpoint sends it."""
        self._tell(self._thoughts.feed(text))

    def end(self, finish_reason: str) -> None:
        """The reply is whole. Of one that was cut at its limit, half a sentence is not said, if something else was."""
        self._tell(self._thoughts.flush())
        rest = self._splitter.flush()
        is_cut = finish_reason == "length" and rest and not is_whole(rest[-1])
        if is_cut and (self.has_spoken or rest[1:]):
            rest.pop()
        self._say(rest)

    def _tell(self, text: str) -> None:
        self.text += text
        self._say(self._splitter.feed(text))

    def _say(self, sentences: list[str]) -> None:
        for sentence in sentences:
            words = self._spoken.of(sentence)
            if not words:
                continue
            self.has_spoken = True
            try:
                self._sentences.send_nowait(words)
            except trio.WouldBlock:
                return
