"""Loading: what wins, what is refused, and whether the one error names everything."""

import os
from pathlib import Path
from typing import Any

import attrs
import hypothesis
import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from voice_agent.core.errors import SettingsError
from voice_agent.settings.fields import SettingField, fields_by_key
from voice_agent.settings.load import MAX_FILE_BYTES, load_settings
from voice_agent.settings.rules import RULES
from voice_agent.settings.schema import Settings

FIELDS = fields_by_key(Settings)
NUMBERS = [field for field in FIELDS.values() if field.kind in (int, float)]


def refusal(tmp_path: Path, text: str, **layers: Any) -> str:
    """Load this settings.toml, which must be refused, and return the error's message without its heading."""
    path = tmp_path / "settings.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        load_settings(config_dir=tmp_path, **{"environ": {}, **layers})
    heading, _, body = caught.value.message.partition("\n")
    count = body.count("\n") + 1
    assert heading == f"{count} error{'s' if count > 1 else ''} in the settings:"
    return body.replace(f"{tmp_path}/", "")


def test_without_any_layer_all_is_default() -> None:
    """An empty machine runs on the defaults, and each value says so."""
    loaded = load_settings(files=(), environ={})
    assert loaded.settings == Settings()
    assert loaded.sources.keys() == FIELDS.keys()
    assert {str(source) for source in loaded.sources.values()} == {"default"}


def test_each_layer_wins_over_the_one_before(tmp_path: Path) -> None:
    """Defaults < settings.toml < settings.local.toml < environment < flags; each value keeps its source."""
    (tmp_path / "settings.toml").write_text(
        "[server]\nport = 1\nmax_calls = 1\nmax_connections = 1\ngrace_seconds = 1\n"
    )
    (tmp_path / "settings.local.toml").write_text("[server]\nport = 2\nmax_calls = 2\nmax_connections = 2\n")
    loaded = load_settings(
        config_dir=tmp_path,
        environ={"VOICE_AGENT__SERVER__PORT": "3", "VOICE_AGENT__SERVER__MAX_CALLS": "3"},
        flags={"server.port": 4, "server.host": None},
    )
    server = loaded.settings.server
    assert (server.port, server.max_calls, server.max_connections, server.grace_seconds) == (4, 3, 2, 1.0)
    assert server.host == "127.0.0.1"
    assert [
        str(loaded.sources[f"server.{name}"])
        for name in ("port", "max_calls", "max_connections", "grace_seconds", "host")
    ] == [
        "flag server.port",
        "environment VOICE_AGENT__SERVER__MAX_CALLS",
        f"{tmp_path}/settings.local.toml:4",
        f"{tmp_path}/settings.toml:5",
        "default",
    ]


def test_the_files_of_the_working_directory_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With no arguments: ./settings.toml, ./settings.local.toml and this process's environment."""
    monkeypatch.chdir(tmp_path)
    for variable in [name for name in os.environ if name.startswith("VOICE_AGENT__")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("VOICE_AGENT__SERVER__MAX_CALLS", "7")
    (tmp_path / "settings.local.toml").write_text("[server]\nport = 2\n")
    loaded = load_settings()
    assert (loaded.settings.server.port, loaded.settings.server.max_calls) == (2, 7)
    assert str(loaded.sources["server.port"]) == "settings.local.toml:2"


def test_files_given_replace_the_usual_ones(tmp_path: Path) -> None:
    """Exactly those are read, in that order: no settings.local.toml sneaks in."""
    for name, port in {"settings.local.toml": 1, "a.toml": 2, "b.toml": 3}.items():
        (tmp_path / name).write_text(f"[server]\nport = {port}\n")
    files = [tmp_path / "a.toml", tmp_path / "b.toml"]
    assert load_settings(config_dir=tmp_path, files=files, environ={}).settings.server.port == 3
    assert load_settings(files=files[::-1], environ={}).settings.server.port == 2


def test_every_mistake_of_every_layer_is_named_at_once(tmp_path: Path) -> None:
    """One error lists them all: path, value, source with its line, and what is allowed."""
    message = refusal(
        tmp_path,
        '[server]\nport = "8080"\nmax_cals = 3\n\n[vad]\nthreshold = 2\n[logging]\nlevel = "loud"\n',
        environ={"VOICE_AGENT__SERVER__PORT": "80a", "VOICE_AGENT__SERVER__PROT": "1"},
        flags={"session.idle_timeout_seconds": float("nan"), "session.idle": 3},
    )
    assert message.splitlines() == [
        '  server.port = "8080" (settings.toml:2): is text; must be a whole number from 0 to 65535',
        "  server.max_cals = 3 (settings.toml:3): no such setting; did you mean server.max_calls?",
        "  vad.threshold = 2 (settings.toml:6): is out of range; must be a number from 0.05 to 0.95",
        (
            '  logging.level = "loud" (settings.toml:8): is not a choice; '
            'must be one of "debug", "info", "warning", "error"'
        ),
        (
            '  server.port = "80a" (environment VOICE_AGENT__SERVER__PORT): is not a whole number; '
            "must be a whole number from 0 to 65535"
        ),
        (
            "  VOICE_AGENT__SERVER__PROT = ******** (environment VOICE_AGENT__SERVER__PROT): no such setting; "
            "did you mean VOICE_AGENT__SERVER__PORT?"
        ),
        (
            "  session.idle_timeout_seconds = nan (flag session.idle_timeout_seconds): is not finite; "
            "must be a number from 0.1 to 86400 seconds"
        ),
        (
            "  session.idle = 3 (flag session.idle): no such setting; "
            "did you mean session.idle_timeout_seconds?"
        ),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("port = 1", "port = 1 (settings.toml:1): no such setting; did you mean server.port?"),
        ("x = 1", "x = 1 (settings.toml:1): no such setting; the sections are server, "),
        (
            "[servre]\nport = 1",
            "servre.port = 1 (settings.toml:2): no such setting; did you mean server.port?",
        ),
        ("[servre]", "servre = {} (settings.toml:1): no such setting; the sections are server, "),
        ("[vad]\nport = 1", "vad.port = 1 (settings.toml:2): no such setting; did you mean server.port?"),
        ("[vad]\nqq = 1", "vad.qq = 1 (settings.toml:2): no such setting; [vad] has model_path, "),
        ("server = 1", "server = 1 (settings.toml:1): is a section; its settings stand below [server]"),
        ("[[server]]\nport = 1", "server = […] (settings.toml:1): is a section;"),
        (
            '"server.port" = 1',
            '"server.port" = 1 (settings.toml:1): no such setting; did you mean server.port?',
        ),
        ("[server.port]\nx = 1", "server.port = {…} (settings.toml:1): is a table; must be a whole number"),
        ("server = { port = [] }", "server.port = [] (settings.toml:1): is an array; must be a whole number"),
        ("[server]\nport = 2024-01-01", "server.port = 2024-01-01 (settings.toml:2): is a date; must"),
        ("[server]\nport = 8080.0", "server.port = 8080.0 (settings.toml:2): is a fraction; must"),
        ("[server]\nport = true", "server.port = true (settings.toml:2): is true or false; must"),
        ("[server]\nhost = 1", "server.host = 1 (settings.toml:2): is a whole number; must be text"),
        (
            '[server]\nhost = "a\\u0000b"',
            'server.host = "a\\u0000b" (settings.toml:2): holds a NUL character',
        ),
        (
            "[server]\ngrace_seconds = true",
            "server.grace_seconds = true (settings.toml:2): is true or false; must",
        ),
        (
            "[server]\ngrace_seconds = inf",
            "server.grace_seconds = inf (settings.toml:2): is not finite; must",
        ),
        (
            "[server]\ngrace_seconds = 1e999",
            "server.grace_seconds = inf (settings.toml:2): is not finite; must",
        ),
        ("[server]\nport = 0x" + "f" * 9999, "server.port = 0xfffff"),
        ("[server]\ngrace_seconds = 0x" + "f" * 9999, "…: has too many digits; must be a number from 0"),
        (
            "[recogniser]\npartials = 1",
            "recogniser.partials = 1 (settings.toml:2): is a whole number; must be true",
        ),
        (
            "[audio]\nresampler = 1",
            "audio.resampler = 1 (settings.toml:2): is a whole number; must be one of",
        ),
        ("[server]\nport = 1\nport = 2", "settings.toml:3: not valid TOML: Cannot overwrite a value"),
        ("[server]\nport = \n", "settings.toml:2: not valid TOML: Invalid value"),
        ("x = " + "9" * 5000, "settings.toml: not valid TOML: A number has too many digits"),
        ("#" * (MAX_FILE_BYTES + 1), "settings.toml: is larger than 131072 bytes"),
    ],
)
def test_each_mistake_in_a_file_has_its_words(tmp_path: Path, text: str, words: str) -> None:
    """Nothing wrong in a file is accepted, guessed at, or reported as anything but a SettingsError."""
    message = refusal(tmp_path, text)
    assert words in message.replace(" (settings.toml:2): has", ": has")
    assert max(map(len, message.splitlines())) < 400


def test_an_empty_section_is_fine(tmp_path: Path) -> None:
    """A section all of whose lines are commented out says nothing."""
    (tmp_path / "settings.toml").write_text("[server]\n#port = 1\n")
    assert load_settings(config_dir=tmp_path, environ={}).settings == Settings()


def test_a_value_that_is_overruled_is_checked_all_the_same(tmp_path: Path) -> None:
    """A mistake does not hide behind a later layer until that layer goes away."""
    message = refusal(
        tmp_path,
        "[server]\nport = 99999\n",
        environ={"VOICE_AGENT__SERVER__PORT": "1"},
        flags={"server.port": 2},
    )
    assert "settings.toml:2" in message


def test_a_broken_file_does_not_hide_other_mistakes(tmp_path: Path) -> None:
    """What can still be judged is."""
    message = refusal(tmp_path, "[server\n", flags={"server.port": -1})
    assert len(message.splitlines()) == 2


def test_a_file_that_is_not_utf8_is_refused_with_its_line(tmp_path: Path) -> None:
    """The line of the first bad byte is named; a byte-order mark is no harm."""
    path = tmp_path / "settings.toml"
    path.write_bytes(b"[server]\nport = 1\nhost = '\xff'\n")
    with pytest.raises(SettingsError, match=r"is not UTF-8 text \(line 3\)"):
        load_settings(files=[path], environ={})
    path.write_bytes(b"\xef\xbb\xbf[server]\r\nport = 1\r\n")
    assert load_settings(files=[path], environ={}).settings.server.port == 1


def test_a_file_that_can_not_be_read_is_an_error(tmp_path: Path) -> None:
    """Named and missing, a folder, a link to nowhere, a path that no file can have: each is named."""
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(SettingsError) as caught:
        load_settings(
            files=[tmp_path / "none.toml", tmp_path / "folder.toml", Path("a\0b"), Path("a\nb")], environ={}
        )
    assert caught.value.message.replace(f"{tmp_path}/", "").splitlines()[1:] == [
        "  none.toml: can't be read: No such file or directory",
        "  folder.toml: can't be read: Is a directory",
        '  "a\\u0000b": is no path of a file',
        '  "a\\nb": can\'t be read: No such file or directory',
    ]
    (tmp_path / "settings.toml").symlink_to("nowhere")
    with pytest.raises(SettingsError, match="No such file"):
        load_settings(config_dir=tmp_path, environ={})
    with pytest.raises(SettingsError, match="none: no such folder"):
        load_settings(config_dir=tmp_path / "none", environ={})
    with pytest.raises(SettingsError, match=r"settings.toml: can't be read: File name too long"):
        load_settings(config_dir=tmp_path / ("n" * 300), environ={})


@hypothesis.settings(deadline=None)  # a shared machine is slow at times
@given(st.sampled_from(NUMBERS), st.data())
def test_any_value_out_of_range_is_refused_and_names_its_key(
    field: SettingField, data: st.DataObject
) -> None:
    """For every numeric setting and any value outside its range, from either layer, that one setting is named."""
    assert field.minimum is not None
    assert field.maximum is not None
    low, high = field.minimum, field.maximum
    if field.kind is int:
        outside = st.integers(max_value=int(low) - 1) | st.integers(min_value=int(high) + 1)
    else:
        bounds = {"allow_nan": False, "allow_infinity": False}
        outside = st.floats(max_value=low, exclude_max=True, **bounds) | st.floats(
            min_value=high, exclude_min=True, **bounds
        )
    value = data.draw(outside)
    for layers in (
        {"environ": {field.variable: repr(value)}},
        {"environ": {}, "flags": {field.key: value}},
    ):
        with pytest.raises(SettingsError) as caught:
            load_settings(files=(), **layers)
        assert caught.value.field == field.key
        assert field.range in caught.value.message
        assert caught.value.message.startswith("1 error in the settings:")


@hypothesis.settings(deadline=None)  # a shared machine is slow at times
@given(st.dictionaries(st.text(max_size=8), st.dictionaries(st.text(max_size=8), st.integers() | st.text())))
def test_any_unknown_keys_are_all_named(
    tmp_path_factory: pytest.TempPathFactory, tables: dict[str, Any]
) -> None:
    """Any TOML of unknown keys is refused with one SettingsError that has one line for each key."""
    path = tmp_path_factory.getbasetemp() / "any.toml"
    tables = {table: {**values, "": 0} for table, values in tables.items()}
    path.write_text(tomli_w.dumps(tables), encoding="utf-8")
    if not tables:
        assert load_settings(files=[path], environ={}).settings == Settings()
        return
    with pytest.raises(SettingsError) as caught:
        load_settings(files=[path], environ={})
    assert caught.value.message.count("\n") == sum(map(len, tables.values()))


@pytest.mark.parametrize(
    ("flags", "stated"),
    [
        (
            {"vad.threshold": 0.3},
            "vad.release_threshold = 0.35 (default), vad.threshold = 0.3 (flag vad.threshold): ",
        ),
        (
            {"vad.max_utterance_seconds": 5},
            (
                "vad.cut_search_seconds = 5.0 (default), "
                "vad.max_utterance_seconds = 5.0 (flag vad.max_utterance_seconds): "
            ),
        ),
        (
            {"websocket.read_timeout_seconds": 20},
            (
                "websocket.ping_interval_seconds = 20.0 (default), "
                "websocket.read_timeout_seconds = 20.0 (flag websocket.read_timeout_seconds): "
            ),
        ),
    ],
)
def test_values_that_contradict_each_other_are_refused(flags: dict[str, object], stated: str) -> None:
    """Each rule names all its values with their sources, and says what is allowed."""
    rule = next(rule for rule in RULES if stated.startswith(rule.keys[0]))
    with pytest.raises(SettingsError) as caught:
        load_settings(files=(), environ={}, flags=flags)
    assert caught.value.message == f"1 error in the settings:\n  {stated}{rule.demand}"


def test_values_at_the_edge_of_a_rule_pass() -> None:
    """Equal thresholds are allowed; they only switch the hysteresis off."""
    flags = {"vad.threshold": 0.5, "vad.release_threshold": 0.5, "vad.max_utterance_seconds": 5.5}
    assert load_settings(files=(), environ={}, flags=flags).settings.vad.release_threshold == 0.5


def test_a_rule_is_silent_about_a_value_that_was_refused() -> None:
    """An operator who wrote threshold = 9 is not told that the default contradicts something else."""
    with pytest.raises(SettingsError) as caught:
        load_settings(files=(), environ={}, flags={"vad.threshold": 9, "vad.release_threshold": 0.9})
    assert caught.value.message.count("\n") == 1
    assert caught.value.field == "vad.threshold"


def test_rules_are_silent_while_a_file_can_not_be_read(tmp_path: Path) -> None:
    """The broken file may hold the very value that the rule asks for."""
    assert refusal(tmp_path, "[vad\n", flags={"vad.release_threshold": 0.9}).count("\n") == 0


def test_an_error_over_several_settings_names_no_single_field() -> None:
    """`field` is for programs: it is set only where one setting alone is at fault."""
    with pytest.raises(SettingsError) as caught:
        load_settings(files=(), environ={}, flags={"server.port": -1, "server.max_calls": 0})
    assert caught.value.field is None
    assert caught.value.code == "invalid_settings"


def test_what_was_loaded_can_not_be_changed() -> None:
    """Settings and sources are read by every task; none of them may write."""
    loaded = load_settings(files=(), environ={})
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        loaded.settings.server.port = 1
    with pytest.raises(TypeError):
        loaded.sources["server.port"] = None
