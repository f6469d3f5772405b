"""The gold-loan line, put together: table, understanding, acts and tools, by the settings in force."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone

import trio

from voice_agent.agent.customer import Profile
from voice_agent.agent.dialogue import State
from voice_agent.agent.gold_loan.acts import GoldLoanActs
from voice_agent.agent.gold_loan.table import TABLE
from voice_agent.agent.gold_loan.tools import GoldLoanTools
from voice_agent.agent.gold_loan.understand import understand
from voice_agent.agent.prices import Prices
from voice_agent.agent.table_agent import TableAgent, Understood
from voice_agent.settings.gold_values import branches, lender_rates
from voice_agent.settings.schema import GoldSettings


def utc_now() -> datetime:
    """Return the time of this machine's clock."""
    return datetime.now(UTC)


class GoldLoanAgent(TableAgent[Profile]):
    """The shipped agent. ``settings`` is asked at each use, so that a change takes effect in running talks; ``now`` tells the time."""

    def __init__(self, settings: Callable[[], GoldSettings], now: Callable[[], datetime] = utc_now) -> None:
        self._settings = settings
        self._now = now
        self.prices = Prices(settings)
        self.tools = GoldLoanTools(settings, self.prices, now)
        super().__init__(
            TABLE, understand=self._understood, acts=GoldLoanActs(self.tools, settings).by_name()
        )

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the price of gold fresh; started when it has been asked for once."""
        await self.prices.refresh()
        task_status.started()
        await self.prices.run()

    def _understood(self, text: str, state: State[Profile]) -> Understood[Profile]:
        gold: GoldSettings = self._settings()
        here = timezone(timedelta(minutes=gold.utc_offset_minutes))
        return understand(
            text,
            state,
            lenders=lender_rates(gold.lender_rates),
            cities=branches(gold.branches),
            today=self._now().astimezone(here).date(),
        )
