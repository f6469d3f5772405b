"""Secrets: where they may come from, and that nothing ever shows one."""

import os
import tomllib
from pathlib import Path
from typing import Any

import attrs
import pytest

from voice_agent.core.errors import SettingsError
from voice_agent.settings.declare import setting
from voice_agent.settings.load import MAX_SECRET_BYTES, Loaded, load
from voice_agent.settings.rules import Rule
from voice_agent.settings.write import render_reference, render_settings

SECRET = "correct-horse-battery-staple-0123"  # noqa: S105 - made up for these tests
VARIABLE = "VOICE_AGENT__AUTH__TOKEN"


@attrs.frozen(kw_only=True)
class Auth:
    """Who may call."""

    token: str = setting("", "What callers show.", secret=True, minimum=32, maximum=256)
    realm: str = setting("calls", "What it opens.")


@attrs.frozen(kw_only=True)
class Root:
    """A schema with one secret."""

    auth: Auth = attrs.field(factory=Auth)


def loaded_from(**environ: str) -> Loaded[Root]:
    """Load the schema above from the environment only."""
    return load(Root, files=(), environ=environ)


def refusal(**layers: Any) -> str:
    """Load, which must fail, and return the message; no part of the error may hold the secret."""
    with pytest.raises(SettingsError) as caught:
        load(Root, **{"files": (), "environ": {}, **layers})
    assert SECRET not in repr(caught.value)
    assert SECRET not in caught.value.message
    assert caught.value.__cause__ is None
    return caught.value.message


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    """A mounted file that only its owner reads, with the newline that editors leave."""
    path = tmp_path / "token"
    path.write_text(f"\n {SECRET}\n")
    path.chmod(0o600)
    return path


def test_a_secret_comes_from_the_environment() -> None:
    """As any setting; its source is the variable."""
    loaded = loaded_from(VOICE_AGENT__AUTH__TOKEN=SECRET)
    assert loaded.settings.auth.token == SECRET
    assert str(loaded.sources["auth.token"]) == f"environment {VARIABLE}"


def test_a_secret_comes_from_a_mounted_file(secret_file: Path) -> None:
    """The file's content, stripped; its source is the variable that names the file."""
    loaded = loaded_from(VOICE_AGENT__AUTH__TOKEN_FILE=str(secret_file))
    assert loaded.settings.auth.token == SECRET
    assert str(loaded.sources["auth.token"]) == f"file named by {VARIABLE}_FILE"


def test_a_secret_in_a_settings_file_or_a_flag_is_refused_and_not_shown(tmp_path: Path) -> None:
    """Files are committed and flags are listed by `ps`: neither may hold a secret; the remedy is named."""
    path = tmp_path / "s.toml"
    path.write_text(f'[auth]\ntoken = "{SECRET}"\n')
    message = refusal(files=[path], flags={"auth.token": SECRET})
    remedy = (
        f"a secret can't stand here; set {VARIABLE}, or {VARIABLE}_FILE to the path of a file that holds it"
    )
    assert message.replace(f"{tmp_path}/", "").splitlines() == [
        "2 errors in the settings:",
        f"  auth.token = ******** (s.toml:2): {remedy}",
        f"  auth.token = ******** (flag auth.token): {remedy}",
    ]


def test_a_secret_under_a_misspelt_name_is_not_shown(tmp_path: Path) -> None:
    """What stands under an unknown name may be a secret: its text stays out of the error."""
    path = tmp_path / "s.toml"
    path.write_text(f'[auth]\ntokn = "{SECRET}"\nall = ["{SECRET}"]\nmore = {{x = "{SECRET}"}}\n')
    message = refusal(files=[path], environ={"VOICE_AGENT__AUTH__TOKNE": SECRET}, flags={"auth.toke": SECRET})
    assert message.count("\n") == 5
    assert f"did you mean {VARIABLE}?" in message


def test_a_secret_out_of_range_is_refused_and_not_shown() -> None:
    """A short secret is refused with its limit in bytes."""
    message = refusal(environ={VARIABLE: "hunter2"})
    assert "hunter2" not in message
    assert (
        f"auth.token = ******** (environment {VARIABLE}): is out of range; must be text from 32 to 256"
        in message
    )


def test_a_secret_that_breaks_a_rule_is_not_shown() -> None:
    """Rules state values; a secret's is redacted there too."""
    rule = Rule[Root](
        ("auth.token", "auth.realm"), lambda root: root.auth.token == root.auth.realm, "be equal"
    )
    message = refusal(environ={VARIABLE: SECRET}, rules=[rule])
    assert f"auth.token = ******** (environment {VARIABLE}), auth.realm" in message


def test_a_secret_given_twice_is_refused(secret_file: Path) -> None:
    """Which of the two was meant can't be known."""
    message = refusal(environ={VARIABLE: SECRET, f"{VARIABLE}_FILE": str(secret_file)})
    assert message.splitlines()[1:] == [
        f"  auth.token: both {VARIABLE} and {VARIABLE}_FILE are set; unset one"
    ]


@pytest.mark.parametrize(
    ("content", "mode", "words"),
    [
        (b" \n", 0o600, "is empty"),
        (SECRET.encode(), 0o644, r"can be read by every user; take that right away (chmod o-r)"),
        (b"\xff" * 40, 0o600, "is not UTF-8 text (line 1)"),
        (b"x" * (MAX_SECRET_BYTES + 1), 0o600, "is larger than 65536 bytes"),
        (None, 0o600, "can't be read: No such file or directory"),
    ],
)
def test_a_secret_file_that_will_not_do_is_refused(
    tmp_path: Path, content: bytes | None, mode: int, words: str
) -> None:
    """Empty, open to all, not text, huge or missing: named with its path, its variable and the reason."""
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
        path.chmod(mode)
    message = refusal(environ={f"{VARIABLE}_FILE": str(path)})
    assert message.splitlines()[1:] == [f'  auth.token: "{path}", the file named by {VARIABLE}_FILE, {words}']


def test_a_mounted_file_is_for_secrets_only(secret_file: Path) -> None:
    """`*_FILE` of a setting that is no secret is an unknown variable."""
    message = refusal(environ={"VOICE_AGENT__AUTH__REALM_FILE": str(secret_file)})
    assert "no such setting; did you mean VOICE_AGENT__AUTH__REALM?" in message


def test_a_secret_that_was_loaded_is_redacted_everywhere() -> None:
    """Neither `repr` nor `settings show` has it; that it is set, and from where, can be seen."""
    loaded = loaded_from(VOICE_AGENT__AUTH__TOKEN=SECRET)
    shown = render_settings(loaded)
    assert SECRET not in shown
    assert SECRET not in repr(loaded)
    assert tomllib.loads(shown)["auth"]["token"] == "********"  # noqa: S105 - the redaction itself
    assert f"# environment {VARIABLE}" in shown


def test_a_secret_that_is_not_set_is_shown_as_not_set() -> None:
    """An operator can tell a missing secret from a redacted one."""
    assert 'token = ""  # default' in render_settings(loaded_from())


def test_the_reference_says_how_to_set_a_secret_and_sets_none() -> None:
    """A reference file with a secret's key in it would be refused at the next start."""
    reference = render_reference(Root)
    assert f"A secret: set {VARIABLE} or {VARIABLE}_FILE." in reference
    assert tomllib.loads(reference) == {"auth": {"realm": "calls"}}


def test_the_real_environment_is_not_needed() -> None:
    """What these tests load can't depend on the machine: nothing of the prefix is read but what is given."""
    os.environ["VOICE_AGENT__AUTH__TOKEN"] = SECRET
    try:
        assert loaded_from().settings.auth.token == ""
    finally:
        del os.environ["VOICE_AGENT__AUTH__TOKEN"]
