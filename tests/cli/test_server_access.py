"""The key that a command shows: from a file or the environment, never from the command line, and never shown back."""

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from voice_agent.cli.server_access import (
    KEY_VARIABLE,
    ServerAccess,
    clear_text_risk,
    read_access,
    server_access_options,
)

KEY = "va_kiosk_0123456789abcdef"


def test_a_file_wins_over_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """White space around the key is dropped; without either there is no header."""
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    assert read_access(None, None) == ServerAccess()
    assert read_access(None, None).headers == []
    monkeypatch.setenv(KEY_VARIABLE, "other")
    assert read_access(None, None).key == "other"
    file = tmp_path / "key"
    file.write_text(f"  {KEY}\n")
    access = read_access(file, None)
    assert access.headers == [(b"Authorization", f"Bearer {KEY}".encode())]
    assert KEY not in repr(access)


@pytest.mark.parametrize(
    "text", ["", "  \n", "two words", f"{KEY}\n{KEY}", "kéy", "a\r\nX-Evil: 1", "a" * 9000, "\0", "=", "a=b"]
)
def test_what_is_no_key_is_refused_and_not_repeated(text: str, tmp_path: Path) -> None:
    """It may be a key with something behind it; and nothing of it can become a header of its own."""
    file = tmp_path / "key"
    file.write_bytes(text.encode())
    with pytest.raises(click.UsageError) as refused:
        read_access(file, None)
    assert "holds no key" in refused.value.message
    assert text.strip()[:8] not in refused.value.message.replace(str(file), "") or not text.strip("=\0 \n")


def test_a_key_can_be_piped_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """``--key-file -`` reads standard input, so that a key needs no file either."""

    @click.command()
    @server_access_options
    def show(key_file: Path | None, ca_file: Path | None) -> None:
        click.echo(len(read_access(key_file, ca_file).key or ""))

    result = CliRunner().invoke(show, ["--key-file", "-"], input=KEY + "\n")
    assert result.output == f"{len(KEY)}\n"
    assert "--key " not in CliRunner().invoke(show, ["--help"]).output


@pytest.mark.parametrize(
    ("url", "is_risk"),
    [
        ("ws://voice.example/v1/ws", True),
        ("http://192.0.2.7:8080", True),
        ("wss://voice.example/v1/ws", False),
        ("https://voice.example", False),
        ("ws://127.0.0.1:8080", False),
        ("ws://[::1]:8080", False),
        ("ws://localhost", False),
    ],
)
def test_a_key_in_clear_text_is_warned_of(url: str, is_risk: bool) -> None:
    """Not on loopback, and not under TLS."""
    assert (clear_text_risk(url) is not None) == is_risk
