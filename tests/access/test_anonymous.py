"""Who shows nothing: on loopback everything, beyond it nothing, unless the settings say so in clear words."""

import pytest

from voice_agent.access.anonymous import ANYBODY, Strangers, check_bind, may_be_anonymous
from voice_agent.access.client import Client
from voice_agent.access.origins import Standing
from voice_agent.core.errors import UnsafeBindError
from voice_agent.core.identity import Scope
from voice_agent.settings.schema import AccessSettings

EVERYWHERE = "0.0.0.0"  # noqa: S104 (nothing listens here)
ALL = frozenset(Scope)
CALL = frozenset({Scope.CALL})
NONE: frozenset[Scope] = frozenset()
HERE = Client(address="127.0.0.1", scheme="http", host="localhost:8080", came_by_proxy=False)
BY_PROXY = Client(address="127.0.0.1", scheme="http", host="localhost:8080", came_by_proxy=True)
BY_NAME = Client(address="127.0.0.1", scheme="http", host="evil.example:8080", came_by_proxy=False)
NO_HOST = Client(address="127.0.0.1", scheme="http", host="", came_by_proxy=False)
FAR = Client(address="192.0.2.7", scheme="http", host="voice.example", came_by_proxy=False)


def scopes(strangers: Strangers, client: Client, standing: Standing = Standing.NO_PAGE) -> frozenset[Scope]:
    identity = strangers.identify(client, standing)
    return NONE if identity is None else identity.scopes


def access(rule: str, *, has_keys: bool) -> AccessSettings:
    return AccessSettings(anonymous=rule, keys="something" if has_keys else "")


@pytest.mark.parametrize(
    ("rule", "host", "has_keys", "near", "far"),
    [
        ("loopback-without-keys", "127.0.0.1", False, ALL, CALL),
        ("loopback-without-keys", "::1", False, ALL, CALL),
        ("loopback-without-keys", "localhost", False, ALL, CALL),
        ("loopback-without-keys", "127.0.0.1", True, NONE, NONE),
        ("loopback-without-keys", EVERYWHERE, True, NONE, NONE),
        ("loopback-without-keys", EVERYWHERE, False, NONE, NONE),
        ("loopback", "127.0.0.1", True, ALL, CALL),
        ("loopback", "127.0.0.1", False, ALL, CALL),
        ("loopback", EVERYWHERE, True, NONE, NONE),
        ("never", "127.0.0.1", False, NONE, NONE),
        ("never", "127.0.0.1", True, NONE, NONE),
        ("never", EVERYWHERE, True, NONE, NONE),
        (ANYBODY, EVERYWHERE, False, CALL, CALL),
        (ANYBODY, EVERYWHERE, True, CALL, CALL),
        (ANYBODY, "127.0.0.1", True, CALL, CALL),
    ],
)
def test_what_the_rule_makes_of_them(
    rule: str, host: str, has_keys: bool, near: frozenset[Scope], far: frozenset[Scope]
) -> None:
    """Beyond this machine nobody gets more than the scope to call, whatever the rule says."""
    strangers = Strangers.of(access(rule, has_keys=has_keys), host=host)
    assert scopes(strangers, HERE) == near
    assert scopes(strangers, FAR) == far
    if near:
        assert may_be_anonymous(access(rule, has_keys=has_keys))


@pytest.mark.parametrize("client", [BY_PROXY, BY_NAME, NO_HOST], ids=["proxy", "other name", "no name"])
def test_who_came_round_by_a_proxy_or_another_name_may_call_and_no_more(client: Client) -> None:
    """A proxy on the machine, or a page under a name that leads to loopback (DNS rebinding), ends nobody's call."""
    assert scopes(Strangers.of(AccessSettings(), host="127.0.0.1"), client) == CALL


def test_a_page_of_an_allowed_site_may_call_and_no_more() -> None:
    """The operator let the site use the server; not its visitors' machines be the server's administrators."""
    strangers = Strangers.of(AccessSettings(), host="127.0.0.1")
    assert scopes(strangers, HERE, Standing.ALLOWED) == CALL
    assert scopes(strangers, HERE, Standing.OWN) == ALL


@pytest.mark.parametrize("rule", ["loopback-without-keys", "loopback", "never"])
@pytest.mark.parametrize("host", [EVERYWHERE, "::", "192.0.2.1", "example.org", "localhost.example", ""])
def test_a_server_beyond_loopback_asks_who_calls(rule: str, host: str) -> None:
    """Without keys it does not start, and the message says what to do; with keys, or the words, it does."""
    with pytest.raises(UnsafeBindError, match=ANYBODY) as refused:
        check_bind(access(rule, has_keys=False), host=host)
    assert refused.value.field == "server.host"
    check_bind(access(rule, has_keys=True), host=host)
    check_bind(access(ANYBODY, has_keys=False), host=host)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost"])
def test_a_server_on_loopback_need_not(host: str) -> None:
    """Whatever the rule."""
    for rule in ("loopback-without-keys", "loopback", "never", ANYBODY):
        check_bind(access(rule, has_keys=False), host=host)
