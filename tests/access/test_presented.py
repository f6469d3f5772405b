"""What is shown is taken out of the request, once, and nothing of it is left behind."""

from typing import Any

import pytest

from voice_agent.access.authenticator import Credentials
from voice_agent.access.presented import AmbiguousError, take_credentials

SECRET = "tk-SECRET.1"  # noqa: S105 (of nobody)


def scope(kind: str = "http", *headers: tuple[str, str], query: bytes = b"", subprotocols: Any = ()) -> Any:
    offered = [("sec-websocket-protocol", ", ".join(subprotocols))] if subprotocols else []
    return {
        "type": kind,
        "path": "/v1/ws",
        "headers": [(n.lower().encode(), v.encode("utf-8")) for n, v in (("Host", "a"), *headers, *offered)],
        "query_string": query,
        "subprotocols": list(subprotocols),
    }


@pytest.mark.parametrize(
    ("request_scope", "expected"),
    [
        pytest.param(scope(), Credentials(), id="nothing"),
        pytest.param(
            scope("http", ("Authorization", f"Bearer {SECRET}")), Credentials(bearer=SECRET), id="bearer"
        ),
        pytest.param(
            scope("http", ("Authorization", f"bEARER  {SECRET}")), Credentials(bearer=SECRET), id="case"
        ),
        pytest.param(scope("http", ("X-API-Key", SECRET)), Credentials(api_key=SECRET), id="key"),
        pytest.param(
            scope("websocket", subprotocols=["voice-agent.v1", f"voice-agent.ticket.{SECRET}"]),
            Credentials(ticket=SECRET),
            id="subprotocol",
        ),
        pytest.param(
            scope("websocket", query=f"language=en&ticket={SECRET}&partials=true".encode()),
            Credentials(ticket=SECRET),
            id="query",
        ),
        pytest.param(
            scope("websocket", query=f"%74icket={SECRET.replace('-', '%2D')}".encode()),
            Credentials(ticket=SECRET),
            id="escaped",
        ),
        pytest.param(scope("http", ("Authorization", "Basic dTpw")), Credentials(), id="a proxy's own"),
        pytest.param(scope("http", query=b"ticket=x"), Credentials(), id="no ticket in a plain request"),
        pytest.param(scope("http", ("Authorization", "Bearer")), Credentials(bearer=""), id="no token"),
        pytest.param(scope("http", ("Authorization", "Bearer a b")), Credentials(bearer=""), id="two words"),
        pytest.param(scope("http", ("Authorization", "Bearer kéy")), Credentials(bearer=""), id="not ASCII"),
        pytest.param(scope("http", ("X-API-Key", "kéy")), Credentials(api_key=""), id="key not ASCII"),
        pytest.param(scope("websocket", query=b"ticket="), Credentials(ticket=""), id="empty ticket"),
    ],
)
def test_what_is_shown_is_found_and_taken_away(request_scope: Any, expected: Credentials) -> None:
    """Each place where one may stand; what is malformed counts as shown, and as wrong as anything."""
    found, cleared = take_credentials(request_scope)
    assert found == expected
    assert SECRET not in str(cleared)
    assert "SECRET" not in repr(found)
    assert (b"host", b"a") in cleared["headers"]


def test_what_is_no_secret_stays() -> None:
    """Other parameters and subprotocols reach the application as they were sent."""
    _, cleared = take_credentials(
        scope(
            "websocket",
            query=b"language=en&a=%20b&&c",
            subprotocols=["voice-agent.v1", "voice-agent.ticket.x", "other"],
        )
    )
    assert cleared["query_string"] == b"language=en&a=%20b&&c"
    assert cleared["subprotocols"] == ["voice-agent.v1", "other"]
    assert (b"sec-websocket-protocol", b"voice-agent.v1, other") in cleared["headers"]


@pytest.mark.parametrize(
    "request_scope",
    [
        scope("http", ("Authorization", "Bearer a"), ("X-API-Key", "b")),
        scope("http", ("Authorization", "Bearer a"), ("X-API-Key", "a")),
        scope("http", ("Authorization", "Bearer a"), ("Authorization", "Bearer a")),
        scope("http", ("X-API-Key", "a"), ("X-API-Key", "b")),
        scope("websocket", ("Authorization", "Bearer a"), query=b"ticket=b"),
        scope("websocket", query=b"ticket=a&ticket=a"),
        scope("websocket", query=b"ticket=a", subprotocols=["voice-agent.ticket.a"]),
        scope("websocket", subprotocols=["voice-agent.ticket.a", "voice-agent.ticket.b"]),
    ],
)
def test_more_than_one_is_too_many(request_scope: Any) -> None:
    """RFC 6750, section 2: one method in a request; which one counts is nobody's guess."""
    with pytest.raises(AmbiguousError):
        take_credentials(request_scope)
