"""What the tests of agents share: a talk without a call, under virtual time, and a small HTTP desk."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any

import attrs
import pytest
import trio

from voice_agent.agent.gold_loan.agent import GoldLoanAgent
from voice_agent.agent.talk import Agent, Heard, Opened, TalkEvent, Turn
from voice_agent.settings.schema import GoldSettings

NOW = datetime(2026, 11, 25, 6, 0, tzinfo=UTC)
"""A Wednesday."""
GOLD = GoldSettings(
    price_per_gram=9000.0,
    price_time="2026-11-25T09:30:00+05:30",
    lender_rates="Alpha Finance=18, Beta Bank=12",
    branches="Chennai=12 Lake Road; Madurai=3 Temple Street",
)


@attrs.define
class Talk:
    """One talk with an agent: what happened is told to it, what it says is collected."""

    agent: Agent
    state: Any = None
    at: float = 0.0
    said: list[str] = attrs.field(factory=list)

    async def open(self) -> list[str]:
        """Begin; returns what the agent says first."""
        self.state = self.agent.begin(self.at)
        return await self.tell(Opened(self.at))

    async def hear(self, *lines: str) -> list[str]:
        """Say these lines one after the other; returns what was answered to the last."""
        answer: list[str] = []
        for line in lines:
            self.at += 5
            answer = await self.tell(Heard(line, self.at))
        return answer

    async def tell(self, event: TalkEvent) -> list[str]:
        """Tell the agent an event."""
        answer: list[str] = []

        async def say(sentence: str) -> None:
            answer.append(sentence)

        turn = Turn(event=event, state=self.state, say=say)
        await self.agent.reply(turn)
        self.state = turn.state
        self.said += answer
        return answer


Posts = list[dict[str, Any]]


async def _answer_once(answer: Callable[[Posts], bytes], posts: Posts, stream: trio.SocketStream) -> None:
    async with stream:
        data = b""
        while b"\r\n\r\n" not in data:
            piece = await stream.receive_some(65_536)
            if not piece:
                return
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        length = next(
            (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
        )
        while len(body) < length:
            body += await stream.receive_some(65_536)
        posts.append(json.loads(body) if body else {})
        try:
            await stream.send_all(answer(posts))
        except trio.BrokenResourceError:
            return


def http_answer(status: int, body: bytes = b"") -> bytes:
    """Write a whole HTTP answer."""
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body


@asynccontextmanager
async def serving(answer: Callable[[Posts], bytes]) -> AsyncIterator[tuple[str, Posts]]:
    """Serve one answer for each request on loopback; gives the address, and the JSON that was posted."""
    posts: Posts = []
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(
            partial(trio.serve_tcp, partial(_answer_once, answer, posts), 0, host="127.0.0.1")
        )
        yield f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/", posts
        nursery.cancel_scope.cancel()


@pytest.fixture
def gold() -> GoldSettings:
    """Settings with a price, lenders and branches."""
    return GOLD


@pytest.fixture
def talk_with() -> type[Talk]:
    """Makes a talk with an agent."""
    return Talk


@pytest.fixture
def gold_talk() -> Callable[..., Talk]:
    """Makes a talk with the gold-loan line; settings may be another value, or a function that gives them."""

    def make(settings: Any = GOLD, now: datetime = NOW) -> Talk:
        ask = settings if callable(settings) else lambda: settings
        return Talk(GoldLoanAgent(ask, lambda: now))

    return make


@pytest.fixture
def serve_answers() -> Callable[..., Any]:
    """Serves HTTP answers on loopback, by a function from what was posted to the bytes of the answer."""
    return serving


@pytest.fixture
def write_answer() -> Callable[..., bytes]:
    """Writes a whole HTTP answer."""
    return http_answer
