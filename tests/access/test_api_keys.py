"""The keys file: what it may say, and that no error ever repeats a hash or a key."""

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_agent.core.errors import SettingsError
from voice_agent.core.identity import Quotas, Scope
from voice_agent.settings.api_keys import KEY_ID, ApiKey, KeysError, key_line, keys_fault, parse_keys
from voice_agent.settings.load import load_settings

DIGEST = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


def line(rest: str = "", key_id: str = "kiosk") -> str:
    return f'{key_id} = {{ sha256 = "{DIGEST}"{rest} }}\n'


def test_a_line_says_everything_about_a_key() -> None:
    """Scopes, tenant, expiry and quotas stand beside the hash."""
    quotas = "quotas = { max_calls = 2, calls_per_minute = 1.5, requests_per_second = 3, max_duration_seconds = 60 }"
    keys = parse_keys(
        line(f', scopes = ["call", "observe"], tenant = "acme", expires = 2030-01-31, {quotas}')
    )
    key = keys["kiosk"]
    assert key.sha256 == bytes.fromhex(DIGEST)
    assert key.scopes == {Scope.CALL, Scope.OBSERVE}
    assert key.tenant == "acme"
    assert key.expires == dt.datetime(2030, 1, 31, tzinfo=dt.UTC)
    assert key.quotas == Quotas(
        max_calls=2, calls_per_minute=1.5, requests_per_second=3, max_duration_seconds=60
    )


def test_a_key_may_call_and_nothing_else_unless_its_line_says_so() -> None:
    """Left out, scopes are the least, and there is no expiry."""
    key = parse_keys(line())["kiosk"]
    assert (key.scopes, key.tenant, key.expires, key.quotas) == ({Scope.CALL}, "default", None, Quotas())


def test_several_keys_are_valid_at_once_and_no_text_means_none() -> None:
    """A key is replaced by adding the new one, moving callers over, and taking the old one away."""
    assert list(parse_keys("# old and new\n" + line() + line(key_id="kiosk-2"))) == ["kiosk", "kiosk-2"]
    assert parse_keys("") == {}


def test_a_moment_may_be_given_with_its_offset() -> None:
    """An expiry in the middle of a day is a moment, not a guess about a time zone."""
    key = parse_keys(line(", expires = 2030-01-31T14:00:00+02:00"))["kiosk"]
    assert key.expires == dt.datetime(2030, 1, 31, 12, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("kiosk = 3", "line 1, key kiosk: must be a table"),
        ("kiosk = {}", "line 1, key kiosk: sha256 is missing"),
        ('kiosk = { sha256 = "12" }', "line 1, key kiosk: sha256 must be the 64 hexadecimal digits"),
        ("kiosk = { sha256 = 12 }", "line 1, key kiosk: sha256 must be the 64 hexadecimal digits"),
        ("\n\n" + line(', scopes = "call"'), "line 3, key kiosk: scopes must be a list"),
        (line(", scopes = []"), "line 1, key kiosk: scopes must be a list of one or more"),
        (line(', scopes = ["cal"]'), "line 1, key kiosk: scopes must be"),
        (line(', scopes = [["call"]]'), "line 1, key kiosk: scopes must be"),
        (line(', tenant = ""'), "line 1, key kiosk: tenant must be"),
        (line(', tenant = "naïve"'), "line 1, key kiosk: tenant must be"),
        (line(', expires = "2030-01-31"'), "line 1, key kiosk: expires must be a date"),
        (line(", expires = 2030-01-31T12:00:00"), "line 1, key kiosk: expires must say its offset"),
        (line(", quotas = 3"), "line 1, key kiosk: quotas must be a table"),
        (line(", quotas = { max_calls = -1 }"), "line 1, key kiosk: quotas max_calls must be a whole number"),
        (line(", quotas = { max_calls = true }"), "line 1, key kiosk: quotas max_calls must be"),
        (line(", quotas = { max_calls = 1.5 }"), "line 1, key kiosk: quotas max_calls must be"),
        (line(", quotas = { calls_per_minute = 0 }"), "line 1, key kiosk: quotas calls_per_minute must be"),
        (line(", quotas = { calls_per_minute = nan }"), "line 1, key kiosk: quotas calls_per_minute must be"),
        (line(", quotas = { calls_per_minute = inf }"), "line 1, key kiosk: quotas calls_per_minute must be"),
        (
            line(", quotas = { retention_hours = -1 }"),
            "line 1, key kiosk: quotas retention_hours must be a number of hours",
        ),
        (line(", quotas = { retention_hours = nan }"), "line 1, key kiosk: quotas retention_hours must be"),
        (line(", quotas = { retention_hours = 87601 }"), "line 1, key kiosk: quotas retention_hours must be"),
        (line(", quotas = { retention_hours = false }"), "line 1, key kiosk: quotas retention_hours must be"),
        (line(", quotas = { max_cals = 1 }"), "line 1, key kiosk: quotas unknown field max_cals"),
        (line(", scope = 3"), "line 1, key kiosk: unknown field scope; the fields are sha256, scopes"),
        (line() + line(), "line 2: not valid TOML"),
        ("kiosk = {", "line 1: not valid TOML"),
        (line(key_id="Kiosk"), "line 1: a key's id has"),
        (line(key_id="-kiosk"), "line 1: a key's id has"),
        (line(key_id="k" * 33), "line 1: a key's id has"),
        (line(key_id="anonymous"), "line 1, key anonymous: this id means"),
        (f'[a]\nsha256 = "{DIGEST}"\n[b]\nsha256 = 1', "line 3, key b: sha256"),
    ],
)
def test_a_mistake_is_told_with_its_line_and_key(text: str, where: str) -> None:
    """Whoever edits a list of keys finds the one that is wrong."""
    fault = keys_fault(text)
    assert fault is not None
    assert fault.startswith(where)
    assert DIGEST not in fault


def test_every_wrong_key_is_told_at_once() -> None:
    """One start, all errors."""
    assert str(keys_fault("a = 1\n" + line() + "b = 2")).split("; ")[1].startswith("line 3, key b")


@pytest.mark.parametrize(
    "place", ["{} = 1", '"{}" = 1', "kiosk = {{ {} = 1 }}", "kiosk = {}", 'kiosk = "{}"']
)
@pytest.mark.parametrize("secret", [DIGEST, f"va_kiosk_{DIGEST}"])
def test_a_secret_in_the_wrong_place_is_not_repeated(place: str, secret: str) -> None:
    """An error goes into logs; what slipped to the left of the equals sign must not."""
    fault = keys_fault(place.format(secret))
    assert fault is not None
    assert secret not in fault


def test_the_settings_check_names_line_and_key_and_hides_the_rest() -> None:
    """A wrong list of keys stops the start like any wrong setting; the error's field is the setting."""
    with pytest.raises(SettingsError) as caught:
        load_settings(files=(), environ={"VOICE_AGENT__ACCESS__KEYS": line() + line(", scopes = 3", "b")})
    assert caught.value.field == "access.keys"
    assert "access.keys = ******** (environment VOICE_AGENT__ACCESS__KEYS): line 2, key b: scopes" in str(
        caught.value
    )
    assert DIGEST not in str(caught.value)


@given(st.text())
def test_any_text_is_keys_or_a_keys_error(text: str) -> None:
    """Nothing that stands in the variable can break the start in another way."""
    try:
        parse_keys(text)
    except KeysError:
        assert keys_fault(text) is not None


NUMBERS = st.none() | st.floats(min_value=1e-6, max_value=1e9)


@given(
    key_id=st.from_regex(KEY_ID, fullmatch=True).filter(lambda name: name != "anonymous"),
    key=st.builds(
        ApiKey,
        sha256=st.binary(min_size=32, max_size=32),
        scopes=st.frozensets(st.sampled_from(Scope), min_size=1),
        tenant=st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=64),
        expires=st.none() | st.datetimes(timezones=st.just(dt.UTC), min_value=dt.datetime(1970, 1, 2)),  # noqa: DTZ001
        quotas=st.builds(
            Quotas,
            max_calls=st.none() | st.integers(0, 10**9),
            calls_per_minute=NUMBERS,
            requests_per_second=NUMBERS,
            max_duration_seconds=NUMBERS,
            retention_hours=st.none() | st.floats(0, 87_600),
        ),
    ),
)
def test_a_line_that_is_written_is_read_as_the_same_key(key_id: str, key: ApiKey) -> None:
    """Whatever a key is, its line says it, on one line."""
    written = key_line(key_id, key)
    assert "\n" not in written
    assert parse_keys(written) == {key_id: key}
