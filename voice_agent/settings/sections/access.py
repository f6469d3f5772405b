"""Who may call: keys, tickets, and whether nobody is asked."""

import attrs

from voice_agent.core.units import SECONDS
from voice_agent.settings.declare import setting


@attrs.frozen(kw_only=True)
class AccessSettings:
    """Who may call, and how they show who they are; docs/access.md explains it."""

    keys: str = setting(
        "",
        "The API keys that are valid, one line each, as `voice-agent keys new` prints it.",
        secret=True,
        live=True,
    )
    allow_anonymous_beyond_loopback: bool = setting(
        False,
        "Let anybody who can reach the server call, without key or token. Without it, anonymous calls are taken only "
        "while the server listens on loopback and no keys are configured.",
        live=True,
    )
    ticket_seconds: float = setting(
        30 * SECONDS,
        "A ticket from `POST /v1/tickets` must be used by then.",
        unit="seconds",
        minimum=1,
        maximum=600,
        live=True,
    )
    max_tickets: int = setting(
        10_000,
        "Unused tickets that are kept; of more, the oldest goes. One key holds half of them at most.",
        unit="tickets",
        minimum=1,
        maximum=1_000_000,
        live=True,
    )
    bind_tickets_to_address: bool = setting(
        False,
        "A ticket is good only from the address that asked for it; breaks callers whose address changes.",
        live=True,
    )
