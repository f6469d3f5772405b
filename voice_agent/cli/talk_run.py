"""One conversation in the terminal: lines in, sentences out, in the seat where a call would be."""

import math
import os
import sys
from typing import Any, Final, TextIO

import attrs
import trio

from voice_agent.agent.agents import make_agent
from voice_agent.agent.dialogue import State
from voice_agent.agent.speech_text import speech_text
from voice_agent.agent.talk import Agent, Heard, HungUp, Opened, Silence, TalkEvent, TimeUp, Turn
from voice_agent.cli.call_display import printable
from voice_agent.observability.metrics import Metrics
from voice_agent.server.reload import SettingsReload
from voice_agent.settings.current import CurrentSettings
from voice_agent.settings.origin import SettingsOrigin

MAX_LINE_BYTES: Final = 8192
"""What is longer is cut there and taken as several lines."""
_PROMPT: Final = "you> "


@attrs.frozen(kw_only=True)
class TalkView:
    """How a talk is shown."""

    out: TextIO
    shows_facts: bool = False
    is_spoken: bool = False

    def show_agent(self, sentence: str) -> None:
        """Show a sentence of the agent's."""
        self._write(f"agent> {printable(speech_text(sentence) if self.is_spoken else sentence)}\n")

    def show_caller(self, line: str) -> None:
        """Show what the caller said, where no terminal has shown it."""
        self._write(f"{_PROMPT}{printable(line)}\n")

    def show_prompt(self) -> None:
        """Ask for a line."""
        self._write(_PROMPT)

    def show_state(self, state: Any) -> None:
        """Show the stage and what is known."""
        if self.shows_facts and isinstance(state, State):
            known = {
                field.name: getattr(state.facts, field.name) for field in attrs.fields(type(state.facts))
            }
            told = ", ".join(f"{name} {value}" for name, value in known.items() if value is not None)
            self._write(f"       [{state.stage}: {printable(told)}]\n")

    def end_line(self) -> None:
        """End the line that the prompt stands in."""
        self._write("\n")

    def _write(self, text: str) -> None:
        self.out.write(text)
        self.out.flush()


class Lines:
    """Lines of a file descriptor, without a thread: a thread that waits for a terminal can't be told to stop."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._waiting = b""
        self._is_over = False

    def __aiter__(self) -> "Lines":
        return self

    async def __anext__(self) -> str:
        """Return the next line without its end. Cancelled, it loses nothing."""
        while True:
            line, found, rest = self._waiting.partition(b"\n")
            if found or len(self._waiting) >= MAX_LINE_BYTES:
                self._waiting = rest
                return line.decode(errors="replace").rstrip("\r")
            if self._is_over:
                if not self._waiting:
                    raise StopAsyncIteration
                self._waiting = b""
                return line.decode(errors="replace")
            await self._read_more()

    async def _read_more(self) -> None:
        try:
            await trio.lowlevel.wait_readable(self._descriptor)
        except PermissionError:
            # A regular file can't be waited for (epoll(7)), and never has to be.
            await trio.lowlevel.checkpoint()
        piece = os.read(self._descriptor, MAX_LINE_BYTES)
        self._is_over = not piece
        self._waiting += piece


class Terminal:
    """The seat: tells the agent what happens, and shows what it says."""

    def __init__(
        self, origin: SettingsOrigin, current: CurrentSettings, view: TalkView, *, is_timed: bool
    ) -> None:
        self._origin = origin
        self._current = current
        self._view = view
        self._is_timed = is_timed
        self._state: Any = None

    async def run(self) -> None:
        """Talk until the agent has said goodbye, or the input is over.

        Raises:
            AgentFactoryError: the setting names no agent.
        """
        agent = make_agent(lambda: self._current.now)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(SettingsReload(self._origin, self._current, Metrics()).run)
            await nursery.start(agent.run)
            await self._talk(agent)
            nursery.cancel_scope.cancel()

    async def _talk(self, agent: Agent) -> None:
        self._state = agent.begin(trio.current_time())
        await self._tell(agent, Opened(trio.current_time()))
        shows_typing = sys.stdin.isatty()
        lines = Lines(sys.stdin.fileno())
        while not agent.is_over(self._state):
            if shows_typing:
                self._view.show_prompt()
            event = await self._next(agent, lines)
            if isinstance(event, Heard) and not shows_typing:
                self._view.show_caller(event.text)
            elif not isinstance(event, Heard) and shows_typing:
                self._view.end_line()
            await self._tell(agent, event)
            if isinstance(event, HungUp):
                break

    async def _tell(self, agent: Agent, event: TalkEvent) -> None:
        async def say(sentence: str) -> None:
            self._view.show_agent(sentence)
            await trio.lowlevel.checkpoint()

        turn = Turn(event=event, state=self._state, say=say)
        await agent.reply(turn)
        self._state = turn.state
        self._view.show_state(self._state)

    async def _next(self, agent: Agent, lines: Lines) -> TalkEvent:
        """Wait for a line, its end, silence, or the time that the agent wants to be told of."""
        due = agent.due(self._state) if self._is_timed else None
        silent_at = math.inf
        if self._is_timed:
            silent_at = trio.current_time() + self._current.now.agent.silence_seconds
        deadline = min(silent_at, math.inf if due is None else due)
        try:
            with trio.fail_at(deadline):
                return Heard(await anext(lines), trio.current_time())
        except StopAsyncIteration:
            return HungUp(trio.current_time())
        except trio.TooSlowError:
            now = trio.current_time()
            return TimeUp(now) if due is not None and due <= now else Silence(now)
