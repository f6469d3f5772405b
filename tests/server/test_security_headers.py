"""What every answer of the guard carries."""

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
