"""The addresses of a Redis: what each says, and what is said of a wrong one."""

import attrs
import pytest

from voice_agent.core.errors import SettingsError
from voice_agent.settings.load import load_settings
from voice_agent.settings.redis_address import RedisAddress, Topology, address_fault, parse_redis_address

WORD = "word"
SECRET = "s3cret!"  # noqa: S105 (of nobody)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://host", RedisAddress(topology=Topology.ALONE, servers=(("host", 6379),))),
        (
            "rediss://me:p%40ss%3A%2Fword@host:7000/2",
            RedisAddress(
                topology=Topology.ALONE,
                is_encrypted=True,
                servers=(("host", 7000),),
                database=2,
                username="me",
                password=f"p@ss:/{WORD}",
            ),
        ),
        (
            "redis://:word@[::1]:7000",
            RedisAddress(topology=Topology.ALONE, servers=(("::1", 7000),), password=WORD),
        ),
        (
            "unix://me:word@/run/my%20redis.sock?db=3",
            RedisAddress(
                topology=Topology.SOCKET,
                path="/run/my redis.sock",
                database=3,
                username="me",
                password=WORD,
            ),
        ),
        (
            "redis+sentinel://me:word@one,two:26380/calls/1?sentinel_username=x&sentinel_password=y%26word",
            RedisAddress(
                topology=Topology.SENTINEL,
                servers=(("one", 26379), ("two", 26380)),
                service="calls",
                database=1,
                username="me",
                password=WORD,
                sentinel_username="x",
                sentinel_password=f"y&{WORD}",
            ),
        ),
        (
            "rediss+cluster://one:7001,two",
            RedisAddress(
                topology=Topology.CLUSTER, is_encrypted=True, servers=(("one", 7001), ("two", 6379))
            ),
        ),
    ],
)
def test_an_address_says_where_and_who(url: str, expected: RedisAddress) -> None:
    """Each form is read whole, percent-encoding undone."""
    assert parse_redis_address(url) == expected


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "begins with none of"),
        ("http://host", "begins with none of"),
        ("redis:host", "begins with none of"),
        ("redis://", "host is missing"),
        (f"redis://me:{SECRET}@host:port", "port"),
        (f"redis://me:{SECRET}@host:70000", "port"),
        (f"redis://me:{SECRET}@host:0", "port"),
        (f"redis://me:p:{SECRET}/x@host", "port"),
        (f"redis://me:{SECRET}#x@host", "percent-encoded"),
        (f"redis://me:{SECRET} x@host", "percent-encoded"),
        (f"redis://me:{SECRET}é@host", "percent-encoded"),
        ("redis://me@host", "without a password"),
        (f"redis://me:{SECRET}@host/one", "no number"),
        (f"redis://me:{SECRET}@one,two", "several hosts"),
        (f"redis://me:{SECRET}@host?ssl_cert_reqs=none", "not known: ssl_cert_reqs"),
        ("unix://run/redis.sock", "three slashes"),
        ("unix://", "three slashes"),
        (f"redis+sentinel://me:{SECRET}@one,two", "name of the service"),
        (f"redis+sentinel://me:{SECRET}@one,,two/calls", "host is missing"),
        (f"redis+cluster://me:{SECRET}@one/3", "database 0 only"),
    ],
)
def test_a_wrong_address_is_told_in_words_that_repeat_no_secret(url: str, words: str) -> None:
    """The operator reads what is wrong; the password stays out of it."""
    fault = address_fault(url)
    assert fault is not None
    assert words in fault
    assert SECRET not in fault
    assert "p:" not in fault


def test_no_text_of_an_address_shows_names_or_passwords() -> None:
    """A trace or log that holds an address is harmless."""
    address = parse_redis_address(
        f"redis+sentinel://me-myself:{SECRET}@one/calls?sentinel_username=sentry&sentinel_password={SECRET}"
    )
    assert SECRET not in repr(address)
    assert "me-myself" not in repr(address)
    assert "sentry" not in repr(address)
    assert SECRET in attrs.asdict(address).values()


def test_the_settings_refuse_a_wrong_address_and_say_why() -> None:
    """Before anything is opened, and without the password."""
    environ = {
        "VOICE_AGENT__STORE__KIND": "redis",
        "VOICE_AGENT__STORE__REDIS_URL": f"redis+sentinel://me:{SECRET}@one",
    }
    with pytest.raises(SettingsError, match="name of the service") as caught:
        load_settings(environ=environ)
    assert SECRET not in str(caught.value)
