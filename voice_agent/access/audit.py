"""What the audit stream is told of authentication: refusals, and tickets given. Never a secret."""

from voice_agent.access.rejection import Reason
from voice_agent.core.identity import Identity
from voice_agent.observability.audit import Outcome, audit


def audit_failure(reason: Reason, *, claimed: str, address: str) -> None:
    """Tell that credentials were refused; ``claimed`` is the id that they claimed, believed or not."""
    audit(actor=claimed, action="authenticate", outcome=Outcome.REFUSED, address=address, reason=str(reason))


def audit_ticket(identity: Identity, *, address: str) -> None:
    """Tell that somebody was given a ticket."""
    audit(actor=identity.key_id, action="give_ticket", outcome=Outcome.DONE, address=address)
