"""Lists in one text setting: ICE servers and networks."""

import pytest

from voice_agent.core.errors import SettingsError
from voice_agent.settings.lists import are_networks, are_stun_urls, are_turn_urls, split_list
from voice_agent.settings.load import load_settings

SECRET = "a-secret-of-the-tests"  # noqa: S105 (made up)
TURN = "turn:turn.example.org"


def refusal(**environ: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings(files=(), environ={f"VOICE_AGENT__{key}": value for key, value in environ.items()})
    assert SECRET not in caught.value.message
    return caught.value.message


def test_lists_are_split_at_commas() -> None:
    """Spaces and empty parts mean nothing."""
    assert split_list(" a ,b,, ") == ("a", "b")
    assert split_list("") == ()


@pytest.mark.parametrize(
    ("text", "is_stun", "is_turn"),
    [
        ("", True, True),
        ("stun:stun.example.org", True, False),
        ("stun:192.0.2.1:3478, stun:[2001:db8::1]:3478", True, False),
        ("turn:turn.example.org:3478?transport=udp,turns:turn.example.org", False, True),
        ("turn:turn.example.org?transport=sctp", False, False),
        ("stun:a.example?transport=udp", False, False),
        ("http://stun.example.org", False, False),
        ('stun:a>; rel="next', False, False),
        ("stun:", False, False),
    ],
)
def test_addresses_of_ice_servers(text: str, is_stun: bool, is_turn: bool) -> None:
    """RFC 7064 and RFC 7065; nothing that could break out of a Link header."""
    assert (are_stun_urls(text), are_turn_urls(text)) == (is_stun, is_turn)


def test_networks() -> None:
    """CIDR notation, both families; host bits are a mistake."""
    assert are_networks("10.0.0.0/8, 2001:db8::/32, 192.0.2.7")
    assert not are_networks("10.0.0.1/8")
    assert not are_networks("eth0")


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"WEBRTC__STUN_SERVERS": "stun.example.org"}, "must be addresses as stun:host:port"),
        ({"WEBRTC__TURN_SERVERS": "stun:x", "WEBRTC__TURN_SECRET": SECRET}, "must be addresses as turn:host"),
        ({"WEBRTC__TURN_SERVERS": TURN}, "need a webrtc.turn_secret"),
        ({"WEBRTC__TURN_SERVERS": TURN, "WEBRTC__TURN_SECRET": "short"}, "need a webrtc.turn_secret"),
        ({"WEBRTC__RELAY_ONLY": "yes"}, "relay_only needs webrtc.turn_servers"),
        ({"WEBRTC__ALLOWED_NETWORKS": "eth0"}, "must be networks"),
        ({"ACCESS__TRUSTED_PROXIES": "proxy.example"}, "must be networks"),
        ({"ACCESS__TRUSTED_PROXIES": "10.0.0.0/8, 0.0.0.0/0"}, "one that holds every address"),
        ({"ACCESS__TRUSTED_PROXIES": "::/0"}, "one that holds every address"),
        ({"ACCESS__ALLOWED_ORIGINS": "*"}, "* and null are refused"),
        ({"ACCESS__ALLOWED_ORIGINS": "https://a.example, null"}, "* and null are refused"),
        ({"ACCESS__ALLOWED_ORIGINS": "https://*.example"}, "must be exact origins"),
        ({"ACCESS__ALLOWED_ORIGINS": "app.example"}, "must be exact origins"),
        ({"ACCESS__ALLOWED_ORIGINS": "https://a.example/"}, "must be exact origins"),
        ({"SERVER__TLS_KEY_FILE": "key.pem"}, "need each other"),
        ({"SERVER__TLS_CERTIFICATE_FILE": "certificate.pem"}, "need each other"),
        ({"ACCESS__ANONYMOUS": "yes"}, "must be one of"),
        (
            {
                "WEBRTC__TURN_SERVERS": TURN,
                "WEBRTC__TURN_SECRET": SECRET,
                "WEBRTC__TURN_CREDENTIAL_TTL_SECONDS": "60",
            },
            "must not be below session.max_duration_seconds",
        ),
    ],
)
def test_settings_that_could_not_work_are_refused(environ: dict[str, str], words: str) -> None:
    """At the start, with the setting's name, and without the secret."""
    assert words in refusal(**environ)
