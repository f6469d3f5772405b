"""Values of each kind: what text of the environment means, what is refused, and that nothing is lost on the way."""

from typing import Literal

import attrs
import hypothesis
import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from voice_agent.core.errors import SettingsError
from voice_agent.settings.declare import setting
from voice_agent.settings.load import load


@attrs.frozen(kw_only=True)
class Kinds:
    """One setting of each kind."""

    flag: bool = setting(False, "Why.")
    count: int = setting(3, "Why.")
    share: float = setting(0.5, "Why.")
    word: str = setting("a", "Why.")
    name: str = setting("abc", "Why.", minimum=2, maximum=4)
    choice: Literal["one", "two"] = setting("one", "Why.")


@attrs.frozen(kw_only=True)
class Root:
    """A schema without ranges that get in the way."""

    kinds: Kinds = attrs.field(factory=Kinds)


def kinds(**environ: str) -> Kinds:
    """Load the schema above from environment variables only."""
    variables = {f"VOICE_AGENT__KINDS__{name.upper()}": value for name, value in environ.items()}
    return load(Root, files=(), environ=variables).settings.kinds


@pytest.mark.parametrize("word", ["true", "True", "YES", "on", "1", " yes\n"])
def test_words_for_true(word: str) -> None:
    """The environment's usual words for yes are understood."""
    assert kinds(flag=word).flag is True


@pytest.mark.parametrize("word", ["false", "False", "NO", "off", "0"])
def test_words_for_false(word: str) -> None:
    """The environment's usual words for no are understood."""
    assert load(Root, files=(), environ={}, flags={"kinds.flag": word}).settings.kinds.flag is False


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("flag", "", "is neither true/yes/on/1 nor false/no/off/0; must be true or false"),
        ("flag", "2", "is neither"),
        ("count", "", "is not a whole number"),
        ("count", "1.0", "is not a whole number"),
        ("count", "0x10", "is not a whole number"),
        ("count", "٣", "is not a whole number"),
        ("count", "9" * 5000, "is not a whole number"),
        ("count", "9" * 30, "has too many digits"),
        ("share", "", "is not a number"),
        ("share", "٣", "is not a number"),
        ("share", "half", "is not a number"),
        ("share", "nan", "is not finite"),
        ("share", "-inf", "is not finite"),
        ("share", "1e999", "is not finite"),
        ("word", "\udcff", "holds a NUL character or bytes that are no UTF-8"),
        ("name", "x", "is out of range; must be text from 2 to 4 bytes"),
        ("name", "ááá", "is out of range; must be text from 2 to 4 bytes"),
        ("choice", "three", 'is not a choice; must be one of "one", "two"'),
        ("choice", "", "is not a choice"),
    ],
)
def test_text_of_the_environment_that_does_not_parse_is_refused(name: str, text: str, words: str) -> None:
    """Each kind of setting refuses what it can't be, and the refusal names the variable."""
    with pytest.raises(SettingsError) as caught:
        kinds(**{name: text})
    assert f"(environment VOICE_AGENT__KINDS__{name.upper()}): {words}" in caught.value.message
    assert caught.value.field == f"kinds.{name}"


@hypothesis.settings(deadline=None)  # a shared machine is slow at times
@given(
    st.builds(
        Kinds,
        flag=st.booleans(),
        count=st.integers(-(2**63), 2**63 - 1),
        share=st.floats(allow_nan=False, allow_infinity=False),
        word=st.text(st.characters(exclude_characters="\0", codec="utf-8")),
        name=st.sampled_from(["ab", "abcd", "éé"]),
        choice=st.sampled_from(["one", "two"]),
    )
)
def test_any_value_survives_any_layer(tmp_path_factory: pytest.TempPathFactory, wanted: Kinds) -> None:
    """Written as text for the environment, as a flag, or as TOML, a value comes back equal and of its type."""
    values = attrs.asdict(wanted)
    assert kinds(**{name: str(value) for name, value in values.items()}) == wanted
    flags = {f"kinds.{name}": value for name, value in values.items()}
    assert load(Root, files=(), environ={}, flags=flags).settings.kinds == wanted
    path = tmp_path_factory.getbasetemp() / "kinds.toml"
    path.write_text(tomli_w.dumps({"kinds": values}), encoding="utf-8")
    assert load(Root, files=[path], environ={}).settings.kinds == wanted
