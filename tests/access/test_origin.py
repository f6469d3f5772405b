"""Origins are compared as what they mean, and nothing else is one."""

import pytest

from voice_agent.core.origin import Origin


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("https://a.example", "HTTPS://A.EXAMPLE:443"),
        ("http://a.example:80", "http://a.example"),
        ("http://[2001:db8:0::1]:8080", "http://[2001:DB8::1]:8080"),
        ("chrome-extension://abcdef", "chrome-extension://abcdef"),
    ],
)
def test_two_ways_of_writing_one_origin_are_equal(one: str, other: str) -> None:
    """Case, default ports and the form of an IPv6 address mean nothing (RFC 6454, section 4)."""
    assert Origin.parse(one) == Origin.parse(other)
    assert Origin.parse(str(Origin.parse(one))) == Origin.parse(one)


@pytest.mark.parametrize(
    "other",
    [
        "http://a.example",
        "https://a.example:8443",
        "https://b.a.example",
        "https://a.example.",
        "https://a.exampl",
    ],
)
def test_scheme_host_and_port_count(other: str) -> None:
    """A page of another scheme, port or host is another site's."""
    assert Origin.parse(other) != Origin.parse("https://a.example")


@pytest.mark.parametrize(
    "text",
    [
        "", "null", "*", "https://*", "https://*.example", "a.example", "//a.example", "https://", "https:/a.example",
        "https://a.example/", "https://a.example/x", "https://a.example?x", "https://a.example#x", "https://u@a.example",
        "https://a.example:", "https://a.example:0", "https://a.example:65536", "https://a.example:99999999",
        "https://a.example:\uff18\uff10", "https://ä.example", "https://a b", " https://a.example", "https://a.example\n",
        "https://[::1", "https://[:::]", "https://[::1]x", "https://a.example,https://b.example", "https://" + "a" * 300,
        "https://a.example https://b.example", "https://-a.example",
    ],
)  # fmt: skip
def test_nothing_else_is_an_origin(text: str) -> None:
    """A pattern, a path, a list, or something that only looks like one."""
    with pytest.raises(ValueError, match=r".*"):
        Origin.parse(text)


@pytest.mark.parametrize(
    ("text", "is_loopback"),
    [
        ("http://localhost:8080", True),
        ("http://app.localhost", True),
        ("http://127.8.9.1", True),
        ("http://[::1]:1", True),
        ("http://localhost.example", False),
        ("http://127.0.0.1.example", False),
        ("http://10.0.0.1", False),
    ],
)
def test_which_names_mean_this_machine(text: str, is_loopback: bool) -> None:
    """Loopback addresses and localhost (RFC 6761), not names that begin like them."""
    assert Origin.parse(text).is_loopback is is_loopback
