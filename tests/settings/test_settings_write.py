"""Writing: what `settings show` prints, and the reference file that the repository holds."""

import tomllib
from pathlib import Path

import attrs
import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_agent.settings.fields import describe, fields_by_key
from voice_agent.settings.load import load_settings
from voice_agent.settings.schema import Settings
from voice_agent.settings.write import render_reference, render_settings

REPOSITORY = Path(__file__).parents[2]


def test_the_repository_file_is_the_reference() -> None:
    """settings.toml is written from the schema: `voice-agent settings reference > settings.toml`."""
    assert (REPOSITORY / "settings.toml").read_text(encoding="utf-8") == render_reference()


def test_the_reference_loads_to_all_defaults() -> None:
    """Each setting stands in the file, with its default; but for secrets, which may not stand there."""
    loaded = load_settings(files=[REPOSITORY / "settings.toml"], environ={})
    assert loaded.settings == Settings()
    without_line = {key for key, source in loaded.sources.items() if not source.line}
    assert without_line == {key for key, field in fields_by_key(Settings).items() if field.secret}


def test_the_reference_explains_each_setting() -> None:
    """Why, unit and range stand right above each setting, sections and settings in the schema's order."""
    lines = render_reference().splitlines()
    at = -1
    for section in describe(Settings):
        assert lines[lines.index(f"[{section.name}]") - 1] == f"# {section.title}"
        for field in section.fields:
            found = next(
                index
                for index, line in enumerate(lines)
                if index > at and line.startswith((f"{field.name} =", f"# {field.name}: "))
            )
            explained = lines[found] if field.secret else lines[found - 1]
            assert field.why in explained
            assert field.unit in explained
            assert field.range in explained
            assert ("restart" in explained) != field.live
            at = found


@hypothesis.settings(deadline=None)  # a shared machine is slow at times
@given(
    st.builds(
        Settings,
        server=st.builds(
            type(Settings().server),
            host=st.text(st.characters(exclude_characters="\0", codec="utf-8")),
            grace_seconds=st.floats(0, 3600),
        ),
    )
)
def test_what_is_shown_is_toml_that_loads_to_the_same_settings(
    tmp_path_factory: pytest.TempPathFactory, wanted: Settings
) -> None:
    """`settings show` prints a settings file: any host, with quotes, newlines or comments in it, comes back."""
    fields = fields_by_key(Settings)
    flags = {
        f"{section.name}.{name}": value
        for section in attrs.fields(Settings)
        for name, value in attrs.asdict(getattr(wanted, section.name)).items()
        if not fields[f"{section.name}.{name}"].secret
    }
    shown = render_settings(load_settings(files=(), environ={}, flags=flags))
    path = tmp_path_factory.getbasetemp() / "shown.toml"
    secrets = tuple(f"{field.name} = " for field in fields.values() if field.secret)
    lines = [line for line in shown.splitlines(keepends=True) if not line.startswith(secrets)]
    path.write_text("".join(lines), encoding="utf-8")
    assert load_settings(files=[path], environ={}).settings == wanted


def test_each_value_is_shown_with_its_source(tmp_path: Path) -> None:
    """One line a value, the source behind it, and whether a change waits for a restart."""
    path = tmp_path / "a.toml"
    path.write_text("[server]\nmax_calls = 3\n")
    shown = render_settings(
        load_settings(files=[path], environ={"VOICE_AGENT__SERVER__PORT": "1"}, flags={"server.host": "::1"})
    )
    lines = shown.splitlines()
    assert lines[0].startswith("# ")
    assert lines[2:8] == [
        "[server]",
        'host = "::1"  # flag server.host, restart',
        "port = 1  # environment VOICE_AGENT__SERVER__PORT, restart",
        "workers = 1  # default, restart",
        f"max_calls = 3  # {path}:2",
        "max_connections = 512  # default",
    ]
    assert {f"{name}.{key}" for name, section in tomllib.loads(shown).items() for key in section} == set(
        fields_by_key(Settings)
    )


def test_a_file_name_can_not_break_what_is_shown(tmp_path: Path) -> None:
    """A newline in a path does not end the comment that names it."""
    path = tmp_path / "a\nport = 9.toml"
    path.write_text("[server]\nport = 1\n")
    shown = render_settings(load_settings(files=[path], environ={}))
    assert tomllib.loads(shown)["server"]["port"] == 1
