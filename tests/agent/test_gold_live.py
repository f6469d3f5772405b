"""Prices, limits and everything else of the section ``gold`` follow the settings in force, also in a talk that runs."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import attrs
import pytest
import trio

from voice_agent.settings.current import CurrentSettings
from voice_agent.settings.fields import fields_by_key
from voice_agent.settings.schema import GoldSettings, Settings

JSON = '{"price_per_gram": "8000", "time": "2026-11-25T09:30:00+05:30"}'

CHANGES: dict[str, tuple[dict[str, Any], tuple[str, ...], str]] = {
    "company": ({"company": "Lotus Loans"}, (), "this is Lotus Loans."),
    "price_per_gram": ({"price_per_gram": 10_000.0}, ("offer",), "₹10,000 a gram"),
    "price_time": ({"price_time": "2026-11-25T10:30:00+05:30"}, ("offer",), "2026-11-25, 10:30"),
    "price_max_age_hours": ({"price_max_age_hours": 1.0}, ("offer",), "too old"),
    "loan_to_value_percent": ({"loan_to_value_percent": 50.0}, ("offer",), "₹1,64,880"),
    "rate_tiers": ({"rate_tiers": "above:13.25"}, ("offer",), "13.25 %"),
    "fee_percent": ({"fee_percent": 2.0}, ("offer",), "₹4,947"),
    "months": ({"months": 24}, ("offer",), "24 instalments"),
    "min_loan_rupees": ({"min_loan_rupees": 300_000}, ("offer",), "below the smallest"),
    "max_loan_rupees": ({"max_loan_rupees": 200_000}, ("offer",), "₹2,00,000"),
    "lender_rates": (
        {"lender_rates": "Alpha Finance=30"},
        ("no, it is alpha finance", "offer", "how much would I save"),
        "Against their 30 %",
    ),
    "branches": (
        {"branches": "Salem=7 Hill Road"},
        ("offer", "yes", "tomorrow in salem", "yes"),
        "7 Hill Road",
    ),
    "documents": ({"documents": "your passport"}, ("what documents do I need",), "bring your passport"),
    "utc_offset_minutes": ({"utc_offset_minutes": 0}, ("offer",), "2026-11-25, 04:00"),
}
OFFER = "forty grams of twenty two carat, what would I get"


@pytest.mark.parametrize(("change", "lines", "told"), CHANGES.values(), ids=CHANGES.keys())
async def test_what_is_said_follows_the_settings_in_force(
    gold_talk: Callable[..., Any],
    gold: GoldSettings,
    change: dict[str, Any],
    lines: tuple[str, ...],
    told: str,
) -> None:
    """A talk that began with other settings says what the new ones say; before, it did not."""
    for changed in (gold, attrs.evolve(gold, **change)):
        current = CurrentSettings(Settings(gold=gold))
        talk = gold_talk(lambda current=current: current.now.gold)
        opening = [] if not lines else await talk.open()
        if lines:
            await talk.hear("yes", "nobody")
        current.replace(Settings(gold=changed))
        answer = await (
            talk.open() if not lines else talk.hear(*(OFFER if line == "offer" else line for line in lines))
        )
        assert (told in " ".join((*opening, *answer))) == (changed is not gold)


async def test_feeds_follow_the_settings_in_force(
    gold_talk: Callable[..., Any],
    gold: GoldSettings,
    serve_answers: Callable[..., Any],
    write_answer: Callable[..., bytes],
) -> None:
    """Command, address, refresh and timeout: each is read when the price is asked for, and nothing waits for a restart."""
    current = CurrentSettings(Settings(gold=gold))
    talk = gold_talk(lambda: current.now.gold)
    prices = talk.agent.prices
    assert prices.current().source == "settings"

    def use(**changes: Any) -> None:
        current.replace(Settings(gold=attrs.evolve(gold, **changes)))

    use(price_command=f"echo '{JSON}'")
    assert prices.current() is None, "what another feed said is not this one's price"
    await prices.refresh()
    assert (prices.current().per_gram, prices.current().source) == (8000, "command")
    async with serve_answers(lambda _: write_answer(200, JSON.replace("8000", "8500").encode())) as (url, _):
        use(price_url=url)
        await prices.refresh()
        assert (prices.current().per_gram, prices.current().source) == (8500, "feed")
    with trio.fail_after(20):
        use(price_command="sleep 30", price_timeout_seconds=0.1)
        await prices.refresh()
    assert prices.current() is None


async def test_the_price_is_refreshed_as_often_as_the_settings_say(
    gold_talk: Callable[..., Any],
    gold: GoldSettings,
    serve_answers: Callable[..., Any],
    write_answer: Callable[..., bytes],
) -> None:
    """The agent's own task asks again and again, at the pace in force; ready when it has asked once."""
    asked = trio.Event()

    def answer(posts: list[Any]) -> bytes:
        if len(posts) > 2:
            asked.set()
        return write_answer(200, JSON.encode())

    with trio.fail_after(30):
        async with serve_answers(answer) as (url, _), trio.open_nursery() as nursery:
            talk = gold_talk(attrs.evolve(gold, price_url=url, price_refresh_seconds=1))
            await nursery.start(talk.agent.run)
            assert talk.agent.prices.current().per_gram == 8000
            await asked.wait()
            nursery.cancel_scope.cancel()


async def test_the_desk_follows_the_settings_in_force(
    gold_talk: Callable[..., Any],
    gold: GoldSettings,
    serve_answers: Callable[..., Any],
    write_answer: Callable[..., bytes],
) -> None:
    """Its address and its time limit are read when something is sent."""
    current = CurrentSettings(Settings(gold=gold))
    talk = gold_talk(lambda: current.now.gold)
    await talk.open()
    await talk.hear("yes")
    assert "can't reach a person" in (await talk.hear("I want to talk to a human"))[0]
    async with serve_answers(lambda _: write_answer(204)) as (url, posts):
        current.replace(Settings(gold=attrs.evolve(gold, desk_url=url)))
        assert "have asked for a person" in (await talk.hear("a human being please"))[0]
        assert posts[0]["kind"] == "handover"
        current.replace(Settings(gold=attrs.evolve(gold, desk_url=url, desk_timeout_seconds=0.0)))
        assert "can't tell whether" in (await talk.hear("a human being please"))[0]


def test_every_setting_of_the_section_is_tried_here() -> None:
    """None is declared live on trust."""
    tried = {
        *CHANGES, "price_command", "price_url", "price_refresh_seconds", "price_timeout_seconds", "desk_url",
        "desk_timeout_seconds",
    }  # fmt: skip
    assert tried == {field.name for field in fields_by_key(Settings).values() if field.section == "gold"}
    assert all(field.live for field in fields_by_key(Settings).values() if field.section == "gold")
    assert timedelta(hours=Settings().gold.price_max_age_hours) == timedelta(days=1)
