"""Caller: who begins a call, and from where; known by then."""

import attrs

from voice_agent.core.identity import Identity


@attrs.frozen
class Caller:
    """Somebody who may call. ``address`` is behind the proxies that are trusted."""

    identity: Identity
    address: str
    resumes: str | None = None
    """The session that the caller says it goes on with; it has yet to show that it may."""
