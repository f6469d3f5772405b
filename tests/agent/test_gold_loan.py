"""The gold-loan line: whole talks, with the figures that the settings give."""

import itertools
import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_agent.agent.customer import LENDER_NOT_TOLD, NO_LENDER, Profile
from voice_agent.agent.dialogue import HANGUP, SYSTEM_EVENTS, TALK_TIME_UP, TIMERS, State
from voice_agent.agent.gold_loan.acts import percent, rupees, weight
from voice_agent.agent.gold_loan.agent import GoldLoanAgent
from voice_agent.agent.gold_loan.lexicon import LEXICON
from voice_agent.agent.gold_loan.phrases import PHRASES
from voice_agent.agent.gold_loan.stages import FACTS, INTENTS
from voice_agent.agent.gold_loan.table import TABLE
from voice_agent.agent.gold_loan.understand import understand
from voice_agent.agent.speech_text import speech_text
from voice_agent.agent.talk import HungUp, Silence, TimeUp
from voice_agent.settings.schema import GoldSettings

TALKING = [stage.name for stage in TABLE.stages if not stage.is_final]
LENDERS = {"Alpha Finance": Decimal(18), "Beta Bank": Decimal(12)}
CITIES = {"Chennai": "12 Lake Road", "Madurai": "3 Temple Street"}
OPEN_TALK = Callable[..., Any]


async def test_a_talk_reaches_the_quote_and_a_visit(gold_talk: OPEN_TALK) -> None:
    """From the greeting to the goodbye, with the right figures, in the words of a caller."""
    talk = gold_talk()
    opening = await talk.open()
    assert "machine" in opening[1]
    assert "record" in opening[-1]
    await talk.hear("yes, go ahead", "no, with nobody", "what would I get for forty grams?")
    offer = " ".join(await talk.hear("twenty two carat"))
    for figure in (
        "₹3,29,760",
        "₹2,47,320",
        "10.5 %",
        "₹2,474",
        "12 instalments of ₹21,801",
        "₹9,000",
        "2026-11-25, 09:30",
    ):
        assert figure in offer
    assert "estimate" in offer
    assert talk.state.stage == "presentation"
    await talk.hear("yes please")
    assert talk.state.stage == "closing"
    assert await talk.hear("next tuesday, in Chennai") == ["Shall I note 2026-12-01 for your visit?"]
    last = " ".join(await talk.hear("yes"))
    assert "2026-12-01" in last
    assert "12 Lake Road" in last
    assert "could not pass that on" in last, "no desk is configured"
    await talk.hear("bye")
    assert talk.agent.is_over(talk.state)


async def test_the_figures_follow_the_price(gold_talk: OPEN_TALK, gold: GoldSettings) -> None:
    """Another price, another offer."""
    talk = gold_talk(attrs.evolve(gold, price_per_gram=10_000.0))
    await talk.open()
    offer = await talk.hear("yes", "nobody", "forty grams of twenty two carat")
    assert "₹3,66,400" in offer[0]


@pytest.mark.parametrize(
    ("changes", "now", "reason"),
    [
        ({"price_per_gram": 0.0}, datetime(2026, 11, 25, 6, tzinfo=UTC), "no price of gold is known"),
        ({}, datetime(2026, 11, 26, 6, tzinfo=UTC), "too old"),
        ({"min_loan_rupees": 5_000_000}, datetime(2026, 11, 25, 6, tzinfo=UTC), "below the smallest"),
    ],
)
async def test_without_a_fresh_price_there_is_no_figure(
    gold_talk: OPEN_TALK, gold: GoldSettings, changes: dict[str, Any], now: datetime, reason: str
) -> None:
    """No amount is said; why is; and the talk goes on."""
    talk = gold_talk(attrs.evolve(gold, **changes), now)
    await talk.open()
    answer = " ".join(await talk.hear("yes", "nobody", "forty grams of twenty two carat"))
    assert reason in answer
    assert "₹" not in answer
    assert talk.state.stage == "presentation"


async def test_who_refuses_or_does_not_answer_is_not_recorded(gold_talk: OPEN_TALK) -> None:
    """Consent is True only after a yes."""
    for lines, consent in ((["no"], False), (["yes"], True), (["what?", "hm", "hm"], False)):
        talk = gold_talk()
        await talk.open()
        await talk.hear(*lines)
        assert talk.state.stage == "discovery"
        assert talk.state.facts.consent is consent


async def test_facts_told_early_are_not_asked_again(gold_talk: OPEN_TALK) -> None:
    """Weight and purity said while the lender was asked lead straight to the offer."""
    talk = gold_talk()
    await talk.open()
    await talk.hear("yes", "forty grams, twenty two carat")
    assert talk.state.stage == "discovery"
    answer = await talk.hear("with alpha finance")
    assert talk.state.stage == "presentation"
    assert "₹3,29,760" in answer[0]


async def test_backward_steps(gold_talk: OPEN_TALK) -> None:
    """Presentation to qualification and back, objection to presentation, objection to discovery."""
    talk = gold_talk()
    await talk.open()
    await talk.hear("yes", "nobody", "forty grams of twenty two carat")
    assert "Is that right?" in (await talk.hear("am I eligible with other gold?"))[-1]
    assert talk.state.stage == "qualification"
    assert "How many grams" in (await talk.hear("no"))[-1]
    assert talk.state.facts.grams is None
    offer = await talk.hear("fifty grams, eighteen carat")
    assert "₹3,37,500" in offer[0]
    await talk.hear("that's too little")
    assert talk.state.stage == "objection"
    await talk.hear("make it sixty grams")
    assert (talk.state.stage, talk.state.facts.grams) == ("presentation", 60)
    await talk.hear("too expensive", "I want to switch my loan")
    assert (talk.state.stage, talk.state.facts.lender) == ("discovery", None)
    await talk.hear("with beta bank")
    assert (talk.state.stage, talk.state.facts.lender) == ("presentation", "Beta Bank")


async def test_a_day_is_repeated_and_can_be_put_right(gold_talk: OPEN_TALK) -> None:
    """Nothing is sent for a day that the caller did not confirm."""
    talk = gold_talk()
    await talk.open()
    await talk.hear("yes", "nobody", "forty grams of twenty two carat", "can I come next tuesday")
    assert (talk.state.stage, talk.state.facts.visit_day) == ("closing", date(2026, 12, 1))
    assert await talk.hear("no") == ["Which day suits you?"]
    assert talk.state.facts.visit_day is None
    assert await talk.hear("tomorrow") == ["Shall I note 2026-11-26 for your visit?"]
    assert "2026-11-26" in (await talk.hear("yes"))[0]
    assert talk.state.stage == "farewell"


async def test_rates_are_told_from_the_settings(gold_talk: OPEN_TALK, gold: GoldSettings) -> None:
    """Every tier and the fee, and then the stage's own question again; also while facts are gathered."""
    talk = gold_talk(attrs.evolve(gold, rate_tiers="200000:12, above:8.25", fee_percent=0.5))
    await talk.open()
    assert await talk.hear("yes", "what is your interest rate?") == [
        "Our interest a year is 12 % up to ₹2,00,000, 8.25 % for larger loans.",
        "The fee is 0.5 % of the loan.",
        "Do you have a gold loan with another lender now? If so, with whom?",
    ]
    assert talk.state.stage == "discovery"


async def test_savings_are_told_only_where_the_rate_is_known(gold_talk: OPEN_TALK) -> None:
    """Of the settings, or what the caller says."""
    talk = gold_talk()
    await talk.open()
    await talk.hear("yes", "a jeweller", "forty grams of twenty two carat")
    assert "don't know what you pay" in (await talk.hear("how much would I save?"))[0]
    told = await talk.hear("they take two percent a month", "how much would I save?")
    assert re.search(r"24 % a year you would save about ₹[\d,]+ over 12 months", told[0])


async def test_silence_is_asked_after_and_then_left(gold_talk: OPEN_TALK) -> None:
    """Twice "are you there", then goodbye; time ends the rest."""
    talk = gold_talk()
    await talk.open()
    assert "still there" in (await talk.tell(Silence(10)))[0]
    assert "still there" in (await talk.tell(Silence(20)))[0]
    assert "Goodbye" in (await talk.tell(Silence(30)))[-1]
    assert talk.agent.due(talk.state) == 40
    await talk.tell(TimeUp(40))
    assert talk.agent.is_over(talk.state)


async def test_hang_up_ends_it_without_a_word(gold_talk: OPEN_TALK) -> None:
    """At every stage."""
    for stage in TALKING:
        talk = gold_talk()
        await talk.open()
        talk.state = attrs.evolve(talk.state, stage=stage)
        assert await talk.tell(HungUp(1)) == []
        assert talk.agent.is_over(talk.state)


def test_every_intent_is_found_or_an_answer() -> None:
    """What is declared is understood: by the lexicon, or as yes and no."""
    assert {*LEXICON.intents, "affirmative", "negative"} == set(INTENTS)
    assert set(TABLE.all_events) == {*INTENTS, FACTS, *SYSTEM_EVENTS}


def test_every_phrase_is_used_and_figures_come_from_tools() -> None:
    """No phrase has a figure of its own, but for the purities that the law of gold gives."""
    for name, sentences in PHRASES.items():
        for sentence in sentences:
            assert not re.search(r"\d", sentence) or name == "ask karat"
            assert len(sentence) < 140, "short sentences"


SAID = {
    "what is the interest rate": "interest rate",
    "I need a gold loan": "loan inquiry",
    "how much can I get for my gold": "loan inquiry",
    "am I eligible": "eligibility",
    "I want to switch my loan to you": "switch lender",
    "how much would I save with you": "switch lender",
    "that's too expensive": "objection",
    "is my gold safe with you": "objection",
    "I'm not interested": "objection",
    "I don't want a loan": "objection",
    "let me think about it": "objection",
    "can I come to your branch": "schedule visit",
    "where is your nearest branch": "schedule visit",
    "what documents do I need to bring": "documentation",
    "do you want my aadhaar": "documentation",
    "I want to talk to a human being": "person",
    "can you repeat that please": "repeat",
    "okay thank you bye": "farewell",
    "hello": "greeting",
    "yes": "affirmative",
    "sounds good": "affirmative",
    "no thanks": "negative",
    "not really": "negative",
    "forty grams": "facts",
    "no, fifty grams": "facts",
    "yes, eighteen carat": "facts",
    "banana": "unclear",
    "": "unclear",
    "maybe": "unclear",
}


def meant(text: str, stage: str = "presentation", facts: Profile | None = None) -> tuple[str, Profile]:
    """Understand in a stage."""
    state = State(stage=stage, facts=facts or Profile(grams=Decimal(10), karat=22), began_at=0, entered_at=0)
    found = understand(text, state, lenders=LENDERS, cities=CITIES, today=date(2026, 11, 25))
    return found.event, found.facts


@pytest.mark.parametrize(("text", "event"), SAID.items())
def test_what_is_wanted(text: str, event: str) -> None:
    """Phrasings of each intent, in the presentation."""
    assert meant(text)[0] == event


@pytest.mark.parametrize(
    ("text", "stage", "known", "learnt"),
    [
        ("forty", "qualification", {}, {"grams": Decimal(40)}),
        ("twenty two", "qualification", {}, {"grams": Decimal(22)}),
        ("twenty two", "qualification", {"grams": Decimal(40)}, {"karat": 22}),
        ("forty grams twenty two", "qualification", {}, {"grams": Decimal(40), "karat": 22}),
        ("twenty", "qualification", {"grams": Decimal(40)}, {}),
        ("forty", "discovery", {}, {}),
        ("one twenty grams", "qualification", {}, {}),
        ("nobody", "discovery", {}, {"lender": NO_LENDER}),
        ("alfa finance", "discovery", {}, {"lender": "Alpha Finance"}),
        ("some bank", "discovery", {}, {"lender": "a bank"}),
        ("I need two lakh", "qualification", {}, {"wished_rupees": Decimal(200_000)}),
        ("my number is 98400 12345", "closing", {}, {"telephone": "9840012345"}),
        ("tuesday in madurai", "closing", {}, {"visit_day": date(2026, 12, 1), "city": "Madurai"}),
        ("my first time", "discovery", {}, {"lender": NO_LENDER}),
    ],
)
def test_what_is_told(text: str, stage: str, known: dict[str, Any], learnt: dict[str, Any]) -> None:
    """Facts by what was asked; what is unsure teaches nothing."""
    facts = Profile(**known)
    assert meant(text, stage, facts)[1] == attrs.evolve(facts, **learnt)


def test_a_caller_who_does_not_tell_the_lender() -> None:
    """Is noted as not told; nothing is invented."""
    state = attrs.evolve(TABLE.start(0).state, stage="discovery", tries=2)
    step = TABLE.step(state, "unclear", 1)
    assert (step.state.stage, step.state.facts.lender) == ("qualification", LENDER_NOT_TOLD)


def test_every_stage_ends_by_time_alone() -> None:
    """Whoever says nothing at all, wherever: the table's own times lead to the end, within a minute of the whole talk's limit."""
    for stage in TALKING:
        state = attrs.evolve(TABLE.start(0).state, stage=stage)
        while (due := TABLE.due(state)) is not None:
            state = TABLE.step(state, due.event, due.at).state
            assert due.at <= TABLE.limit_seconds + 60
        assert TABLE.is_over(state)


def test_the_whole_talk_is_limited() -> None:
    """A caller who goes round in circles is told that time is up, then goodbye."""
    state = attrs.evolve(TABLE.start(0, Profile(grams=Decimal(40), karat=22)).state, stage="presentation")
    for at, event in zip(range(0, 2000, 10), itertools.cycle(["objection", "loan inquiry"])):
        due = TABLE.due(state)
        assert due is not None
        if due.at <= at:
            assert due.event == TALK_TIME_UP
            step = TABLE.step(state, due.event, due.at)
            assert step.actions == ("time is over", "goodbye")
            assert step.state.stage == "farewell"
            return
        state = TABLE.step(state, event, at).state
    raise AssertionError("the talk never ended")


EVENTS = st.sampled_from([event for event in TABLE.all_events if event not in {*TIMERS, HANGUP}])
PROFILES = st.builds(
    Profile,
    grams=st.none() | st.decimals("0.01", 500, places=2),
    karat=st.sampled_from([None, 22, 18]),
    lender=st.sampled_from([None, NO_LENDER, "Alpha Finance"]),
    visit_day=st.sampled_from([None, date(2026, 12, 1)]),
)


@given(st.lists(st.tuples(EVENTS, PROFILES), max_size=60), st.sampled_from(TALKING))
def test_any_events_from_any_stage_lead_on(events: list[tuple[str, Profile]], stage: str) -> None:
    """Whatever comes, in whatever order, with whatever facts: exactly one row holds, until the end."""
    state = attrs.evolve(TABLE.start(0).state, stage=stage)
    for at, (event, facts) in enumerate(events):
        if TABLE.is_over(state):
            return
        holding = [
            row
            for row in TABLE.cells[state.stage, event]
            if TABLE.holds(row, attrs.evolve(state, facts=facts))
        ]
        assert len(holding) == 1
        state = TABLE.step(state, event, at, facts).state


def written(figures: Mapping[str, Any]) -> list[str]:
    """Return how figures are written."""
    return [
        rupees(Decimal(figures["rupees"])),
        weight(Decimal(figures["grams"])),
        percent(Decimal(figures["rate"])),
    ]


def test_how_figures_are_written_and_said() -> None:
    """As in India; and a voice says the same."""
    assert written({"rupees": "1234567", "grams": "11.6638038", "rate": "10.50"}) == [
        "₹12,34,567",
        "11.66 g",
        "10.5 %",
    ]
    assert written({"rupees": "120000", "grams": "40", "rate": "9"}) == ["₹1,20,000", "40 g", "9 %"]
    assert [rupees(Decimal(n)) for n in ("5", "999", "1000", "99999.5", "100000000")] == [
        "₹5", "₹999", "₹1,000", "₹99,999.50", "₹10,00,00,000",
    ]  # fmt: skip
    assert speech_text(f"{rupees(Decimal(247_320))} at {percent(Decimal('10.5'))}") == (
        "two lakh forty seven thousand three hundred twenty rupees at ten point five percent"
    )


def test_the_agent_does_what_its_table_asks_for(gold: GoldSettings) -> None:
    """Every action has an act, and every act is asked for: else there is no agent."""
    assert GoldLoanAgent(lambda: gold).table is TABLE
