"""What aiortc sees of an offer: everything but the candidates.

They are added afterwards one by one, so that resolving a browser's ``.local`` names doesn't hold up the answer.
"""

import attrs
from aiortc.sdp import SessionDescription

from voice_agent.core.errors import InvalidSdpError, TooManyCandidatesError


@attrs.frozen(kw_only=True)
class Candidate:
    """An ICE candidate attribute's value, behind ``candidate:``, and the section it belongs to."""

    mid: str
    line: str


@attrs.frozen(kw_only=True)
class ServedOffer:
    """An offer without its candidates, and these."""

    sdp: str
    mids: tuple[str, ...]
    candidates: tuple[Candidate, ...]
    is_complete: bool
    """The offerer has no more candidates (RFC 8840, section 8.2)."""


def read_offer(offer_sdp: str, *, max_candidates: int) -> ServedOffer:
    """Take the candidates out of an offer.

    Raises:
        InvalidSdpError: no media sections, or one without a ``mid``.
        TooManyCandidatesError: more than ``max_candidates``.
    """
    lines = [line.rstrip() for line in offer_sdp.splitlines()]
    starts = [index for index, line in enumerate(lines) if line.startswith("m=")]
    if not starts:
        raise InvalidSdpError("the offer has no media section")
    sections = [lines[start:end] for start, end in zip(starts, [*starts[1:], len(lines)], strict=True)]
    mids = tuple(_mid_of(section) for section in sections)
    candidates = tuple(
        Candidate(mid=mid, line=line.removeprefix("a=candidate:"))
        for mid, section in zip(mids, sections, strict=True)
        for line in section
        if line.startswith("a=candidate:")
    )
    if len(candidates) > max_candidates:
        raise TooManyCandidatesError(
            f"the offer has {len(candidates)} candidates; at most {max_candidates} are tried"
        )
    kept = [line for line in lines if not line.startswith(("a=candidate:", "a=end-of-candidates"))]
    return ServedOffer(
        sdp="".join(f"{line}\r\n" for line in kept),
        mids=mids,
        candidates=candidates,
        is_complete="a=end-of-candidates" in lines,
    )


def _mid_of(section: list[str]) -> str:
    """Return a media section's identification tag (RFC 5888)."""
    for line in section:
        if line.startswith("a=mid:"):
            return line.removeprefix("a=mid:")
    raise InvalidSdpError("a media section has no mid")


def check_transport(offer: ServedOffer) -> None:
    """Refuse what aiortc would assert about later, in a task that nobody waits for."""
    try:
        parsed = SessionDescription.parse(offer.sdp)
    except Exception as error:  # its parser raises whatever the text provokes
        raise InvalidSdpError(f"the offer can't be read ({type(error).__name__})") from error
    for media in parsed.media:
        if media.dtls is None or not media.dtls.fingerprints:
            raise InvalidSdpError("a media section has no fingerprint")
        if media.ice is None or not media.ice.usernameFragment or not media.ice.password:
            raise InvalidSdpError("a media section has no ICE credentials")
        if media.kind == "application" and media.profile != "DTLS/SCTP" and media.sctp_port is None:
            raise InvalidSdpError("the data section has no sctp-port")
