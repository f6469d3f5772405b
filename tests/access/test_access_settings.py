"""What the settings check refuses about access, before anything listens: weak, public, misplaced and half settings."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from voice_agent.cli.settings_command import settings_group
from voice_agent.core.errors import SettingsError
from voice_agent.settings.load import load_settings
from voice_agent.settings.urls import is_fetchable

SECRET = "0123456789abcdef0123456789abcdef"  # noqa: S105 - made up; exactly as long as it has to be
TRUST = {"jwt_issuer": "https://id.example.org/", "jwt_audience": "voice-agent"}


def load(**access: Any) -> Any:
    environ = {f"VOICE_AGENT__ACCESS__{name.upper()}": str(value) for name, value in access.items()}
    return load_settings(files=(), environ=environ).settings.access


def refusal(**access: Any) -> str:
    with pytest.raises(SettingsError) as caught:
        load(**access)
    return caught.value.message


def test_a_shared_secret_has_32_bytes_or_more() -> None:
    """A shorter one could be found by trying against any token; bytes count, not characters."""
    assert load(jwt_secret=SECRET, **TRUST).jwt_secret == SECRET
    assert load(jwt_secret="é" * 16, **TRUST)
    message = refusal(jwt_secret=SECRET[:-1], **TRUST)
    assert "must have 32 bytes or more" in message
    assert SECRET[:-1] not in message


def test_a_shared_secret_is_no_key_in_pem() -> None:
    """A public key as secret would let everybody sign; the message says where it belongs."""
    pem = "-----BEGIN PUBLIC KEY-----\n" + "A" * 200 + "\n-----END PUBLIC KEY-----"
    message = refusal(jwt_secret=pem, **TRUST)
    assert "must not be a key in PEM" in message
    assert "AAAA" not in message


@pytest.mark.parametrize("name", ["keys", "jwt_secret"])
def test_a_secret_file_that_everybody_can_read_is_refused(tmp_path: Path, name: str) -> None:
    """As for every secret: the error says how to mend it."""
    path = tmp_path / "secret"
    path.write_text(SECRET)
    path.chmod(0o644)
    assert "can be read by every user" in refusal(**{f"{name}_file": path}, **TRUST)


@pytest.mark.parametrize("name", ["keys", "jwt_secret"])
def test_a_secret_does_not_stand_in_settings_toml(tmp_path: Path, name: str) -> None:
    """That file goes into version control."""
    path = tmp_path / "settings.toml"
    path.write_text(f'[access]\n{name} = "{SECRET}"\n')
    with pytest.raises(SettingsError, match="a secret can't stand here") as caught:
        load_settings(files=(path,), environ={})
    assert SECRET not in caught.value.message


@pytest.mark.parametrize(
    "access",
    [
        {"jwt_secret": SECRET},
        {"jwt_secret": SECRET, "jwt_issuer": "a"},
        {"jwt_secret": SECRET, "jwt_audience": "a"},
        {"jwks_file": "a"},
        {"jwks_url": "https://id.example.org/keys", "jwt_issuer": "a"},
        {"jwt_issuer": "a"},
        {"jwt_audience": "a"},
        TRUST,
    ],
    ids="+".join,
)
def test_trust_in_tokens_is_whole_or_not_at_all(access: dict[str, str]) -> None:
    """Without an issuer or an audience, tokens that were meant for others would be taken."""
    assert "all of the three, or none" in refusal(**access)


def test_there_is_one_key_set() -> None:
    """A file or an address, not both."""
    assert "exclude each other" in refusal(jwks_file="a", jwks_url="https://id.example.org/", **TRUST)


@pytest.mark.parametrize(
    ("url", "is_good"),
    [
        ("https://id.example.org/.well-known/jwks.json", True),
        ("https://id.example.org:8443/keys?tenant=1", True),
        ("http://127.0.0.1:8080/keys", True),
        ("http://[::1]/keys", True),
        ("http://localhost/keys", True),
        ("http://id.example.org/keys", False),
        ("http://127.0.0.1.example.org/keys", False),
        ("http://192.0.2.1/keys", False),
        ("https://user:password@id.example.org/keys", False),
        ("https://@id.example.org/keys", False),
        ("https://id.example.org/keys#1", False),
        ("https:///keys", False),
        ("https://id.example.org:0/keys", False),
        ("https://id.example.org:99999/keys", False),
        ("https://id.example.org/a b", False),
        ("https://id.example.org/é", False),
        ("https://[::1", False),
        ("file:///etc/passwd", False),
        ("ftp://id.example.org/keys", False),
        ("id.example.org/keys", False),
        ("HTTPS://ID.EXAMPLE.ORG/keys", True),
    ],
)
def test_a_key_set_is_fetched_from_where_nobody_can_change_it(url: str, is_good: bool) -> None:
    """Over TLS, or without leaving the machine; with no password that would end up in a log."""
    assert is_fetchable(url) is is_good
    if is_good:
        assert load(jwks_url=url, **TRUST).jwks_url == url
    else:
        assert "must be an https:// address" in refusal(jwks_url=url, **TRUST)


def test_the_settings_check_exits_with_78(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What a deployment's pipeline branches on."""
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(
        settings_group,
        ["check"],
        env={"VOICE_AGENT__ACCESS__JWT_SECRET": "short", "VOICE_AGENT__ACCESS__KEYS": "k = 1"},
    )
    assert result.exit_code == 78
    assert "access.jwt_secret must have 32 bytes or more" in result.stderr
    assert "line 1, key k: must be a table" in result.stderr
