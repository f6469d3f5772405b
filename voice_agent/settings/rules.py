"""What must hold between settings: the one table of checks that span more than a single value."""

import re
import shlex
from collections.abc import Callable
from typing import Final, Generic, TypeVar

import attrs

from voice_agent.settings.api_keys import keys_fault
from voice_agent.settings.gold_values import branches, lender_rates, price_time, rate_tiers
from voice_agent.settings.lists import (
    are_header_fields,
    are_networks,
    are_origins,
    are_stun_urls,
    are_turn_urls,
    networks,
)
from voice_agent.settings.redis_address import address_fault
from voice_agent.settings.schema import Settings
from voice_agent.settings.urls import is_fetchable, is_http, is_origin

RootT = TypeVar("RootT")

MIN_SECRET_CHARS: Final = 16
MIN_JWT_SECRET_BYTES: Final = 32
MIN_CLUSTER_SECRET_BYTES: Final = 32
MIN_BEATS_BEFORE_GONE: Final = 3

_NODE_NAME: Final = re.compile(r"[A-Za-z0-9._-]*", re.ASCII)


@attrs.frozen
class Rule(Generic[RootT]):
    """A check over several settings; ``demand`` says what is allowed, in words for an operator.

    It may be made from settings that don't hold; what it says must not repeat a secret.
    """

    keys: tuple[str, ...]
    holds: Callable[[RootT], bool]
    demand: str | Callable[[RootT], str]

    def words(self, settings: RootT) -> str:
        """Return the demand to settings that don't hold."""
        return self.demand if isinstance(self.demand, str) else self.demand(settings)


def _reads(read: Callable[[str], object], text: str) -> bool:
    """Whether a reader of settings can read a text."""
    try:
        read(text)
    except ValueError:
        return False
    return True


RULES: Final[tuple[Rule[Settings], ...]] = (
    Rule(
        ("server.tls_certificate_file", "server.tls_key_file"),
        lambda settings: bool(settings.server.tls_certificate_file) == bool(settings.server.tls_key_file),
        "server.tls_certificate_file and server.tls_key_file need each other",
    ),
    Rule(
        ("store.kind", "store.redis_url"),
        lambda settings: settings.store.kind != "redis" or address_fault(settings.store.redis_url) is None,
        lambda settings: (
            'store.kind = "redis" needs store.redis_url, as redis://host:6379/0 or rediss:// with TLS: '
            f"{address_fault(settings.store.redis_url)}"
        ),
    ),
    Rule(
        ("server.workers", "store.kind"),
        lambda settings: settings.server.workers == 1 or settings.store.kind in {"sqlite", "redis"},
        "several workers need a store that they share, or a session would be known to one of them alone; set "
        'store.kind = "sqlite" (a file of this machine) or "redis", or server.workers = 1',
    ),
    Rule(
        ("voice.kind", "voice.api_url"),
        lambda settings: settings.voice.kind != "api" or is_http(settings.voice.api_url),
        'voice.kind = "api" needs voice.api_url, as https://host/v1, without user and password in it',
    ),
    Rule(
        ("store.redis_key_file", "store.redis_certificate_file"),
        lambda settings: not settings.store.redis_key_file or bool(settings.store.redis_certificate_file),
        "store.redis_key_file needs store.redis_certificate_file",
    ),
    Rule(
        ("access.allowed_origins",),
        lambda settings: are_origins(settings.access.allowed_origins),
        "access.allowed_origins must be exact origins as https://app.example.org:8443, separated by commas; * and null "
        "are refused, for then every site on the web could use what its visitors may use here",
    ),
    Rule(
        ("access.trusted_proxies",),
        lambda settings: (
            are_networks(settings.access.trusted_proxies)
            and not any(network.prefixlen == 0 for network in networks(settings.access.trusted_proxies))
        ),
        "access.trusted_proxies must be networks as 10.0.0.0/8, separated by commas; one that holds every address "
        "is refused, for then anybody could pass for anybody",
    ),
    Rule(
        ("vad.release_threshold", "vad.threshold"),
        lambda settings: settings.vad.release_threshold <= settings.vad.threshold,
        "vad.release_threshold must not be above vad.threshold, or speech would end as it begins",
    ),
    Rule(
        ("vad.cut_search_seconds", "vad.max_utterance_seconds"),
        lambda settings: settings.vad.cut_search_seconds < settings.vad.max_utterance_seconds,
        "vad.cut_search_seconds must be below vad.max_utterance_seconds, or a cut could leave nothing",
    ),
    Rule(
        ("websocket.ping_interval_seconds", "websocket.read_timeout_seconds"),
        lambda settings: settings.websocket.ping_interval_seconds < settings.websocket.read_timeout_seconds,
        "websocket.ping_interval_seconds must be below websocket.read_timeout_seconds, "
        "or a quiet client would be taken for gone",
    ),
    Rule(
        ("webrtc.stun_servers",),
        lambda settings: are_stun_urls(settings.webrtc.stun_servers),
        "webrtc.stun_servers must be addresses as stun:host:port, separated by commas",
    ),
    Rule(
        ("webrtc.turn_servers",),
        lambda settings: are_turn_urls(settings.webrtc.turn_servers),
        "webrtc.turn_servers must be addresses as turn:host:port?transport=udp, separated by commas",
    ),
    Rule(
        ("webrtc.turn_servers", "webrtc.turn_secret"),
        lambda settings: (
            not settings.webrtc.turn_servers or len(settings.webrtc.turn_secret) >= MIN_SECRET_CHARS
        ),
        f"webrtc.turn_servers need a webrtc.turn_secret of {MIN_SECRET_CHARS} characters or more, "
        "or nobody could use them, or everybody",
    ),
    Rule(
        ("webrtc.turn_credential_ttl_seconds", "session.max_duration_seconds"),
        lambda settings: (
            settings.webrtc.turn_credential_ttl_seconds >= settings.session.max_duration_seconds
            or not settings.webrtc.turn_servers
        ),
        "webrtc.turn_credential_ttl_seconds must not be below session.max_duration_seconds, "
        "or a relayed call would break in the middle",
    ),
    Rule(
        ("webrtc.relay_only", "webrtc.turn_servers"),
        lambda settings: not settings.webrtc.relay_only or bool(settings.webrtc.turn_servers),
        "webrtc.relay_only needs webrtc.turn_servers, or no call could connect",
    ),
    Rule(
        ("webrtc.allowed_networks",),
        lambda settings: are_networks(settings.webrtc.allowed_networks),
        "webrtc.allowed_networks must be networks as 10.0.0.0/8, separated by commas",
    ),
    Rule(
        ("admission.resume_load", "admission.max_load"),
        lambda settings: settings.admission.resume_load <= settings.admission.max_load,
        "admission.resume_load must not be above admission.max_load, or refusing would end as it begins",
    ),
    Rule(
        ("admission.resume_queue_seconds", "admission.max_queue_seconds"),
        lambda settings: settings.admission.resume_queue_seconds <= settings.admission.max_queue_seconds,
        "admission.resume_queue_seconds must not be above admission.max_queue_seconds, "
        "or refusing would end as it begins",
    ),
    Rule(
        ("admission.resume_lag_seconds", "admission.max_lag_seconds"),
        lambda settings: settings.admission.resume_lag_seconds <= settings.admission.max_lag_seconds,
        "admission.resume_lag_seconds must not be above admission.max_lag_seconds, "
        "or refusing would end as it begins",
    ),
    Rule(
        ("limits.uncounted_networks",),
        lambda settings: are_networks(settings.limits.uncounted_networks),
        "limits.uncounted_networks must be networks as 10.0.0.0/8, separated by commas",
    ),
    Rule(
        ("access.keys",),
        lambda settings: keys_fault(settings.access.keys) is None,
        lambda settings: keys_fault(settings.access.keys) or "",
    ),
    Rule(
        ("access.jwt_secret",),
        lambda settings: not 0 < len(settings.access.jwt_secret.encode()) < MIN_JWT_SECRET_BYTES,
        f"access.jwt_secret must have {MIN_JWT_SECRET_BYTES} bytes or more, or tokens could be forged by trying "
        "(RFC 7518, section 3.2)",
    ),
    Rule(
        ("access.jwt_secret",),
        lambda settings: "-----BEGIN" not in settings.access.jwt_secret,
        "access.jwt_secret must not be a key in PEM: a public key is known to everybody, and a private one does not "
        "belong here; give the key set in access.jwks_file",
    ),
    Rule(
        ("access.jwks_file", "access.jwks_url"),
        lambda settings: not (settings.access.jwks_file and settings.access.jwks_url),
        "access.jwks_file and access.jwks_url exclude each other",
    ),
    Rule(
        ("access.jwks_url",),
        lambda settings: not settings.access.jwks_url or is_fetchable(settings.access.jwks_url),
        "access.jwks_url must be an https:// address, or http:// on loopback, without a user's name and fragment",
    ),
    Rule(
        (
            "access.jwt_secret",
            "access.jwks_file",
            "access.jwks_url",
            "access.jwt_issuer",
            "access.jwt_audience",
        ),
        lambda settings: (
            bool(settings.access.jwt_secret or settings.access.jwks_file or settings.access.jwks_url)
            == bool(settings.access.jwt_issuer)
            == bool(settings.access.jwt_audience)
        ),
        "tokens need access.jwt_issuer, access.jwt_audience and something to check them with (access.jwt_secret, "
        "access.jwks_file or access.jwks_url): all of the three, or none",
    ),
    Rule(
        ("tracing.endpoint",),
        lambda settings: not settings.tracing.endpoint or is_http(settings.tracing.endpoint),
        "tracing.endpoint must be an address as http://127.0.0.1:4318/v1/traces, without credentials in it",
    ),
    Rule(
        ("tracing.headers",),
        lambda settings: are_header_fields(settings.tracing.headers),
        "tracing.headers must be header fields as name=value, separated by commas",
    ),
    Rule(
        ("cluster.node_name",),
        lambda settings: _NODE_NAME.fullmatch(settings.cluster.node_name) is not None,
        "cluster.node_name must be of letters, digits, dots, underscores and hyphens",
    ),
    Rule(
        ("cluster.advertised_url",),
        lambda settings: not settings.cluster.advertised_url or is_origin(settings.cluster.advertised_url),
        "cluster.advertised_url must be scheme, host and port, as http://10.0.0.7:8080",
    ),
    Rule(
        ("cluster.secret",),
        lambda settings: not 0 < len(settings.cluster.secret.encode()) < MIN_CLUSTER_SECRET_BYTES,
        f"cluster.secret must have {MIN_CLUSTER_SECRET_BYTES} bytes or more, or anybody could pass for a node",
    ),
    Rule(
        ("cluster.beat_seconds", "cluster.gone_seconds"),
        lambda settings: (
            settings.cluster.gone_seconds >= MIN_BEATS_BEFORE_GONE * settings.cluster.beat_seconds
        ),
        f"cluster.gone_seconds must not be below {MIN_BEATS_BEFORE_GONE} times cluster.beat_seconds, "
        "or a node that is late once would be taken for gone",
    ),
    Rule(
        ("agent.factory", "chat.url", "chat.model"),
        lambda settings: (
            settings.agent.factory != "chat" or (is_http(settings.chat.url) and bool(settings.chat.model))
        ),
        'agent.factory = "chat" needs chat.url, as https://host/v1, without user and password in it, and chat.model',
    ),
    Rule(
        ("chat.url", "chat.api_key"),
        lambda settings: not (settings.chat.url and settings.chat.api_key) or is_fetchable(settings.chat.url),
        "chat.api_key is sent only to a chat.url with https://, or with http:// on loopback, or anybody on the way could read it",
    ),
    Rule(
        ("gold.rate_tiers",),
        lambda settings: _reads(rate_tiers, settings.gold.rate_tiers),
        "gold.rate_tiers must be limits in rupees and rates in percent as 100000:11.5, 500000:10.5, above:9.5: the limits rise, "
        "and the last one is the word above",
    ),
    Rule(
        ("gold.lender_rates",),
        lambda settings: _reads(lender_rates, settings.gold.lender_rates),
        "gold.lender_rates must be names and rates in percent as Alpha Finance=14.5, Beta Bank=12, each name once",
    ),
    Rule(
        ("gold.branches",),
        lambda settings: _reads(branches, settings.gold.branches),
        "gold.branches must be cities and addresses as Chennai=12 Lake Road; Madurai=3 Temple Street, each city once",
    ),
    Rule(
        ("gold.price_per_gram", "gold.price_time"),
        lambda settings: (
            _reads(price_time, settings.gold.price_time)
            if settings.gold.price_time
            else not settings.gold.price_per_gram
        ),
        "gold.price_per_gram needs gold.price_time, as 2026-11-25T09:30:00+05:30, or nobody could know how old it is",
    ),
    Rule(
        ("gold.price_command", "gold.price_url"),
        lambda settings: not (settings.gold.price_command and settings.gold.price_url),
        "gold.price_command and gold.price_url exclude each other",
    ),
    Rule(
        ("gold.price_command",),
        lambda settings: _reads(shlex.split, settings.gold.price_command),
        "gold.price_command must be a command and its arguments, with every quote closed",
    ),
    Rule(
        ("gold.price_url",),
        lambda settings: not settings.gold.price_url or is_fetchable(settings.gold.price_url),
        "gold.price_url must be an https:// address, or http:// on loopback, without a user's name and fragment",
    ),
    Rule(
        ("gold.desk_url",),
        lambda settings: not settings.gold.desk_url or is_fetchable(settings.gold.desk_url),
        "gold.desk_url must be an https:// address, or http:// on loopback, without a user's name and fragment",
    ),
    Rule(
        ("gold.min_loan_rupees", "gold.max_loan_rupees"),
        lambda settings: settings.gold.min_loan_rupees <= settings.gold.max_loan_rupees,
        "gold.min_loan_rupees must not be above gold.max_loan_rupees, or nothing could be lent",
    ),
)
