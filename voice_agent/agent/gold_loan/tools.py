"""What the gold-loan line does for a caller: price, eligibility, saving, branch, visit, lead, a person.

Each is typed, has a time limit, and is honest: what was not sent is told as not sent, and what may or may not have arrived as
that.
"""

from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from functools import partial
from typing import Any, Final

import attrs
import httpx
import structlog
import trio

from voice_agent.agent.customer import Profile
from voice_agent.agent.dialogue_errors import ActionFailedError
from voice_agent.agent.offer import NoQuote, Price, Quote, Terms, price_fault, quote
from voice_agent.agent.prices import Prices
from voice_agent.agent.tools import CONVERTER, Tool, Toolbox
from voice_agent.agent.understanding.names import read_name
from voice_agent.settings.gold_values import branches
from voice_agent.settings.schema import GoldSettings

RECKONING_SECONDS: Final = 1.0
"""For what only reckons; it takes well under a millisecond."""

log: Final = structlog.get_logger(__name__)


@attrs.frozen
class NoArguments:
    """Nothing is asked for."""


@attrs.frozen(kw_only=True)
class PriceResult:
    """The price that quotes are made from; without one, why."""

    price: Price | None
    reason: str = ""


@attrs.frozen(kw_only=True)
class EligibilityArguments:
    """Gold, and what is wished; amounts in rupees."""

    grams: Decimal
    karat: int
    wished_rupees: Decimal | None = None
    lender: str | None = None
    lender_rate_percent: Decimal | None = None


@attrs.frozen(kw_only=True)
class EligibilityResult:
    """An estimate, or why there is none."""

    quote: Quote | None
    reason: str = ""


@attrs.frozen(kw_only=True)
class SavingResult:
    """What would be saved against the current lender, and the quote that says so; None where their rate is not known."""

    saving: Decimal | None
    their_rate_percent: Decimal | None
    quote: Quote | None
    reason: str = ""


@attrs.frozen(kw_only=True)
class BranchArguments:
    """A city, as it was said."""

    city: str


@attrs.frozen(kw_only=True)
class BranchResult:
    """The branch there; None where there is none."""

    city: str | None
    address: str | None


@attrs.frozen(kw_only=True)
class VisitArguments:
    """A visit that a caller wants to make."""

    day: date
    city: str | None = None
    telephone: str | None = None


@attrs.frozen(kw_only=True)
class LeadArguments:
    """A caller who may be called back."""

    telephone: str | None = None
    segment: str = "unknown"
    city: str | None = None
    wished_rupees: Decimal | None = None
    language: str = "en"


@attrs.frozen(kw_only=True)
class HandoverArguments:
    """A caller who wants a person."""

    telephone: str | None = None
    stage: str = ""


class Outcome(Enum):
    """What became of something that was to be sent."""

    SENT = "sent"
    """The desk said that it has it."""
    NOT_SENT = "not sent"
    UNKNOWN = "unknown"
    """It may or may not have arrived."""


@attrs.frozen(kw_only=True)
class Delivery:
    """What became of it, and why."""

    outcome: Outcome
    reason: str = ""


class GoldLoanTools:
    """The tools, with the settings that are in force when each is used. ``now`` gives the time with its offset."""

    def __init__(
        self, settings: Callable[[], GoldSettings], prices: Prices, now: Callable[[], datetime]
    ) -> None:
        self._settings = settings
        self._prices = prices
        self._now = now
        self.price: Final = Tool(
            name="price",
            purpose="Tell the price of pure gold that quotes are made from, and when it was read.",
            arguments=NoArguments,
            result=PriceResult,
            do=self._price,
            limit_seconds=_reckoning_seconds,
            is_pure=True,
        )
        self.eligibility: Final = Tool(
            name="eligibility",
            purpose="Estimate what may be lent on gold, and what that costs.",
            arguments=EligibilityArguments,
            result=EligibilityResult,
            do=self._eligibility,
            limit_seconds=_reckoning_seconds,
            is_pure=True,
        )
        self.saving: Final = Tool(
            name="saving",
            purpose="Compare a loan with the same loan at the current lender's rate.",
            arguments=EligibilityArguments,
            result=SavingResult,
            do=self._saving,
            limit_seconds=_reckoning_seconds,
            is_pure=True,
        )
        self.branch: Final = Tool(
            name="branch",
            purpose="Find the branch in a city.",
            arguments=BranchArguments,
            result=BranchResult,
            do=self._branch,
            limit_seconds=_reckoning_seconds,
            is_pure=True,
        )
        self.visit: Final = Tool(
            name="visit",
            purpose="Send the desk a visit that a caller wants to make.",
            arguments=VisitArguments,
            result=Delivery,
            do=partial(self._send, "visit"),
            limit_seconds=self._sending_seconds,
        )
        self.lead: Final = Tool(
            name="lead",
            purpose="Send the desk a caller who may be called back.",
            arguments=LeadArguments,
            result=Delivery,
            do=partial(self._send, "lead"),
            limit_seconds=self._sending_seconds,
        )
        self.handover: Final = Tool(
            name="handover",
            purpose="Ask the desk for a person.",
            arguments=HandoverArguments,
            result=Delivery,
            do=partial(self._send, "handover"),
            limit_seconds=self._sending_seconds,
        )
        self.box: Final = Toolbox(
            self.price, self.eligibility, self.saving, self.branch, self.visit, self.lead, self.handover
        )

    async def send(self, tool: Tool[Any, Delivery], arguments: Any) -> Delivery:
        """Use a tool that sends; too late is an unknown outcome, not an error."""
        try:
            return await self.box.run(tool, arguments)
        except ActionFailedError as error:
            log.warning("desk_did_not_answer", tool=tool.name, reason=error.message)
            return Delivery(outcome=Outcome.UNKNOWN, reason="the desk did not answer in time")

    def _sending_seconds(self) -> float:
        gold: GoldSettings = self._settings()
        return gold.desk_timeout_seconds

    async def _price(self, _: NoArguments) -> PriceResult:
        price = self._prices.current()
        fault = price_fault(price, Terms.of(self._settings()), self._now())
        return PriceResult(price=price if fault is None else None, reason=fault.value if fault else "")

    async def _eligibility(self, arguments: EligibilityArguments) -> EligibilityResult:
        terms, price = Terms.of(self._settings()), self._prices.current()
        profile = Profile(
            grams=arguments.grams,
            karat=arguments.karat,
            wished_rupees=arguments.wished_rupees,
            lender=arguments.lender,
            lender_rate_percent=arguments.lender_rate_percent,
        )
        found = quote(profile, terms, price, self._now())
        if isinstance(found, NoQuote):
            return EligibilityResult(quote=None, reason=found.reason.value)
        return EligibilityResult(quote=found)

    async def _saving(self, arguments: EligibilityArguments) -> SavingResult:
        found = await self._eligibility(arguments)
        it = found.quote
        return SavingResult(
            saving=None if it is None else it.saving,
            their_rate_percent=None if it is None else it.their_rate_percent,
            quote=it,
            reason=found.reason,
        )

    async def _branch(self, arguments: BranchArguments) -> BranchResult:
        gold: GoldSettings = self._settings()
        there = branches(gold.branches)
        city = read_name(arguments.city, there)
        return BranchResult(city=city, address=None if city is None else there[city])

    async def _send(self, kind: str, arguments: object) -> Delivery:
        gold: GoldSettings = self._settings()
        if not gold.desk_url:
            return Delivery(outcome=Outcome.NOT_SENT, reason="no desk is configured")
        body = {"kind": kind, "at": self._now().isoformat(), **CONVERTER.unstructure(arguments)}
        certificates = await trio.to_thread.run_sync(httpx.create_ssl_context)
        try:
            async with httpx.AsyncClient(
                verify=certificates,
                timeout=gold.desk_timeout_seconds,
                trust_env=gold.desk_url.startswith("https:"),
                follow_redirects=False,
            ) as client:
                response = await client.post(gold.desk_url, json=body)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            return Delivery(
                outcome=Outcome.NOT_SENT, reason=f"the desk can't be reached ({type(error).__name__})"
            )
        except httpx.HTTPError as error:
            return Delivery(outcome=Outcome.UNKNOWN, reason=f"the desk broke off ({type(error).__name__})")
        if response.is_success:
            return Delivery(outcome=Outcome.SENT)
        outcome = Outcome.UNKNOWN if response.is_server_error else Outcome.NOT_SENT
        return Delivery(outcome=outcome, reason=f"the desk answered with status {response.status_code}")


def _reckoning_seconds() -> float:
    return RECKONING_SECONDS
