"""Layers: which wins, and what each says about where its values come from."""

import attrs
import hypothesis
from hypothesis import given
from hypothesis import strategies as st

from voice_agent.settings.declare import setting
from voice_agent.settings.fields import fields_by_key
from voice_agent.settings.layers import (
    DEFAULT,
    Entry,
    LayerKind,
    Source,
    default_layer,
    environment_layer,
    flag_layer,
    merge,
    toml_layer,
)
from voice_agent.settings.schema import Settings

FIELDS = fields_by_key(Settings)


@attrs.frozen(kw_only=True)
class Auth:
    """Who may call."""

    token: str = setting("", "Shared secret.", secret=True)
    token_file: str = setting("", "A setting that is named like the file of another.")
    user: str = setting("", "No secret.")


@attrs.frozen(kw_only=True)
class Root:
    """A schema of one section."""

    auth: Auth = attrs.field(factory=Auth)


_LAYERS = st.lists(
    st.dictionaries(
        st.sampled_from(["a.b", "a.c", "d.e"]), st.builds(Entry, st.integers(), st.just(DEFAULT)), max_size=3
    ),
    max_size=5,
)


@hypothesis.settings(deadline=None)  # a shared machine is slow at times
@given(_LAYERS)
def test_for_each_setting_the_last_layer_that_has_it_wins(layers: list[dict[str, Entry]]) -> None:
    """The merge takes whole entries, so a value and its source never part, and changes no layer."""
    before = [dict(layer) for layer in layers]
    merged = merge(layers)
    assert merged.keys() == set().union(*layers)
    for key, entry in merged.items():
        assert entry is [layer for layer in layers if key in layer][-1][key]
    assert layers == before


def test_the_default_layer_holds_every_setting() -> None:
    """Nothing is ever missing from a merge that begins with the defaults."""
    layer = default_layer(FIELDS)
    assert layer.keys() == FIELDS.keys()
    assert layer["server.port"] == Entry(8080, DEFAULT)


def test_a_toml_layer_names_file_and_line() -> None:
    """Values keep their place; what is outside every section, or a section without keys, stands under its name."""
    layer = toml_layer('port = 1\n[server]\nport = 2\n[empty]\n["a.b"]\n"c d" = 3\n', "x.toml")
    assert {key: (entry.value, str(entry.source)) for key, entry in layer.items()} == {
        "port": (1, "x.toml:1"),
        "server.port": (2, "x.toml:3"),
        "empty": ({}, "x.toml:4"),
        '"a.b"."c d"': (3, "x.toml:6"),
    }


def test_a_quoted_key_with_a_dot_is_no_path() -> None:
    """`"server.port" = 1` sets nothing, and is not taken for `[server] port`."""
    assert list(toml_layer('"server.port" = 1', "x.toml")) == ['"server.port"']


def test_the_environment_layer_takes_variables_of_the_prefix_only() -> None:
    """Kubernetes' own VOICE_AGENT_PORT is not ours; an unknown variable of the prefix stands under its own name."""
    layer = environment_layer(
        {
            "VOICE_AGENT__SERVER__PORT": "1",
            "VOICE_AGENT_PORT": "tcp://10.0.0.1:80",
            "VOICE_AGENT__SERVER__port": "2",
            "PATH": "/bin",
        },
        FIELDS,
    )
    assert {key: (entry.value, str(entry.source)) for key, entry in layer.items()} == {
        "server.port": ("1", "environment VOICE_AGENT__SERVER__PORT"),
        "VOICE_AGENT__SERVER__port": ("2", "environment VOICE_AGENT__SERVER__port"),
    }


def test_a_file_variable_belongs_to_a_secret_unless_a_setting_has_that_name() -> None:
    """`*_FILE` is special for secrets only, and a setting of that very name goes first."""
    fields = fields_by_key(Root)
    layer = environment_layer({"VOICE_AGENT__AUTH__TOKEN_FILE": "x"}, fields)
    assert {key: entry.source.kind for key, entry in layer.items()} == {
        "auth.token_file": LayerKind.ENVIRONMENT
    }
    del fields["auth.token_file"]
    layer = environment_layer(
        {"VOICE_AGENT__AUTH__TOKEN_FILE": "x", "VOICE_AGENT__AUTH__USER_FILE": "y"}, fields
    )
    assert {key: entry.source.kind for key, entry in layer.items()} == {
        "auth.token": LayerKind.MOUNTED_FILE,
        "VOICE_AGENT__AUTH__USER_FILE": LayerKind.ENVIRONMENT,
    }
    assert str(layer["auth.token"].source) == "file named by VOICE_AGENT__AUTH__TOKEN_FILE"


def test_a_flag_that_is_none_was_not_given() -> None:
    """A click option without a value leaves the layers below alone; false and zero are values."""
    layer = flag_layer({"server.host": None, "server.port": 0, "recogniser.partials": False})
    assert {key: (entry.value, str(entry.source)) for key, entry in layer.items()} == {
        "server.port": (0, "flag server.port"),
        "recogniser.partials": (False, "flag recogniser.partials"),
    }


def test_sources_are_written_on_one_line() -> None:
    """A file name with a newline can't forge a line of an error or of a log."""
    assert str(DEFAULT) == "default"
    assert str(Source(LayerKind.FILE, "a.toml")) == "a.toml"
    assert str(Source(LayerKind.FILE, "a\nb.toml", 3)) == '"a\\nb.toml":3'
    assert str(Source(LayerKind.ENVIRONMENT, "A\nB")) == 'environment "A\\nB"'


def test_no_repr_shows_a_value() -> None:
    """A layer may hold a secret, and reprs end in logs and tracebacks."""
    assert "hunter2" not in repr(
        environment_layer({"VOICE_AGENT__AUTH__TOKEN": "hunter2"}, fields_by_key(Root))
    )
