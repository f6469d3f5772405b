"""Tools: typed, limited in time, honest about what was sent; and price feeds that fail in every way."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from voice_agent.agent.dialogue_errors import ActionFailedError, PriceUnavailableError
from voice_agent.agent.gold_loan.tools import GoldLoanTools
from voice_agent.agent.prices import MAX_ANSWER_BYTES, Prices, fetch_price, parse_price
from voice_agent.agent.tools import Tool, Toolbox
from voice_agent.core.errors import InvalidFieldError
from voice_agent.settings.schema import GoldSettings

NOW = datetime(2026, 11, 25, 6, 0, tzinfo=UTC)
Serve = Callable[..., Any]
Answer = Callable[..., bytes]


def tools(gold: GoldSettings) -> GoldLoanTools:
    """The tools, with settings that stay."""
    return GoldLoanTools(lambda: gold, Prices(lambda: gold), lambda: NOW)


async def test_tools_are_called_with_json(gold: GoldSettings) -> None:
    """By name, with text for decimals, and back: what a language model or HTTP would do."""
    box = tools(gold).box
    assert set(box.tools) == {"price", "eligibility", "saving", "branch", "visit", "lead", "handover"}
    told = await box.call("eligibility", {"grams": "40", "karat": 22})
    assert json.loads(json.dumps(told))["quote"]["limit"] == "247320"
    assert told["quote"]["price"] == {
        "per_gram": "9000.0",
        "at": "2026-11-25T09:30:00+05:30",
        "source": "settings",
    }
    saved = await box.call(
        "saving", {"grams": "40", "karat": 22, "wished_rupees": "120000", "lender": "Alpha Finance"}
    )
    assert (saved["saving"], saved["their_rate_percent"]) == ("3885", "18")
    assert (await box.call("price", {}))["price"]["per_gram"] == "9000.0"
    assert await box.call("branch", {"city": "chenai"}) == {"city": "Chennai", "address": "12 Lake Road"}
    assert await box.call("branch", {"city": "Delhi"}) == {"city": None, "address": None}


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("sell", {}),
        ("eligibility", {}),
        ("eligibility", {"grams": 40.0, "karat": 22}),
        ("eligibility", {"grams": "forty", "karat": 22}),
        ("eligibility", {"grams": "NaN", "karat": 22}),
        ("eligibility", {"grams": True, "karat": 22}),
        ("eligibility", {"grams": "40", "karat": "22"}),
        ("eligibility", {"grams": "40", "karat": 22, "colour": "red"}),
        ("visit", {"day": "soon"}),
        ("visit", {"day": 5}),
        ("price", []),
        ("price", None),
        ("branch", "Chennai"),
    ],
)
async def test_arguments_that_are_wrong_are_refused(gold: GoldSettings, name: str, arguments: object) -> None:
    """A typed error, before anything is done."""
    with pytest.raises(InvalidFieldError):
        await tools(gold).box.call(name, arguments)


async def test_a_tool_has_its_time(autojump_clock: trio.testing.MockClock) -> None:
    """What takes longer is cancelled, and an error says so."""

    @attrs.frozen
    class Nothing:
        pass

    async def never(_: Nothing) -> Nothing:
        await trio.sleep_forever()

    tool = Tool(
        name="never", purpose="", arguments=Nothing, result=Nothing, do=never, limit_seconds=lambda: 7
    )
    with pytest.raises(ActionFailedError, match="longer than 7 s"):
        await Toolbox(tool).run(tool, Nothing())
    assert trio.current_time() == 7
    with pytest.raises(ValueError, match="one name"):
        Toolbox(tool, tool)


VISIT = {"day": "2026-12-01", "city": "Chennai", "telephone": "9840012345"}


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(200, "sent"), (204, "sent"), (302, "not sent"), (404, "not sent"), (503, "unknown")],
)
async def test_what_the_desk_answers_is_what_is_told(
    gold: GoldSettings, serve_answers: Serve, write_answer: Answer, status: int, outcome: str
) -> None:
    """Sent is what the desk confirmed; what a broken desk did with it, nobody knows."""
    with trio.fail_after(30):
        async with serve_answers(lambda _: write_answer(status)) as (url, posts):
            told = await tools(attrs.evolve(gold, desk_url=url)).box.call("visit", VISIT)
    assert told["outcome"] == outcome
    assert posts == [{"kind": "visit", "at": "2026-11-25T06:00:00+00:00", **VISIT}]


async def test_without_a_desk_nothing_is_sent(gold: GoldSettings) -> None:
    """Not configured, or nobody there."""
    assert (await tools(gold).box.call("lead", {}))["outcome"] == "not sent"
    nobody = attrs.evolve(gold, desk_url="http://127.0.0.1:9/")
    assert (await tools(nobody).box.call("handover", {}))["outcome"] == "not sent"


async def test_a_desk_that_breaks_off_may_have_it(gold: GoldSettings, serve_answers: Serve) -> None:
    """No answer is no refusal."""
    with trio.fail_after(30):
        async with serve_answers(lambda _: b"HTTP/1.1 2") as (url, _):
            told = await tools(attrs.evolve(gold, desk_url=url)).box.call("visit", VISIT)
    assert told["outcome"] == "unknown"


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (204, "I have passed on that you come on 2026-12-01."),
        (404, "could not pass that on"),
        (500, "can't tell whether"),
    ],
)
async def test_a_visit_is_said_to_be_sent_when_it_was(
    gold_talk: Callable[..., Any],
    gold: GoldSettings,
    serve_answers: Serve,
    write_answer: Answer,
    status: int,
    sentence: str,
) -> None:
    """In words, at the end of a talk."""
    with trio.fail_after(30):
        async with serve_answers(lambda _: write_answer(status)) as (url, _):
            talk = gold_talk(attrs.evolve(gold, desk_url=url))
            await talk.open()
            said = await talk.hear(
                "yes", "nobody", "forty grams of twenty two carat", "yes", "next tuesday", "yes"
            )
    assert sentence in said[0]


async def test_a_caller_with_a_number_may_be_called_back(
    gold_talk: Callable[..., Any], gold: GoldSettings, serve_answers: Serve, write_answer: Answer
) -> None:
    """Who doesn't want a visit leaves the number that they told, and nobody else's."""
    with trio.fail_after(30):
        async with serve_answers(lambda _: write_answer(200)) as (url, posts):
            talk = gold_talk(attrs.evolve(gold, desk_url=url))
            await talk.open()
            await talk.hear("yes", "nobody", "forty grams of twenty two carat", "my number is 98400 12345")
            said = await talk.hear("yes", "no thanks")
    assert "may call you" in said[1]
    assert (posts[0]["kind"], posts[0]["telephone"], posts[0]["segment"]) == ("lead", "9840012345", "new")


@pytest.mark.parametrize(
    "answer",
    [
        b"", b"9000", b"[]", b"{}", b'{"price_per_gram": 9000}', b'{"price_per_gram": true, "time": "2026-11-25T09:30:00Z"}',
        b'{"price_per_gram": NaN, "time": "2026-11-25T09:30:00Z"}',
        b'{"price_per_gram": "NaN", "time": "2026-11-25T09:30:00Z"}',
        b'{"price_per_gram": -1, "time": "2026-11-25T09:30:00Z"}',
        b'{"price_per_gram": 1e9, "time": "2026-11-25T09:30:00Z"}',
        b'{"price_per_gram": 9000, "time": "2026-11-25T09:30:00"}',
        b'{"price_per_gram": 9000, "time": "today"}',
        b'{"price_per_gram": 9000, "time": 5}',
        b"\xff\xfe",
        b"[" * 100_000,
    ],
)  # fmt: skip
def test_what_is_no_price_is_refused(answer: bytes) -> None:
    """A typed error, and the old price stays."""
    with pytest.raises(PriceUnavailableError):
        parse_price(answer, "feed")


@pytest.mark.parametrize("number", ['"9123.50"', "9123.50", "9123.5"])
def test_a_price_is_read_exactly(number: str) -> None:
    """As a decimal, whether it comes as text or as a number."""
    price = parse_price(
        f'{{"price_per_gram": {number}, "time": "2026-11-25T09:30:00+05:30"}}'.encode(), "feed"
    )
    assert price.per_gram == Decimal("9123.50")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("false", "status 1"),
        ("/nonexistent/x", "can't be run"),
        ("echo hello", "is no price"),
        ("yes", "within"),
    ],
)
async def test_a_price_command_that_fails(
    gold: GoldSettings, tmp_path: Path, command: str, words: str
) -> None:
    """Exit status, no such program, nonsense, output without end: an error that says which, in time."""
    settings = attrs.evolve(
        gold, price_command=command, price_timeout_seconds=0.3 if command == "yes" else 10
    )
    with trio.fail_after(30), pytest.raises(PriceUnavailableError, match=words):
        await fetch_price(settings)


async def test_a_price_feed_that_fails(
    gold: GoldSettings, serve_answers: Serve, write_answer: Answer
) -> None:
    """A status, too much, a broken answer, nobody there."""
    for answer, words in (
        (write_answer(500), "status 500"),
        (write_answer(200, b" " * (MAX_ANSWER_BYTES + 1)), "over 4096 bytes"),
        (b"HTTP/1.1 2", "can't be reached"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", "can't be reached"),
    ):
        with trio.fail_after(30):
            async with serve_answers(lambda _, answer=answer: answer) as (url, _):
                with pytest.raises(PriceUnavailableError, match=words):
                    await fetch_price(attrs.evolve(gold, price_url=url))
    with pytest.raises(PriceUnavailableError, match="can't be reached"):
        await fetch_price(attrs.evolve(gold, price_url="http://127.0.0.1:9/"))


async def test_a_failed_refresh_leaves_the_old_price(
    gold: GoldSettings, serve_answers: Serve, write_answer: Answer
) -> None:
    """How old it may be, the offer decides."""
    body = b'{"price_per_gram": 9100, "time": "2026-11-25T09:30:00+05:30"}'
    with trio.fail_after(30):
        async with serve_answers(lambda posts: write_answer(200 if len(posts) == 1 else 500, body)) as (
            url,
            posts,
        ):
            settings = attrs.evolve(gold, price_url=url)
            prices = Prices(lambda: settings)
            await prices.refresh()
            await prices.refresh()
            assert len(posts) == 2
            price = prices.current()
    assert price is not None
    assert price.per_gram == 9100
