"""What the gold-loan line does for each action of its table: which tool it uses, and which phrases it says."""

from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, Final

from voice_agent.agent.customer import Profile
from voice_agent.agent.dialogue import State
from voice_agent.agent.gold_loan.phrases import PHRASES
from voice_agent.agent.gold_loan.tools import (
    BranchArguments,
    Delivery,
    EligibilityArguments,
    GoldLoanTools,
    HandoverArguments,
    LeadArguments,
    Outcome,
    VisitArguments,
)
from voice_agent.agent.offer import Quote
from voice_agent.agent.table_agent import Act
from voice_agent.agent.talk import Turn
from voice_agent.settings.gold_values import decimal_of, rate_tiers
from voice_agent.settings.schema import GoldSettings

_PLAIN: Final = (
    "ask consent", "consent first", "thank", "go on unrecorded", "ask lender", "ask interest", "answer objection",
    "ask doubt", "offer weighing", "ask day", "greet again", "reprompt", "not understood", "apologise", "respect no",
    "time is over", "goodbye",
)  # fmt: skip
"""Actions that say their phrase and do nothing."""
_SENT: Final = {Outcome.SENT: "sent", Outcome.NOT_SENT: "not sent", Outcome.UNKNOWN: "unknown"}


class GoldLoanActs:
    """The actions, by the settings that are in force when each is done."""

    def __init__(self, tools: GoldLoanTools, settings: Callable[[], GoldSettings]) -> None:
        self._tools = tools
        self._settings = settings

    def by_name(self) -> Mapping[str, Act[Profile]]:
        """Return what there is for each action."""
        acts: dict[str, Act[Profile]] = {name: self._plain(name) for name in _PLAIN}
        return acts | {
            "disclose": self._disclose,
            "ask gold": self._ask_gold,
            "check gold": self._check_gold,
            "present": self._present,
            "explain rate": self._explain_rate,
            "explain saving": self._explain_saving,
            "explain documents": self._explain_documents,
            "ask visit": self._ask_visit,
            "book visit": self._book_visit,
            "leave open": self._leave_open,
            "hand over": self._hand_over,
        }

    def _plain(self, name: str) -> Act[Profile]:
        async def act(turn: Turn, _: State[Profile]) -> None:
            await _say(turn, name)

        return act

    async def _disclose(self, turn: Turn, _: State[Profile]) -> None:
        gold: GoldSettings = self._settings()
        await _say(turn, "disclose", company=gold.company)

    async def _ask_gold(self, turn: Turn, state: State[Profile]) -> None:
        known = state.facts
        if known.grams is None:
            await _say(turn, "ask grams")
        elif known.karat is None:
            await _say(turn, "ask karat")
        else:
            await self._check_gold(turn, state)

    async def _check_gold(self, turn: Turn, state: State[Profile]) -> None:
        known = state.facts
        if known.grams is None or known.karat is None:
            await self._ask_gold(turn, state)
        else:
            await _say(turn, "check gold", grams=weight(known.grams), karat=known.karat)

    async def _present(self, turn: Turn, state: State[Profile]) -> None:
        found = await self._tools.box.run(self._tools.eligibility, _eligibility(state.facts))
        if found.quote is None:
            await _say(turn, "no quote", reason=found.reason)
            return
        it = found.quote
        await _say(turn, "present value", **self._figures(it))
        wish = state.facts.wished_rupees
        how = "limit" if wish is None else "above" if it.wish_is_above_limit else "wish"
        await _say(turn, f"present {how}", **self._figures(it))
        await _say(turn, "present cost", **self._figures(it))
        await _say(turn, "present source", **self._figures(it))

    def _figures(self, it: Quote) -> dict[str, object]:
        return {
            "grams": weight(it.grams),
            "karat": it.karat,
            "value": rupees(it.value),
            "limit": rupees(it.limit),
            "loan": rupees(it.loan),
            "rate": percent(it.rate_percent),
            "fee": rupees(it.fee),
            "months": it.months,
            "instalment": rupees(it.instalment),
            "price": rupees(it.price.per_gram),
            "time": f"{self._here(it.price.at):%Y-%m-%d, %H:%M}",
        }

    def _here(self, time: datetime) -> datetime:
        gold: GoldSettings = self._settings()
        return time.astimezone(timezone(timedelta(minutes=gold.utc_offset_minutes)))

    async def _explain_rate(self, turn: Turn, _: State[Profile]) -> None:
        gold: GoldSettings = self._settings()
        tiers = ", ".join(
            f"{percent(tier.rate_percent)} "
            + ("for larger loans" if tier.up_to_rupees is None else f"up to {rupees(tier.up_to_rupees)}")
            for tier in rate_tiers(gold.rate_tiers)
        )
        await _say(turn, "explain rate", tiers=tiers, fee=percent(decimal_of(gold.fee_percent)))

    async def _explain_saving(self, turn: Turn, state: State[Profile]) -> None:
        known = state.facts
        if known.grams is None or known.karat is None:
            await _say(turn, "saving unknown")
            return
        found = await self._tools.box.run(self._tools.saving, _eligibility(known))
        if found.quote is None or found.their_rate_percent is None:
            await _say(turn, "saving unknown")
            return
        await _say(
            turn,
            "saving some" if found.saving else "saving none",
            theirs=percent(found.their_rate_percent),
            saving=rupees(found.saving or Decimal(0)),
            months=found.quote.months,
        )

    async def _explain_documents(self, turn: Turn, _: State[Profile]) -> None:
        gold: GoldSettings = self._settings()
        await _say(turn, "explain documents", documents=gold.documents)

    async def _ask_visit(self, turn: Turn, state: State[Profile]) -> None:
        day = state.facts.visit_day
        if day is None:
            await _say(turn, "ask visit")
        else:
            await _say(turn, "confirm visit", day=day.isoformat())

    async def _book_visit(self, turn: Turn, state: State[Profile]) -> None:
        known, day = state.facts, state.facts.visit_day
        assert isinstance(day, date)  # noqa: S101 - the table asks for this only where it is known
        await turn.settled()
        sent = await self._tools.send(
            self._tools.visit, VisitArguments(day=day, city=known.city, telephone=known.telephone)
        )
        await _say(turn, f"visit {_SENT[sent.outcome]}", day=day.isoformat())
        if known.city is not None:
            branch = await self._tools.box.run(self._tools.branch, BranchArguments(city=known.city))
            if branch.address is not None:
                await _say(turn, "branch", city=branch.city, address=branch.address)

    async def _leave_open(self, turn: Turn, state: State[Profile]) -> None:
        known = state.facts
        await _say(turn, "leave open")
        if known.telephone is None:
            return
        await turn.settled()
        sent = await self._tools.send(
            self._tools.lead,
            LeadArguments(
                telephone=known.telephone,
                segment=known.segment.value,
                city=known.city,
                wished_rupees=known.wished_rupees,
                language=known.language,
            ),
        )
        if sent.outcome is Outcome.SENT:
            await _say(turn, "lead sent")

    async def _hand_over(self, turn: Turn, state: State[Profile]) -> None:
        await turn.settled()
        sent: Delivery = await self._tools.send(
            self._tools.handover, HandoverArguments(telephone=state.facts.telephone, stage=state.stage)
        )
        await _say(turn, f"person {_SENT[sent.outcome]}")


def _eligibility(known: Profile) -> EligibilityArguments:
    assert known.grams is not None  # noqa: S101 - the table presents only gold that is known
    assert known.karat is not None  # noqa: S101 - as above
    return EligibilityArguments(
        grams=known.grams,
        karat=known.karat,
        wished_rupees=known.wished_rupees,
        lender=known.lender,
        lender_rate_percent=known.lender_rate_percent,
    )


async def _say(turn: Turn, phrase: str, **figures: Any) -> None:
    for sentence in PHRASES[phrase]:
        await turn.say(sentence.format_map(figures))


def rupees(amount: Decimal) -> str:
    """Write money as in India: ₹1,20,000; paise only where there are some."""
    whole, _, fraction = f"{amount.normalize():f}".partition(".")
    head, tail = whole[:-3], whole[-3:]
    groups = [head[max(end - 2, 0) : end] for end in range(len(head), 0, -2)][::-1]
    written = ",".join((*groups, tail))
    return f"₹{written}.{fraction:0<2}" if fraction else f"₹{written}"


def weight(grams: Decimal) -> str:
    """Write a weight in grams, to the hundredth."""
    return f"{grams.quantize(Decimal('0.01')).normalize():f} g"


def percent(rate: Decimal) -> str:
    """Write a rate."""
    return f"{rate.normalize():f} %"
