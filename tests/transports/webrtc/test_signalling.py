"""Fragments, options, tags and TURN credentials: WHIP without HTTP."""

import base64
import hashlib
import hmac
from contextlib import suppress

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_agent.core.commands import CallOptions
from voice_agent.core.errors import CallerError, InvalidFieldError, InvalidSdpError, TooManyCandidatesError
from voice_agent.settings.schema import WebRtcSettings
from voice_agent.transports.webrtc.signalling import (
    etag_matches,
    new_call_key,
    new_etag,
    parse_fragment,
    parse_options,
)
from voice_agent.transports.webrtc.turn import ice_servers, link_headers, turn_credentials

SECRET = "a-shared-secret-of-tests"  # noqa: S105 (made up)
# RFC 8840, section 9, with the addresses of documentation (RFC 5737).
FRAGMENT = (
    "a=ice-ufrag:EsAw\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\na=group:BUNDLE 0 1\r\n"
    "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n"
    "a=candidate:1387637174 1 udp 2122260223 192.0.2.1 61764 typ host generation 0 ufrag EsAw network-id 1\r\n"
    "a=candidate:3471623853 1 udp 2122194687 198.51.100.2 61765 typ host generation 0\r\n"
    "a=end-of-candidates\r\n"
)


def test_a_fragment_is_read() -> None:
    """ICE session, candidates and whether it is the last."""
    fragment = parse_fragment(FRAGMENT)
    assert fragment.username_fragment == "EsAw"
    assert [c.split()[4] for c in fragment.candidates] == ["192.0.2.1", "198.51.100.2"]
    assert fragment.is_last


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", InvalidSdpError),
        ("nonsense", InvalidSdpError),
        (FRAGMENT.replace("a=ice-ufrag:EsAw\r\n", ""), InvalidSdpError),
        (FRAGMENT.replace("a=ice-pwd", "a=ice-word"), InvalidSdpError),
        (FRAGMENT + "v=0\r\n", InvalidSdpError),
        (FRAGMENT + "a=candidate:what\r\n", InvalidSdpError),
        (FRAGMENT + "a=candidate:1 1 udp 1 192.0.2.9 9 typ host\r\n" * 20, TooManyCandidatesError),
    ],
)
def test_a_bad_fragment_is_refused(text: str, error: type[CallerError]) -> None:
    """Malformed, without credentials, or with too many candidates."""
    with pytest.raises(error):
        parse_fragment(text)


@given(st.text() | st.text().map(lambda text: FRAGMENT + text))
def test_any_text_gives_a_typed_error_or_a_fragment(text: str) -> None:
    """No text raises anything but a caller's error."""
    with suppress(CallerError):
        parse_fragment(text)


def test_options_come_from_the_query() -> None:
    """As `start` has them; what is not said keeps its default."""
    assert parse_options([]) == CallOptions()
    assert parse_options([("partials", "false"), ("language", "en")]) == CallOptions(partials=False)
    assert not parse_options([], CallOptions(partials=False)).partials


@pytest.mark.parametrize(
    "pairs",
    [
        [("partials", "1")],
        [("language", "xx")],
        [("encoding", "opus")],
        [("partials", "true"), ("partials", "true")],
        [("iceServers", "stun:evil.example")],
    ],
)
def test_bad_options_are_refused(pairs: list[tuple[str, str]]) -> None:
    """Unknown, doubled or of the wrong form; a caller's ICE servers are no option."""
    with pytest.raises(InvalidFieldError) as caught:
        parse_options(pairs)
    assert caught.value.field == pairs[0][0]


def test_keys_and_tags_are_new_each_time() -> None:
    """Addresses can't be guessed, tags can't be confused."""
    assert len({new_call_key() for _ in range(100)}) == 100
    assert len(new_call_key()) >= 32
    assert new_etag() != new_etag()


def test_if_match() -> None:
    """The tag itself, in a list, or any; never a weak one."""
    assert etag_matches('"a"', '"a"')
    assert etag_matches('"b", "a"', '"a"')
    assert etag_matches("*", '"a"')
    assert not etag_matches('"b"', '"a"')
    assert not etag_matches('W/"a"', '"a"')


def test_turn_credentials_are_coturn_s() -> None:
    """The user name carries the end, the password proves it: base64 of HMAC-SHA1."""
    username, credential = turn_credentials(SECRET, expires_at=1_700_000_000)
    assert username == "1700000000:caller"
    expected = hmac.new(SECRET.encode(), b"1700000000:caller", hashlib.sha1).digest()
    assert base64.b64decode(credential) == expected


def test_ice_servers_become_links() -> None:
    """One Link for each address; TURN with user name, credential and their type (RFC 9725, section 4.6)."""
    settings = WebRtcSettings(
        stun_servers="stun:stun.example.org",
        turn_servers="turn:turn.example.org?transport=udp, turns:turn.example.org:443?transport=tcp",
        turn_secret=SECRET,
        turn_credential_ttl_seconds=100,
    )
    servers = ice_servers(settings, unix_seconds=1000.5)
    links = link_headers(servers)
    assert links[0] == '<stun:stun.example.org>; rel="ice-server"'
    username, credential = turn_credentials(SECRET, expires_at=1100)
    for link, url in zip(
        links[1:],
        ["turn:turn.example.org?transport=udp", "turns:turn.example.org:443?transport=tcp"],
        strict=True,
    ):
        assert link == (
            f'<{url}>; rel="ice-server"; username="{username}"; credential="{credential}"; '
            'credential-type="password"'
        )
    assert SECRET not in repr(servers) + "".join(links)
    assert credential not in repr(servers)
    assert ice_servers(attrs.evolve(settings, stun_servers="", turn_servers=""), unix_seconds=0) == ()
