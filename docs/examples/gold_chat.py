"""A language model that answers for a gold-loan desk, with the desk's own figures: it reckons nothing by itself."""

from collections.abc import Callable
from typing import Annotated

from voice_agent.agent.gold_loan.agent import utc_now
from voice_agent.agent.gold_loan.tools import GoldLoanTools
from voice_agent.agent.llm.agent import ChatAgent
from voice_agent.agent.llm.functions import tool
from voice_agent.agent.prices import Prices
from voice_agent.settings.schema import Settings


@tool(limit_seconds=1, is_pure=True)
async def opening_hours(weekday: Annotated[str, "in English, as monday"]) -> str:
    """When the desk is open."""
    return "closed" if weekday.lower() == "sunday" else "ten to six"


def make_agent(settings: Callable[[], Settings]) -> ChatAgent:
    """What ``agent.factory = "gold_chat:make_agent"`` names."""
    prices = Prices(lambda: settings().gold)
    desk = GoldLoanTools(lambda: settings().gold, prices, utc_now)

    async def keep_prices() -> None:
        await prices.refresh()
        await prices.run()

    return ChatAgent(
        lambda: settings().chat,
        tools=[desk.price, desk.eligibility, desk.branch, desk.visit, opening_hours],
        beside=[keep_prices],
    )
