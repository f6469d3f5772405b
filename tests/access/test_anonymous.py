"""Strangers: let in on loopback while there is nobody to tell them apart from, else only by a setting."""

import pytest

from voice_agent.access.anonymous import anonymous_identity
from voice_agent.core.identity import ANONYMOUS, Scope
from voice_agent.settings.schema import AccessSettings

KEYS = "something"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost"])
def test_on_loopback_without_keys_everybody_may_do_everything(host: str) -> None:
    """Whoever sits at the machine needs no key to try the server, its metrics and its administration."""
    assert anonymous_identity(AccessSettings(), host=host) is ANONYMOUS


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", "localhost.example.org", ""])  # noqa: S104
def test_beyond_loopback_strangers_are_let_in_by_the_setting_alone(host: str) -> None:
    """And then they may call, but not look and not administer."""
    assert anonymous_identity(AccessSettings(), host=host) is None
    allowed = anonymous_identity(AccessSettings(allow_anonymous_beyond_loopback=True), host=host)
    assert allowed is not None
    assert (allowed.key_id, allowed.scopes) == ("anonymous", {Scope.CALL})


def test_with_a_key_configured_loopback_is_no_proof() -> None:
    """A proxy on the same machine brings everybody from loopback; keys would be worth nothing behind it."""
    assert anonymous_identity(AccessSettings(keys=KEYS), host="127.0.0.1") is None
    allowed = anonymous_identity(
        AccessSettings(keys=KEYS, allow_anonymous_beyond_loopback=True), host="127.0.0.1"
    )
    assert allowed is not None
    assert allowed.scopes == {Scope.CALL}
