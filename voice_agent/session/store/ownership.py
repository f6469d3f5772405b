"""Who may go on with a session: the one judgement that every store makes in its own transaction. Pure."""

import attrs

from voice_agent.core.errors import (
    ResumeExpiredError,
    ResumeForeignError,
    ResumeTokenUsedError,
    ResumeTokenWrongError,
    ResumeUnknownError,
)
from voice_agent.core.journal import USED_TOKENS, RecordState, SessionRecord
from voice_agent.session.store.protocol import Claim


def judge(claim: Claim, record: SessionRecord | None) -> SessionRecord:
    """Return the record as it is when the claim is granted.

    The token is judged before anything is said about the session, so that who has none learns nothing.

    Raises:
        ResumeRefusedError: one of its kinds says why not.
    """
    if record is None:
        raise ResumeUnknownError("there is no such session")
    if claim.token_sha256 in record.used_tokens and claim.new_token_sha256 == record.token_sha256:
        return record  # granted before; its answer got lost
    is_spare = record.state is RecordState.DETACHED and claim.token_sha256 == record.spare_token_sha256
    if claim.token_sha256 in record.used_tokens and not is_spare:
        raise ResumeTokenUsedError("this resume token was used already; each `ready` brings the next one")
    if claim.token_sha256 != record.token_sha256 and not is_spare:
        raise ResumeTokenWrongError("this is no resume token of the session")
    if (claim.key_id, claim.tenant) != (record.key_id, record.tenant):
        raise ResumeForeignError("the session belongs to another key")
    if record.state is RecordState.ENDED:
        raise ResumeExpiredError("the session has ended")
    if claim.now > record.resumable_until:
        raise ResumeExpiredError("the time in which the session could be resumed is over")
    return attrs.evolve(
        record,
        epoch=record.epoch + 1,
        token_sha256=claim.new_token_sha256,
        spare_token_sha256="",
        close_reason=None,
        used_tokens=(*record.used_tokens, record.token_sha256)[-USED_TOKENS:],
        node=claim.node,
        state=RecordState.OPEN,
        updated_at=claim.now,
        lease_until=claim.now + claim.lease_seconds,
    )
