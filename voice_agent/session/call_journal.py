"""CallJournal: one call's way to the store; gives entries their numbers, and knows what became of them."""

from collections.abc import Callable
from contextlib import suppress

import attrs
import structlog

from voice_agent.core.errors import StoreFullError
from voice_agent.core.events import Notice
from voice_agent.core.journal import JournalEntry, RecordState, SessionRecord
from voice_agent.session.lapse import Lapse
from voice_agent.session.store.protocol import Outcome, Write
from voice_agent.session.store.writer import JournalWriter, StoreState, Ticket

log = structlog.get_logger(__name__)


class CallJournal:
    """Writes one call's record and entries, in order.

    ``last_number`` is that of the last entry so far. ``tell`` tells the caller a notice, and doesn't wait; ``on_fenced`` is
    called when the session turns out to belong to somebody else: from then on nothing is written.
    """

    def __init__(
        self,
        writer: JournalWriter,
        *,
        budget_seconds: float,
        last_number: int,
        tell: Callable[[Notice], None],
        on_fenced: Callable[[], None],
    ) -> None:
        self._writer = writer
        self._budget_seconds = budget_seconds
        self._last_number = last_number
        self._tell = tell
        self._on_fenced = on_fenced
        self._record: SessionRecord | None = None
        self._unsure: list[Ticket] = []
        """Writes whose outcome was not waited for to the end."""
        self._lapse: Lapse | None = None
        """What could not be kept, since the writer has no room."""
        self._is_fenced = False

    @property
    def is_fenced(self) -> bool:
        """Whether somebody else has the session."""
        return self._is_fenced

    @property
    def is_healthy(self) -> bool:
        """Whether what is written is taken at once."""
        return self._writer.state is StoreState.HEALTHY and self._lapse is None

    def give_way(self) -> None:
        """Somebody else has the session."""
        self._is_fenced = True

    async def write(self, record: SessionRecord, entry: JournalEntry | None) -> Outcome | None:
        """Write the record, and an entry behind the others, which gets its number here.

        Returns what is known within the budget: None when it waits for the store, LOST when there was no room for it.
        """
        if self._is_fenced:
            return Outcome.FENCED
        self._record = record
        ticket = self._submit(record, entry)
        if ticket is None:
            return Outcome.LOST
        await ticket.wait(self._budget_seconds)
        self._unsure.append(ticket)
        if any(one.outcome is Outcome.FENCED for one in self._unsure):
            self._is_fenced = True
            self._on_fenced()
            return Outcome.FENCED
        self._unsure = [one for one in self._unsure if one.outcome is None]
        return ticket.outcome

    def _submit(self, record: SessionRecord, entry: JournalEntry | None) -> Ticket | None:
        """Give an entry to the writer, behind one for what it had no room for; None: it has none now.

        Without an entry there is only the latter.
        """
        is_over = record.state is not RecordState.OPEN
        if self._lapse is not None and entry is not None and not is_over:
            # A short one might find room between long ones; that would be one gap after the other.
            self._pass_over(entry)
            return None
        unnumbered = ([] if self._lapse is None else [self._lapse.entry(0)]) + (
            [] if entry is None else [entry]
        )
        entries = tuple(
            attrs.evolve(one, number=number) for number, one in enumerate(unnumbered, self._last_number + 1)
        )
        write = Write(session_id=record.session_id, epoch=record.epoch, entries=entries, record=record)
        try:
            ticket = self._writer.submit(write, is_last=is_over)
        except StoreFullError:
            self._pass_over(entry)
            return None
        self._last_number += len(entries)
        if self._lapse is not None:
            log.warning("journal_goes_on", messages=self._lapse.messages, number=self._last_number)
            self._notify(self._lapse.end_notice)
            self._lapse = None
        return ticket

    def _pass_over(self, entry: JournalEntry | None) -> None:
        """Count what is not kept. The caller is told when that begins, and by each message's mark."""
        if entry is None:
            if self._lapse is not None:
                self._writer.when_room(self._go_on)
            return
        if self._lapse is not None:
            self._lapse = self._lapse.with_another(entry)
            return
        self._lapse = Lapse.of(entry)
        log.error("journal_full", number=self._last_number + 1)
        self._notify(self._lapse.begin_notice)
        self._writer.when_room(self._go_on)

    def _go_on(self) -> None:
        """The writer has room again: no need to wait for something to be said."""
        if self._lapse is not None and self._record is not None and not self._is_fenced:
            self._submit(self._record, None)

    def _notify(self, notice: Notice) -> None:
        # The supervisor that would tell it is gone when the program ends; then nobody listens either.
        with suppress(RuntimeError):
            self._tell(notice)
