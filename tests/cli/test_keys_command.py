"""``voice-agent keys``: what is printed works, once, and is written where it is said."""

import json
import re
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from voice_agent.access.keys import KeyTable
from voice_agent.access.rejection import RejectedError
from voice_agent.cli.keys_command import keys
from voice_agent.core.identity import Hours, Quotas, Scope
from voice_agent.settings.api_keys import parse_keys

KEY = re.compile(r"^va_[a-z0-9-]+_[0-9a-f]{64}$", re.MULTILINE)


def run(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(keys, arguments, env=environment)


def made(*arguments: str) -> tuple[str, str]:
    """Make a key; return it and its line."""
    result = run("new", *arguments)
    assert result.exit_code == 0, result.output
    (key,) = KEY.findall(result.stdout)
    return key, result.stdout.splitlines()[-1]


def test_a_key_and_its_line_fit_each_other() -> None:
    """What goes to the caller opens what goes to the server, with the least that is useful: ``call``."""
    key, line = made()
    identity = KeyTable(line).identify(key, now=0)
    assert identity.key_id == key.split("_")[1]
    assert (identity.scopes, identity.tenant, identity.expires_at) == ({Scope.CALL}, "default", None)
    assert key.rpartition("_")[2] not in line


def test_every_option_reaches_the_line() -> None:
    """Id, scopes, tenant, expiry and quotas."""
    key, line = made(
        "--id", "kiosk-1", "--scope", "observe", "--scope", "admin", "--tenant", 'a"\\c', "--expires", "2040-01-31",
        "--max-calls", "2", "--calls-per-minute", "1.5", "--requests-per-second", "3", "--max-duration-seconds", "60",
        "--retention-hours", "0.5",
    )  # fmt: skip
    known = parse_keys(line)["kiosk-1"]
    assert (known.scopes, known.tenant) == ({Scope.OBSERVE, Scope.ADMIN}, 'a"\\c')
    assert known.expires == datetime(2040, 1, 31, tzinfo=UTC)
    assert known.quotas == Quotas(
        max_calls=2,
        calls_per_minute=1.5,
        requests_per_second=3,
        max_duration_seconds=60,
        retention_hours=Hours(0.5),
    )
    assert KeyTable(line).identify(key, now=0).key_id == "kiosk-1"


def test_each_key_is_another() -> None:
    """Two runs never print the same."""
    assert made("--id", "a")[0] != made("--id", "a")[0]


def test_json_is_for_programs() -> None:
    """Id, key and line."""
    result = run("new", "--id", "kiosk", "--json")
    told = json.loads(result.stdout)
    assert list(told) == ["id", "key", "line"]
    assert KeyTable(told["line"]).identify(told["key"], now=0).key_id == told["id"] == "kiosk"


@pytest.mark.parametrize(("text", "span"), [("90d", timedelta(days=90)), ("12h", timedelta(hours=12))])
def test_an_expiry_may_be_told_from_now(text: str, span: timedelta) -> None:
    """Nobody has to compute a date."""
    before = datetime.now(UTC).replace(microsecond=0)
    expires = parse_keys(made("--expires", text)[1]).popitem()[1].expires
    assert expires is not None
    assert before + span <= expires <= datetime.now(UTC) + span


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--id", "Kiosk"], "a key's id has 1 to 32 lower-case letters"),
        (["--id", ""], "a key's id has"),
        (["--id", "a = 1\nb"], "a key's id has"),
        (["--id", "anonymous"], "this id means callers without a key"),
        (["--scope", "root"], "'root' is not one of"),
        (["--tenant", ""], "tenant must be"),
        (["--tenant", "a b"], "tenant must be"),
        (["--max-calls", "-1"], "max_calls must be"),
        (["--calls-per-minute", "0"], "calls_per_minute must be"),
        (["--calls-per-minute", "nan"], "calls_per_minute must be"),
        (["--max-duration-seconds", "inf"], "max_duration_seconds must be"),
        (["--retention-hours", "-1"], "retention_hours must be"),
        (["--expires", "2020-01-31"], "lies in the past"),
        (["--expires", "0d"], "neither a date"),
        (["--expires", "tomorrow"], "neither a date"),
        (["--expires", "9999999d"], "neither a date"),
        (["--expires", ""], "neither a date"),
    ],
)
def test_wrong_usage_is_told(arguments: list[str], words: str) -> None:
    """Exit code 2, what is allowed, and no key that would not work."""
    result = run("new", *arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert not KEY.search(result.output)


def test_a_line_may_go_straight_into_a_file(tmp_path: Path) -> None:
    """A new file is its owner's alone; an old one keeps what stands in it, and each key works."""
    path = tmp_path / "keys.toml"
    first = KEY.findall(run("new", "--id", "a", "--add-to", str(path)).stdout)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_text("# ours\n" + path.read_text().rstrip("\n"))
    second = KEY.findall(run("new", "--id", "b", "--add-to", str(path)).stdout)
    assert path.read_text().startswith("# ours\n")
    table = KeyTable(path.read_text())
    assert [table.identify(key, now=0).key_id for key in first + second] == ["a", "b"]
    assert not any(key.rpartition("_")[2] in path.read_text() for key in first + second)


def test_a_file_that_is_no_list_of_keys_is_left_as_it_is(tmp_path: Path) -> None:
    """Nothing is added to what the server would refuse, nor a second key of the same id; no key is shown then."""
    path = tmp_path / "keys.toml"
    run("new", "--id", "a", "--add-to", str(path))
    before = path.read_bytes()
    twice = run("new", "--id", "a", "--add-to", str(path))
    assert (twice.exit_code, path.read_bytes()) == (2, before)
    assert "has a key a already" in twice.stderr
    for content in (b"[server]\nport = 1\n", b"\xff\xfe", b"a = {"):
        path.write_bytes(content)
        result = run("new", "--id", "c", "--add-to", str(path))
        assert result.exit_code in (73, 78)
        assert path.read_bytes() == content
        assert not KEY.search(result.output)


def test_a_file_that_can_t_be_written_is_told(tmp_path: Path) -> None:
    """Exit code 73, and no key that nobody could use."""
    result = run("new", "--add-to", str(tmp_path / "missing" / "keys.toml"))
    assert result.exit_code == 73
    assert "can't be written: No such file or directory" in result.stderr
    assert not KEY.search(result.output)


def test_the_keys_are_listed_without_their_hashes() -> None:
    """What each may do and until when; an expired one stands out."""
    lines = [made("--id", "kiosk", "--max-calls", "2")[1], made("--id", "ops", "--scope", "admin")[1]]
    lines.append(made("--id", "old")[1].replace(" }", ", expires = 2020-01-31 }"))
    environment = {"VOICE_AGENT__ACCESS__KEYS": "\n".join(lines)}
    result = run("list", **environment)
    assert result.exit_code == 0, result.output
    _, *rows = result.stdout.splitlines()
    assert [row.split()[0] for row in rows] == ["kiosk", "ops", "old"]
    assert "max_calls 2" in rows[0]
    assert "admin" in rows[1]
    assert "(expired)" in rows[2]
    assert not re.search(r"[0-9a-f]{64}", result.output)
    told = json.loads(run("list", "--json", **environment).stdout)["keys"]
    assert [(key["id"], key["expired"]) for key in told] == [("kiosk", False), ("ops", False), ("old", True)]


def test_wrong_keys_are_told_by_the_list_too() -> None:
    """Exit code 78, with line and id."""
    result = run("list", VOICE_AGENT__ACCESS__KEYS="kiosk = 1")
    assert result.exit_code == 78
    assert "line 1, key kiosk: must be a table" in result.stderr


def test_a_key_that_was_not_configured_is_nobody_s() -> None:
    """The table of one key refuses another of the same id."""
    (key, _), (_, line) = made("--id", "kiosk"), made("--id", "kiosk")
    with pytest.raises(RejectedError):
        KeyTable(line).identify(key, now=0)
