"""Five hundred generated dialogues, with silences, failures, interruptions and hang-ups: every one ends, in a final stage."""

from collections.abc import Callable
from functools import partial
from typing import Any

import attrs
import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from voice_agent.agent.dialogue_errors import ActionFailedError
from voice_agent.agent.gold_loan.lexicon import PHRASES
from voice_agent.agent.talk import Heard, HungUp, Opened, Silence, TalkEvent, TimeUp, Turn

LINES = st.one_of(
    st.sampled_from([phrase.replace("*", "my") for weighted in PHRASES.values() for phrase, _ in weighted]),
    st.sampled_from(
        [
            "yes", "no", "maybe", "not really", "forty grams", "twenty two carat", "18 carrot", "one lakh",
            "thirty or forty grams", "with alpha finance", "nobody", "tomorrow", "on the fifth", "in chennai",
            "98400 12345", "forty grams of twenty two carat", "hmm", "",
        ]
    ),
    st.text(max_size=30),
)  # fmt: skip
MOVES = st.one_of(
    st.tuples(st.just("say"), LINES),
    st.tuples(st.just("say and cut off"), LINES),
    st.tuples(st.just("silence"), st.none()),
    st.tuples(st.just("failure"), LINES),
    st.tuples(st.just("wait"), st.sampled_from([5.0, 45.0, 200.0])),
    st.tuples(st.just("hang up"), st.none()),
)
SENTENCE_SECONDS = 2.0


class Failing:
    """Stands in for the tools, and fails while it is told to."""

    def __init__(self, box: Any) -> None:
        self.box = box
        self.fails = False

    async def run(self, tool: Any, arguments: Any) -> Any:
        await trio.lowlevel.checkpoint()
        if self.fails:
            raise ActionFailedError("told to fail")
        return await self.box.run(tool, arguments)


class Player:
    """Plays one dialogue: speaking takes time, and time that is up is told."""

    def __init__(self, talk: Any) -> None:
        self.agent = talk.agent
        self.agent.tools.box = self.failing = Failing(self.agent.tools.box)
        self.state = self.agent.begin(trio.current_time())

    async def say(self, _: str) -> None:
        await trio.sleep(SENTENCE_SECONDS)

    async def take(self, event: TalkEvent, cut_after: float = 3600) -> None:
        turn = Turn(event=event, state=self.state, say=self.say)
        with trio.move_on_after(cut_after):
            await self.agent.reply(turn)
        self.state = turn.state

    async def pass_time(self, seconds: float) -> None:
        until = trio.current_time() + seconds
        while (due := self.agent.due(self.state)) is not None and due <= until:
            await trio.sleep_until(max(due, trio.current_time()))
            await self.take(TimeUp(trio.current_time()))
        if not self.agent.is_over(self.state):
            await trio.sleep_until(max(until, trio.current_time()))

    async def move(self, move: str, what: Any) -> None:
        now = trio.current_time()
        self.failing.fails = move == "failure"
        match move:
            case "say" | "failure":
                await self.take(Heard(what, now))
            case "say and cut off":
                await self.take(Heard(what, now), cut_after=1.0)
            case "silence":
                await self.take(Silence(now))
            case "hang up":
                await self.take(HungUp(now))
        self.failing.fails = False


async def play(make: Callable[..., Any], moves: list[tuple[str, Any]]) -> tuple[Any, float]:
    """Play a dialogue; returns its last state, and how long it took."""
    player = Player(make())
    await player.take(Opened(trio.current_time()))
    began_at = trio.current_time()
    for move, what in moves:
        await player.pass_time(what if move == "wait" else 1)
        if player.agent.is_over(player.state):
            break
        await player.move(move, what)
    # The caller has nothing more to say, and stays on the line.
    await player.pass_time(10_000)
    return player.state, trio.current_time() - began_at


# The fixture makes a new talk each time; 500 examples are the promise.
@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moves=st.lists(MOVES, max_size=40))
def test_every_dialogue_ends(gold_talk: Callable[..., Any], moves: list[tuple[str, Any]]) -> None:
    """In the final stage, before the limit of the whole talk and the last goodbye are over, with nothing left running."""
    state, seconds = trio.run(partial(play, gold_talk, moves), clock=MockClock(autojump_threshold=0))
    assert state.stage == "ended"
    assert seconds < 16 * 60


@pytest.mark.parametrize(
    "stage", ["greeting", "discovery", "qualification", "presentation", "objection", "closing"]
)
async def test_a_failure_is_apologised_for_and_the_talk_goes_on(
    gold_talk: Callable[..., Any], stage: str
) -> None:
    """Whatever was asked, in every stage that talks."""
    talk = gold_talk()
    await talk.open()
    await talk.hear("yes", "nobody", "forty grams of twenty two carat")
    talk.agent.tools.box = failing = Failing(talk.agent.tools.box)
    failing.fails = True
    talk.state = attrs.evolve(talk.state, stage=stage)
    answer = await talk.hear("how much will I get" if stage != "greeting" else "yes")
    if stage in {"presentation", "objection", "closing", "discovery", "qualification"}:
        assert "something went wrong" in " ".join(answer)
    assert not talk.agent.is_over(talk.state)
