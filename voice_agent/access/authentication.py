"""The server's own authenticator: API keys, tokens and tickets, as the settings in force say.

Whatever is wrong, callers get the same error with the same words, after the same work where that can be done: an
unknown key is compared with a hash like a known one. The log, the audit and the metrics say which part it was.
"""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, NoReturn

import attrs
import trio

from voice_agent.access.anonymous import may_be_anonymous
from voice_agent.access.audit import audit_failure, audit_ticket
from voice_agent.access.authenticator import Credentials, FailureLimiter, NoFailureLimit
from voice_agent.access.claims import SUBJECT_PREFIX
from voice_agent.access.key_source import KeySource
from voice_agent.access.keys import PREFIX, KeyTable
from voice_agent.access.rejection import Reason, RejectedError
from voice_agent.access.tickets import (
    NoTicketsElsewhere,
    Ticket,
    Tickets,
    TicketsElsewhere,
    random_text,
)
from voice_agent.access.tokens import Tokens, takes_tokens
from voice_agent.core.errors import SettingsError, UnauthenticatedError
from voice_agent.core.identity import ANONYMOUS, Identity
from voice_agent.core.request_errors import TooManyFailuresError
from voice_agent.observability.metrics import Metrics
from voice_agent.session.body_error import BodyError
from voice_agent.settings.api_keys import KeysError
from voice_agent.settings.current import CurrentSettings

REFUSAL: Final = "The credentials are not valid here."
"""Everything that callers are told."""


@asynccontextmanager
async def open_authenticator(
    current: CurrentSettings,
    *,
    metrics: Metrics,
    failures: FailureLimiter | None = None,
    now: Callable[[], float] = time.time,
    new_ticket: Callable[[], str] = random_text,
    elsewhere: TicketsElsewhere | None = None,
) -> AsyncIterator["ServerAuthenticator"]:
    """Judge credentials for as long as the block lasts, by the settings in force at each use.

    ``now`` is Unix time, which expiry is about; Trio's clock starts anywhere. ``elsewhere`` knows tickets that this
    process did not give.

    Raises:
        SettingsError: the keys are no list of keys, or the file with the key set can't be used.
    """
    try:
        authenticator = ServerAuthenticator(
            current,
            metrics=metrics,
            failures=failures or NoFailureLimit(),
            now=now,
            new_ticket=new_ticket,
            elsewhere=elsewhere or NoTicketsElsewhere(),
        )
    except KeysError as error:
        raise SettingsError(f"access.keys: {error}", field="access.keys") from None
    await authenticator.load()
    body = BodyError()
    with body.unwrapped():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(authenticator.run)
            with body.noted():
                yield authenticator
            nursery.cancel_scope.cancel()


class ServerAuthenticator:
    """Made by :func:`open_authenticator`; an :class:`~voice_agent.access.authenticator.Authenticator`."""

    def __init__(
        self,
        current: CurrentSettings,
        *,
        metrics: Metrics,
        failures: FailureLimiter,
        now: Callable[[], float],
        new_ticket: Callable[[], str] = random_text,
        elsewhere: TicketsElsewhere,
    ) -> None:
        self._current = current
        self._metrics = metrics
        for reason in Reason:
            # From the start, so that a rate sees the first failure of its kind too.
            metrics.auth_failures_total.labels(reason)
        self._failures = failures
        self._now = now
        self._tickets = Tickets(current, new_ticket)
        self._elsewhere = elsewhere
        self._source = KeySource(current, metrics)
        self._tokens = Tokens(current, self._source)
        self._keys_text = current.now.access.keys
        self._key_table = KeyTable(self._keys_text)

    async def load(self) -> None:
        """Read what has to be at hand when the first request comes.

        Raises:
            SettingsError: the file with the key set can't be used.
        """
        await self._source.load_file()

    async def run(self) -> NoReturn:
        """Fetch the key set when it is due, for as long as the server runs."""
        await self._source.run()

    async def identify(self, credentials: Credentials, *, address: str) -> Identity:
        """Return who it is.

        Raises:
            UnauthenticatedError: they are wrong, expired or used; never says which part was wrong.
            TooManyFailuresError: the address has failed too often.
            TokenKeysUnavailableError: no key set has come yet, so that a token can't be judged.
            UnavailableError: the node that gave the ticket does not answer.
        """
        if not credentials.are_shown:
            raise UnauthenticatedError("Show a key or a token.")
        now = self._now()
        # First, because the first handshake that shows a ticket uses it up, however that ends.
        ticket = None if credentials.ticket is None else await self._take(credentials.ticket)
        wait_seconds = self._failures.wait_seconds(address)
        if wait_seconds > 0:
            # No line in the audit: whoever floods the server would flood that too.
            self._metrics.auth_failures_total.labels(Reason.BLOCKED).inc()
            raise TooManyFailuresError(
                "Too many wrong credentials came from this address; try again later.",
                retry_after_seconds=wait_seconds,
            )
        try:
            return await self._judge(credentials, ticket, address=address, now=now)
        except RejectedError as rejected:
            self._failures.note_failure(address)
            self._metrics.auth_failures_total.labels(rejected.reason).inc()
            audit_failure(rejected.reason, claimed=rejected.claimed, address=address)
            raise UnauthenticatedError(REFUSAL) from None

    def issue_ticket(self, identity: Identity, *, address: str) -> str:
        """Give a ticket to somebody who is known: it lets them begin one call within ``access.ticket_seconds``."""
        ticket = self._tickets.issue(identity, address=address, now=self._now())
        audit_ticket(identity, address=address)
        return ticket

    def take_ticket(self, text: str) -> Ticket | None:
        """Use up a ticket of this process for another one, which will judge it."""
        return self._tickets.take(text)

    async def _take(self, text: str) -> Ticket | None:
        return self._tickets.take(text) or await self._elsewhere.redeem(text)

    async def _judge(
        self, credentials: Credentials, ticket: Ticket | None, *, address: str, now: float
    ) -> Identity:
        if credentials.count > 1:
            raise RejectedError(Reason.SEVERAL)
        if credentials.ticket is not None:
            return self._holder(ticket, address, now)
        shown = credentials.bearer or credentials.api_key or ""
        if credentials.bearer is None or shown.startswith(PREFIX):
            return self._keys.identify(shown, now=now)
        return await self._tokens.identify(shown, now=now)

    @property
    def _keys(self) -> KeyTable:
        """The keys of the settings in force; read anew when those were replaced."""
        text = self._current.now.access.keys
        if text is not self._keys_text:
            self._key_table, self._keys_text = KeyTable(text), text
        return self._key_table

    def _holder(self, ticket: Ticket | None, address: str, now: float) -> Identity:
        """Return whose ticket it is, as what they are now: a key that was taken away takes its tickets along."""
        access = self._current.now.access
        if ticket is None:
            raise RejectedError(Reason.TICKET_UNKNOWN)
        asker = ticket.identity
        if now >= ticket.expires_at:
            raise RejectedError(Reason.TICKET_EXPIRED, asker.key_id)
        if access.bind_tickets_to_address and address != ticket.address:
            raise RejectedError(Reason.TICKET_MOVED, asker.key_id)
        if asker.key_id == ANONYMOUS.key_id:
            holder = asker if may_be_anonymous(access) else None
        elif asker.key_id.startswith(SUBJECT_PREFIX):
            holder = asker if takes_tokens(access) else None
        else:
            holder = self._keys.find(asker.key_id, now=now)
        if holder is None:
            raise RejectedError(Reason.TICKET_ORPHANED, asker.key_id)
        return attrs.evolve(holder, scopes=holder.scopes & asker.scopes)
