"""What must hold between settings: the one table of checks that span more than a single value."""

from collections.abc import Callable
from typing import Final, Generic, TypeVar

import attrs

from voice_agent.settings.api_keys import keys_fault
from voice_agent.settings.lists import are_networks, are_stun_urls, are_turn_urls
from voice_agent.settings.schema import Settings

RootT = TypeVar("RootT")

MIN_SECRET_CHARS: Final = 16


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


RULES: Final[tuple[Rule[Settings], ...]] = (
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
        ("access.keys",),
        lambda settings: keys_fault(settings.access.keys) is None,
        lambda settings: keys_fault(settings.access.keys) or "",
    ),
)
