"""The price of gold: from the settings, or fetched again and again by a command or from an address.

A feed answers with JSON: ``{"price_per_gram": "9123.50", "time": "2026-11-25T09:30:00+05:30"}``; the price is of pure gold, in
rupees, as text or number. What was fetched last stays until something newer comes: how old it may be, the offer decides.
"""

import json
import shlex
import subprocess
from collections.abc import Callable
from decimal import Decimal
from typing import Final, NoReturn

import httpx
import structlog
import trio

from voice_agent.agent.dialogue_errors import PriceUnavailableError
from voice_agent.agent.offer import Price
from voice_agent.core.fetching import fetch
from voice_agent.core.units import KIB
from voice_agent.settings.gold_values import decimal_of, price_time
from voice_agent.settings.schema import GoldSettings

MAX_ANSWER_BYTES: Final = 4 * KIB
MAX_PRICE: Final = Decimal(10_000_000)

log: Final = structlog.get_logger(__name__)


class Prices:
    """What gold costs now, as far as anybody knows. ``settings`` is asked each time, so that a change takes effect."""

    def __init__(self, settings: Callable[[], GoldSettings]) -> None:
        self._settings = settings
        self._fetched: tuple[str, Price] | None = None

    def current(self) -> Price | None:
        """Return the price that was fetched last from the feed that is configured now, or that of the settings."""
        gold: GoldSettings = self._settings()
        feed = gold.price_command or gold.price_url
        if feed:
            return self._fetched[1] if self._fetched is not None and self._fetched[0] == feed else None
        if not gold.price_per_gram:
            return None
        return Price(decimal_of(gold.price_per_gram), price_time(gold.price_time), "settings")

    async def refresh(self) -> None:
        """Fetch the price, where a feed is configured. A failure is logged, and leaves what came last."""
        gold: GoldSettings = self._settings()
        feed = gold.price_command or gold.price_url
        if not feed:
            return
        try:
            self._fetched = (feed, await fetch_price(gold))
        except PriceUnavailableError as error:
            log.warning("price_unavailable", reason=error.message)

    async def run(self) -> NoReturn:
        """Refresh for ever, as often as the settings say, from one such time on: whoever starts this has asked already."""
        while True:
            gold: GoldSettings = self._settings()
            await trio.sleep(gold.price_refresh_seconds)
            await self.refresh()


async def fetch_price(gold: GoldSettings) -> Price:
    """Ask the feed once.

    Raises:
        PriceUnavailableError: it failed, took too long, or gave no price.
    """
    try:
        with trio.fail_after(gold.price_timeout_seconds):
            if gold.price_command:
                return parse_price(await _output(gold.price_command), "command")
            return parse_price(await _body(gold), "feed")
    except trio.TooSlowError:
        raise PriceUnavailableError(f"no price came within {gold.price_timeout_seconds:g} s") from None


def parse_price(answer: bytes, source: str) -> Price:
    """Read what a feed answers.

    Raises:
        PriceUnavailableError: it is no price, or one that can't be.
    """
    try:
        said = json.loads(answer, parse_float=Decimal, parse_constant=_refuse)
        per_gram, time = said["price_per_gram"], said["time"]
        if isinstance(per_gram, bool) or not isinstance(per_gram, int | str | Decimal):
            raise TypeError  # noqa: TRY301 - one way out for all that is wrong
        price = Price(Decimal(per_gram), price_time(time), source)
    except (ArithmeticError, LookupError, RecursionError, TypeError, ValueError):
        raise PriceUnavailableError(
            "the feed's answer is no price; docs/dialogue.md says what it must be"
        ) from None
    if not (price.per_gram.is_finite() and 0 < price.per_gram <= MAX_PRICE):
        raise PriceUnavailableError("the feed's price is out of range")
    return price


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


async def _output(command: str) -> bytes:
    try:
        done = await trio.run_process(
            shlex.split(command), capture_stdout=True, stderr=subprocess.DEVNULL, check=False
        )
    except OSError as error:
        raise PriceUnavailableError(f"the price command can't be run: {error.strerror}") from None
    if done.returncode:
        raise PriceUnavailableError(f"the price command ended with status {done.returncode}")
    return _bounded(bytes(done.stdout))


async def _body(gold: GoldSettings) -> bytes:
    try:
        # The deadline around this holds for the whole.
        fetched = await fetch(
            gold.price_url, timeout_seconds=gold.price_timeout_seconds, max_bytes=MAX_ANSWER_BYTES
        )
    except httpx.HTTPError as error:
        raise PriceUnavailableError(f"the price feed can't be reached ({type(error).__name__})") from None
    if fetched.status != httpx.codes.OK:
        raise PriceUnavailableError(f"the price feed answered with status {fetched.status}")
    return _bounded(fetched.body)


def _bounded(answer: bytes) -> bytes:
    if len(answer) > MAX_ANSWER_BYTES:
        raise PriceUnavailableError(f"the feed's answer is over {MAX_ANSWER_BYTES} bytes")
    return answer
