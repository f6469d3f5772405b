"""Who may call, from where, and how they show who they are."""

from typing import Literal

import attrs

from voice_agent.core.units import MINUTES, SECONDS
from voice_agent.settings.declare import setting


@attrs.frozen(kw_only=True)
class AccessSettings:
    """Who may call, from where, and how they show who they are; docs/access.md explains it."""

    keys: str = setting(
        "",
        "The API keys that are valid, one line each, as `voice-agent keys new` prints it.",
        secret=True,
        live=True,
    )
    anonymous: Literal["loopback-without-keys", "loopback", "never", "anybody-from-anywhere-may-call"] = (
        setting(
            "loopback-without-keys",
            "Who may call without key or token: this machine, while the server listens on loopback and neither keys nor "
            "tokens are configured; or as the words say.",
            live=True,
        )
    )
    jwt_issuer: str = setting("", "The `iss` that a token must have.", maximum=1024, live=True)
    jwt_audience: str = setting("", "The `aud` that a token must have.", maximum=1024, live=True)
    jwt_secret: str = setting(
        "",
        "What HS256 tokens are signed with; 32 bytes or more, used as they stand.",
        secret=True,
        maximum=1024,
        live=True,
    )
    jwks_file: str = setting(
        "", "A file with the key set (JWKS) that RS256, ES256 and EdDSA tokens are signed with.", live=True
    )
    jwks_url: str = setting(
        "",
        "Where the key set is fetched, instead of a file: `https://`, or `http://` on loopback.",
        maximum=2048,
        live=True,
    )
    jwks_max_age_seconds: float = setting(
        60 * MINUTES,
        "The key set is fetched again when it is so old; a token with an unknown key fetches it sooner.",
        unit="seconds",
        minimum=60,
        maximum=7 * 86_400,
        live=True,
    )
    jwt_leeway_seconds: float = setting(
        30 * SECONDS,
        "How far the clock of whoever signs tokens may be off.",
        unit="seconds",
        minimum=0,
        maximum=300,
        live=True,
    )
    jwt_tenant_claim: str = setting(
        "tenant", "The claim that names a token's tenant.", minimum=1, maximum=256, live=True
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
    allowed_origins: str = setting(
        "",
        "Sites whose pages may use the server beside its own, as https://app.example.org, separated by commas.",
        live=True,
    )
    trusted_proxies: str = setting(
        "",
        "Networks of reverse proxies whose word about the client's address is taken, as 10.0.0.0/8, separated by"
        " commas.",
        live=True,
    )
    proxy_header: Literal["x-forwarded-for", "forwarded"] = setting(
        "x-forwarded-for",
        "The header in which those proxies tell it; the other one is ignored.",
        live=True,
    )
