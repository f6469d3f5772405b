"""Redaction: what is hidden, and what is not."""

import pytest

from voice_agent.access.keys import new_key
from voice_agent.observability.redaction import HIDDEN, is_secret_key, redacted, redacted_text


@pytest.mark.parametrize(
    "key",
    [
        "authorization",
        "Authorization",
        "Proxy-Authorization",
        "X-API-Key",
        "api_keys",
        "turn_secret",
        "TURN_SECRET",
        "client_secret",
        "password",
        "tickets",
        "ticket",
        "access_token",
        "refresh_tokens",
        "cookie",
        "Set-Cookie",
        "Sec-WebSocket-Protocol",
        "private_key",
        "turn_credential",
        "jwt",
    ],
)
def test_a_secret_goes_by_its_key(key: str) -> None:
    """However it is written."""
    assert is_secret_key(key)
    assert redacted({key: "s3cr3t"}) == {key: HIDDEN}
    assert redacted([{"headers": {key: ["s3cr3t"]}}]) == [{"headers": {key: HIDDEN}}]


@pytest.mark.parametrize(
    "key", ["key", "key_id", "session", "event", "action", "path", "keys", "utterance_key"]
)
def test_what_an_sre_needs_stays(key: str) -> None:
    """The id of a key is no secret, and the rest is what lines are for."""
    assert redacted({key: "some-id"}) == {key: "some-id"}


def test_numbers_stay() -> None:
    """How many tokens there were is no token."""
    assert redacted({"tokens": 12, "ticket": None, "secret": True}) == {
        "tokens": 12,
        "ticket": None,
        "secret": True,
    }


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer s3cr3t",
        "authorization: bearer s3cr3t, and more",
        "Basic s3cr3tczM=",
        "GET /v1/ws?ticket=s3cr3t&encoding=opus",
        "GET /v1/ws?encoding=opus&access_token=s3cr3t",
        "X-API-Key: s3cr3t",
        "{'X-API-Key': 's3cr3t'}",
        '{"api_key": "s3cr3t"}',
        "token=s3cr3t",
        "offered voice-agent.v1, voice-agent.ticket.s3cr3t",
        "next=%2Fv1%3Fticket%3Ds3cr3t",
        "the token eyJhbGciOiJIUzI1NiJ9.s3cr3t.s3cr3t is late",
        "https://user:s3cr3t@example.org/path",
        "redis://:s3cr3t@127.0.0.1:6379/0",
        "-----BEGIN PRIVATE KEY-----\ns3cr3t\n-----END PRIVATE KEY-----",
    ],
)
def test_a_secret_goes_by_its_shape(text: str) -> None:
    """In the middle of other text, which stays."""
    clean = redacted_text(text)
    assert "s3cr3t" not in clean
    assert HIDDEN in clean


@pytest.mark.parametrize(
    "text",
    [
        "models_loaded",
        "GET /v1/ws?encoding=opus",
        "no ticket was shown",
        "http://127.0.0.1:8080/healthz",
        "mail me@example.org",
    ],
)
def test_plain_text_stays(text: str) -> None:
    """The shapes are not so wide that nothing could be read."""
    assert redacted_text(text) == text


def test_an_api_key_is_known_by_itself() -> None:
    """Wherever it stands; what is left says whose it was."""
    key = new_key("desk-1").text
    assert redacted_text(f"sent {key} to us") == f"sent va_desk-1_{HIDDEN} to us"


def test_anything_else_is_shown_without_its_secrets() -> None:
    """Objects and bytes are shown by their repr, and that is searched too; endless nesting ends."""

    class Request:
        def __repr__(self) -> str:
            return "<Request Bearer s3cr3t>"

    assert redacted({"request": Request(), "raw": b"ticket=s3cr3t"}) == {
        "request": f"<Request Bearer {HIDDEN}",
        "raw": f"b'ticket={HIDDEN}'",
    }
    endless: list[object] = []
    endless.append(endless)
    assert HIDDEN in repr(redacted(endless))
