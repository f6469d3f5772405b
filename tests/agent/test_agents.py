"""Which agent a setting names, and the two that follow no table."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from voice_agent.agent.agents import make_agent
from voice_agent.agent.dialogue import Row, Stage, Table
from voice_agent.agent.dialogue_errors import AgentFactoryError, DialogueTableError
from voice_agent.agent.gold_loan.agent import GoldLoanAgent
from voice_agent.agent.gold_loan.table import TABLE
from voice_agent.agent.plain_agents import Echo, Nobody
from voice_agent.agent.table_agent import TableAgent, Understood
from voice_agent.agent.talk import HungUp, Silence, Turn
from voice_agent.settings.schema import AgentSettings, Settings


def made(name: str) -> Any:
    """Make the agent of a setting."""
    settings = Settings(agent=AgentSettings(factory=name))
    return make_agent(lambda: settings)


@pytest.mark.parametrize(("name", "kind"), [("none", Nobody), ("echo", Echo), ("gold_loan", GoldLoanAgent)])
def test_the_agents_that_ship(name: str, kind: type) -> None:
    """By their short names; nobody is the default."""
    assert isinstance(made(name), kind)
    assert Settings().agent.factory == "none"


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of an integrator's, with factories of many kinds."""
    (tmp_path / "integrators_module.py").write_text(
        "from voice_agent.agent.plain_agents import Echo\n"
        "def make():\n    return Echo()\n"
        "def needs(argument):\n    return Echo()\n"
        "def wrong():\n    return object()\n"
        "number = 5\n"
    )
    (tmp_path / "broken_module.py").write_text("import nothing_of_that_name\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "integrators_module"
    sys.modules.pop("integrators_module", None)


def test_an_integrators_factory(module: str) -> None:
    """Named by module and function."""
    assert isinstance(made(f"{module}:make"), Echo)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gold", "must be none, echo, gold_loan, chat, or package.module:factory"),
        (":make", "must be none"),
        ("nowhere_at_all:make", "can't be imported: No module named 'nowhere_at_all'"),
        ("broken_module:make", "can't be imported: No module named 'nothing_of_that_name'"),
        ("integrators_module:nothing", "integrators_module has no nothing"),
        ("integrators_module:needs", "can't be called without arguments"),
        ("integrators_module:number", "can't be called without arguments"),
        ("integrators_module:wrong", "is no agent: it has no begin, reply, due, is_over, run"),
    ],
)
def test_a_factory_that_makes_no_agent(module: str, name: str, words: str) -> None:
    """An operator's error that names the setting and says what is wrong."""
    with pytest.raises(AgentFactoryError) as refused:
        made(name)
    assert words in refused.value.message
    assert refused.value.field == "agent.factory"


async def test_nobody_says_nothing(talk_with: Callable[..., Any]) -> None:
    """Whatever happens."""
    talk = talk_with(Nobody())
    await talk.open()
    await talk.hear("hello", "is anybody there?")
    await talk.tell(Silence(9))
    assert talk.said == []
    assert talk.agent.due(talk.state) is None
    assert not talk.agent.is_over(talk.state)


async def test_echo_says_the_same(talk_with: Callable[..., Any]) -> None:
    """Word for word; empty words are not answered; a hang-up ends it."""
    talk = talk_with(Echo())
    assert await talk.open() == []
    assert await talk.hear("Hello there.") == ["Hello there."]
    assert await talk.hear("  ") == []
    assert not talk.agent.is_over(talk.state)
    await talk.tell(HungUp(9))
    assert talk.agent.is_over(talk.state)


@pytest.mark.parametrize("name", ["none", "echo", "gold_loan"])
async def test_agents_are_ready_when_they_say_so(name: str) -> None:
    """`run` starts, and ends with its nursery."""
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            await nursery.start(made(name).run)
            nursery.cancel_scope.cancel()


async def test_effects_wait_until_the_turn_is_settled(gold_talk: Callable[..., Any]) -> None:
    """A turn that is prepared while the caller may speak on sends nothing, and is forgotten when it is cancelled."""
    talk = gold_talk()
    await talk.open()
    await talk.hear("yes", "nobody", "forty grams of twenty two carat", "yes", "next tuesday")
    sent: list[object] = []

    async def send(_: object, arguments: object) -> None:
        sent.append(arguments)

    talk.agent.tools.send = send
    before = talk.state
    from voice_agent.agent.talk import Heard

    async def say(_: str) -> None:
        await trio.lowlevel.checkpoint()

    turn = Turn(event=Heard("yes", 100), state=before, say=say, settled=trio.sleep_forever)
    with trio.move_on_after(0.05):
        await talk.agent.reply(turn)
    assert sent == []
    assert talk.state is before
    assert turn.state.stage == "farewell", "decided, for the seat to keep or to forget"


def test_a_table_and_its_acts_must_fit(gold_talk: Callable[..., Any]) -> None:
    """An action that nobody does, or one that is never asked for, is found when the agent is made."""
    with pytest.raises(DialogueTableError, match="ask consent"):
        TableAgent(TABLE, understand=lambda _, state: Understood("unclear", state.facts), acts={"sing": "la"})


async def test_an_act_may_be_a_sentence_with_facts(talk_with: Callable[..., Any]) -> None:
    """Braces stand for facts."""
    import attrs

    @attrs.frozen
    class Facts:
        name: str | None = None

    table = Table(
        name="name",
        facts=Facts,
        limit_seconds=9,
        events=("told",),
        stages=(Stage(name="ask", limit_seconds=5, question="ask"), Stage(name="end", is_final=True)),
        rows=(Row(stages="ask", events="told", to="end", do=("hello",)),),
    )
    agent = TableAgent(
        table,
        understand=lambda text, _: Understood("told", Facts(text)),
        acts={"ask": "Who is there?", "hello": "Hello, {name}."},
    )
    talk = talk_with(agent)
    assert await talk.open() == ["Who is there?"]
    assert await talk.hear("Asha") == ["Hello, Asha."]
    assert agent.due(talk.state) is None
