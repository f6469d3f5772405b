"""Who stands behind the proxies: nobody's word counts but that of a trusted proxy, and no further than it reaches."""

from typing import Any

import pytest

from voice_agent.access.client import Client, TrustedProxies, parse_address, parse_node
from voice_agent.settings.lists import networks

PROXY = "10.0.0.1"


def find(
    *headers: tuple[str, str], peer: str | None = PROXY, trusted: str = "10.0.0.0/8, fd00::/8", **options: Any
) -> Client:
    scope = {
        "type": "http",
        "scheme": "http",
        "client": None if peer is None else (peer, 4711),
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers],
    }
    return TrustedProxies(networks=networks(trusted), **options).find_client(scope)


XFF = "X-Forwarded-For"


@pytest.mark.parametrize(
    ("told", "address"),
    [
        pytest.param("192.0.2.7", "192.0.2.7", id="one hop"),
        pytest.param("192.0.2.7, 10.9.9.9", "192.0.2.7", id="two trusted hops"),
        pytest.param("1.1.1.1, 192.0.2.7", "192.0.2.7", id="what the client forged stands further left"),
        pytest.param("10.0.0.9, 192.0.2.7, 10.9.9.9", "192.0.2.7", id="forged as a trusted one"),
        pytest.param("10.0.0.3, 10.0.0.2", "10.0.0.3", id="all are trusted"),
        pytest.param("192.0.2.7:56324", "192.0.2.7", id="with a port"),
        pytest.param("2001:DB8::7", "2001:db8::7", id="IPv6"),
        pytest.param("[2001:db8::7]:443", "2001:db8::7", id="IPv6 with a port"),
        pytest.param("[2001:db8::7]", "2001:db8::7", id="IPv6 in brackets"),
        pytest.param("::ffff:192.0.2.7", "192.0.2.7", id="IPv4 in IPv6"),
        pytest.param("2001:db8::7, fd00::1", "2001:db8::7", id="IPv6 proxy"),
        pytest.param("garbage, 192.0.2.7", "192.0.2.7", id="garbage is not reached"),
        pytest.param("192.0.2.7, garbage", PROXY, id="a hop that can't be read ends the walk"),
        pytest.param("unknown", PROXY, id="a hop that hides"),
        pytest.param("192.0.2.7, garbage, 10.9.9.9", "10.9.9.9", id="the nearest that is known"),
        pytest.param("", PROXY, id="empty"),
        pytest.param(" , ,", PROXY, id="nothing in it"),
        pytest.param("192.0.2.7, ", "192.0.2.7", id="an empty member"),
        pytest.param("192.0.2.300", PROXY, id="no address"),
        pytest.param(
            "\u0661.\u0662.\u0663.\u0664".encode().decode("latin-1"), PROXY, id="digits of another script"
        ),
        pytest.param("9" * 8000, PROXY, id="a long one"),
        pytest.param("127.0.0.1", "127.0.0.1", id="a client that says it is us, by a trusted word"),
    ],
)
def test_x_forwarded_for_is_walked_from_the_right(told: str, address: str) -> None:
    """The first address that is no trusted proxy is the client's; what stands to its left, anybody wrote."""
    assert find((XFF, told)).address == address


@pytest.mark.parametrize("peer", ["192.0.2.1", "127.0.0.1", "fe80::1%eth0"])
@pytest.mark.parametrize("name", [XFF, "Forwarded", "X-Real-IP", "X-Forwarded-Host", "X-Forwarded-Proto"])
def test_a_stranger_s_word_counts_for_nothing(peer: str, name: str) -> None:
    """A peer that is no trusted proxy is the client, whatever it writes; that it speaks of a proxy is kept."""
    client = find(("Host", "a.example"), (name, "for=10.0.0.2;proto=https"), peer=peer)
    assert client.address == peer.partition("%")[0]
    assert (client.scheme, client.host) == ("http", "a.example")
    assert client.came_by_proxy


def test_without_trusted_proxies_no_header_is_read() -> None:
    """The default trusts nobody, loopback neither."""
    assert find((XFF, "192.0.2.7"), peer="127.0.0.1", trusted="").address == "127.0.0.1"


def test_a_peer_in_ipv6_clothes_is_the_ipv4_address_that_it_is() -> None:
    """A dual-stack socket tells IPv4 peers so (RFC 4291); rules about them hold all the same."""
    assert find((XFF, "192.0.2.7"), peer="::ffff:10.0.0.1").address == "192.0.2.7"
    assert find(peer="::ffff:192.0.2.9").address == "192.0.2.9"


def test_a_list_on_several_lines_is_one_list() -> None:
    """RFC 9110, section 5.3; the last line is the nearest proxy's."""
    assert find((XFF, "1.1.1.1"), (XFF, "192.0.2.7, 10.2.2.2")).address == "192.0.2.7"


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        pytest.param("for=192.0.2.7", ("192.0.2.7", "http", "in.example"), id="address"),
        pytest.param(
            "for=192.0.2.7;proto=https;host=out.example",
            ("192.0.2.7", "https", "out.example"),
            id="scheme and host of the hop",
        ),
        pytest.param(
            'For="[2001:db8::7]:4711" ; PROTO="HTTPS";by=203.0.113.43',
            ("2001:db8::7", "https", "in.example"),
            id="quoted",
        ),
        pytest.param(
            "for=192.0.2.7;proto=https, for=10.0.0.2;proto=http",
            ("192.0.2.7", "https", "in.example"),
            id="the outermost trusted proxy knows the scheme",
        ),
        pytest.param(
            "for=1.1.1.1;host=evil.example, for=192.0.2.7", ("192.0.2.7", "http", "in.example"), id="forged"
        ),
        pytest.param('for="evil, for=192.0.2.7', ("192.0.2.7", "http", "in.example"), id="an open quote"),
        pytest.param("for=_hidden", (PROXY, "http", "in.example"), id="hidden"),
        pytest.param("for=unknown;proto=https", (PROXY, "http", "in.example"), id="unknown"),
        pytest.param("proto=https", (PROXY, "http", "in.example"), id="no address"),
        pytest.param("for=192.0.2.7;for=192.0.2.8", (PROXY, "http", "in.example"), id="twice"),
        pytest.param("for==;;,;=,", (PROXY, "http", "in.example"), id="garbage"),
        pytest.param(
            "for=192.0.2.7;proto=gopher", ("192.0.2.7", "http", "in.example"), id="no scheme of ours"
        ),
    ],
)
def test_forwarded_tells_address_scheme_and_host(told: str, expected: tuple[str, str, str]) -> None:
    """RFC 7239; each hop's element is read by itself, so what a client begins can't swallow what a proxy adds."""
    client = find(("Host", "in.example"), ("Forwarded", told), (XFF, "6.6.6.6"), header="forwarded")
    assert (client.address, client.scheme, client.host) == expected


def test_the_other_header_is_never_looked_at() -> None:
    """A proxy that sets one may pass on the other as the client sent it."""
    forged = ("Forwarded", "for=6.6.6.6;proto=https")
    assert find(forged).address == PROXY
    assert find(forged, (XFF, "192.0.2.7")).address == "192.0.2.7"
    assert find(forged, (XFF, "192.0.2.7")).scheme == "http"


def test_scheme_and_host_come_from_the_nearest_proxy() -> None:
    """X-Forwarded-Proto and -Host: the last word is the trusted peer's."""
    client = find(
        ("Host", "10.0.0.5:8080"),
        (XFF, "192.0.2.7"),
        ("X-Forwarded-Proto", "http, HTTPS"),
        ("X-Forwarded-Host", "evil.example"),
        ("X-Forwarded-Host", "out.example"),
    )
    assert (client.scheme, client.host) == ("https", "out.example")


def test_a_peer_without_an_address_is_unknown() -> None:
    """A UNIX socket, or a peer that is gone before it is asked."""
    assert find((XFF, "192.0.2.7"), peer=None).address == "unknown"


@pytest.mark.parametrize("text", ["", "1.2.3", "1.2.3.4.5", "[::1", "::1]", "1.2.3.4:", "[]:80", "a b", "\0"])
def test_what_is_no_address_is_none(text: str) -> None:
    """Never an exception."""
    assert parse_node(text) is None
    assert parse_address(text) is None
