"""SettingsReload: other settings while the server runs, taken over whole or not at all."""

from collections.abc import Callable
from typing import Final, NoReturn

import structlog
import trio

from voice_agent.core.errors import SettingsError
from voice_agent.core.units import MS
from voice_agent.observability.metrics import Metrics
from voice_agent.settings.changes import Adoption, adopt
from voice_agent.settings.current import CurrentSettings
from voice_agent.settings.origin import SettingsOrigin
from voice_agent.settings.watch import SettingsFiles

REST_SECONDS: Final = 500 * MS
"""Between two readings: files that change without end cost two readings a second, and two lines in the log."""
MAX_REASON_CHARS: Final = 2000

log = structlog.get_logger(__name__)


def _nothing_more(_adoption: Adoption) -> None:
    """Who follows the settings reads them by itself."""


class SettingsReload:
    """Follows the files of an origin and puts what they say in force.

    ``apply`` is called when others have come into force, for what can't follow them by itself: logging.
    ``on_begin`` and ``on_end`` stand around each reading.
    """

    def __init__(
        self,
        origin: SettingsOrigin,
        current: CurrentSettings,
        metrics: Metrics,
        *,
        apply: Callable[[Adoption], None] = _nothing_more,
        on_begin: Callable[[], None] = lambda: None,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        self._files = SettingsFiles(origin)
        self._current = current
        self._metrics = metrics
        self._apply = apply
        self._on_begin = on_begin
        self._on_end = on_end
        self._wake = trio.Event()
        self._is_asked = False
        metrics.settings_version.set(current.version)

    def ask(self) -> None:
        """Read again although nothing seems to have changed; asked many times, it is done once."""
        self._is_asked = True
        self._wake.set()

    async def run(self) -> NoReturn:
        """Follow the files until cancelled; nothing that they hold ends this."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._files.watch, lambda: self._wake.set())  # noqa: PLW0108 (the event is replaced)
            while True:
                await self._wake.wait()
                self._wake = trio.Event()
                is_asked, self._is_asked = self._is_asked, False
                if is_asked:
                    self._on_begin()
                try:
                    await self._read(is_asked=is_asked)
                except Exception as error:
                    # A defect in what reads settings; the server goes on with those it has.
                    log.exception("settings_reload_crashed", error=type(error).__name__)
                    self._count("refused")
                if is_asked:
                    self._on_end()
                await trio.sleep(REST_SECONDS)

    async def _read(self, *, is_asked: bool) -> None:
        outcome = await self._files.read(although_unchanged=is_asked)
        if outcome is None:
            return
        try:
            if isinstance(outcome, SettingsError):
                raise outcome
            adoption = adopt(self._current.now, outcome.settings)
        except SettingsError as error:
            log.error(  # noqa: TRY400 (an operator's mistake; its trace says nothing)
                "settings_refused", reason=error.message[:MAX_REASON_CHARS], version=self._current.version
            )
            self._count("refused")
            return
        is_news = bool(adoption.changed) or adoption.waiting != self._current.waiting
        self._current.waiting = adoption.waiting
        # What waits has the value that it had, from where it had it.
        kept = {key: self._current.sources[key] for key in adoption.waiting if key in self._current.sources}
        self._current.sources = {**outcome.sources, **kept}
        if adoption.changed:
            self._current.replace(adoption.settings)
            self._metrics.settings_version.set(self._current.version)
            self._apply(adoption)
        self._count("applied" if adoption.changed else "unchanged")
        if is_news or is_asked:
            log.info(
                "settings_changed" if is_news else "settings_unchanged",
                version=self._current.version,
                changed=adoption.changed,
                waiting_for_restart=adoption.waiting,
            )

    def _count(self, outcome: str) -> None:
        self._metrics.settings_reloads_total.labels(outcome).inc()
