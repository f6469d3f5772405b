"""What every answer of the guard carries."""

import pytest

from voice_agent.server.security_headers import HEADERS, completed


def test_what_is_missing_is_added() -> None:
    """All of them, once."""
    assert completed([]) == list(HEADERS)
    assert completed(completed([])) == list(HEADERS)


def test_an_answer_keeps_its_own() -> None:
    """In whatever case it writes the name."""
    own = [(b"Content-Security-Policy", b"script-src 'self'"), (b"cache-control", b"no-cache")]
    headers = completed(own)
    assert headers[:2] == own
    names = [name.lower() for name, _ in headers]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(("seconds", "value"), [(None, None), (0, None), (60.0, b"max-age=60")])
def test_browsers_are_told_of_tls_over_tls_alone(seconds: float | None, value: bytes | None) -> None:
    """RFC 6797, section 7.2: never over plain HTTP; and not twice."""
    headers = completed([], hsts_seconds=seconds)
    assert dict(headers).get(b"strict-transport-security") == value
    assert completed(headers, hsts_seconds=99) == headers or value is None
