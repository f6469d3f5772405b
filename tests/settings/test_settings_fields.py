"""What is read from the schema, and which schemas are refused."""

from typing import Any, Literal

import attrs
import pytest

from voice_agent.settings.declare import setting
from voice_agent.settings.fields import describe, fields_by_key
from voice_agent.settings.rules import RULES
from voice_agent.settings.schema import Settings
from voice_agent.settings.values import structure

FIELDS = fields_by_key(Settings)


def root_with(**fields: Any) -> type[Any]:
    """A schema of one section that has these fields: name -> (annotation, declaration)."""
    section = attrs.make_class(
        "Section", {name: declared for name, (_, declared) in fields.items()}, frozen=True, kw_only=True
    )
    section.__annotations__ = {name: kind for name, (kind, _) in fields.items()}
    root = attrs.make_class("Root", {"part": attrs.field(factory=section)}, frozen=True)
    root.__annotations__ = {"part": section}
    return root


@pytest.mark.parametrize("field", FIELDS.values(), ids=lambda field: field.key)
def test_every_default_passes_its_own_check(field: Any) -> None:
    """No default is of a wrong type or out of its own range."""
    assert structure(field, field.default, from_text=False) == field.default


@pytest.mark.parametrize("field", FIELDS.values(), ids=lambda field: field.key)
def test_every_setting_says_why_it_is_there(field: Any) -> None:
    """A reason in one sentence; a unit wherever the name carries one."""
    assert field.why.endswith(".")
    assert "\n" not in field.why
    for suffix, unit in {"_seconds": "seconds", "_ms": "milliseconds", "_bytes": "bytes"}.items():
        if field.name.endswith(suffix):
            assert field.unit == unit


def test_every_rule_is_about_settings_there_are_and_holds_for_the_defaults() -> None:
    """The table of rules names real settings, and the defaults obey it."""
    for rule in RULES:
        assert FIELDS.keys() >= set(rule.keys)
        assert rule.holds(Settings())


@pytest.mark.parametrize(
    ("kind", "bounds", "allowed"),
    [
        (bool, {}, "true or false"),
        (
            int,
            {"minimum": 0, "maximum": 16 * 1024 * 1024, "unit": "bytes"},
            "a whole number from 0 to 16777216 bytes",
        ),
        (int, {"minimum": 1}, "a whole number from 1"),
        (float, {"maximum": 0.05}, "a number to 0.05"),
        (float, {}, "a number"),
        (str, {"unit": "words"}, "text words"),
        (str, {"minimum": 32}, "text from 32 bytes"),
        (Literal["a", "b"], {}, 'one of "a", "b"'),
    ],
)
def test_what_is_allowed_is_said_in_words(kind: Any, bounds: Any, allowed: str) -> None:
    """Type, range and unit, in digits and not in powers of ten."""
    field = fields_by_key(root_with(it=(kind, setting("", "Why.", **bounds))))["part.it"]
    assert field.allowed == allowed


def test_variables_are_named_after_the_path() -> None:
    """`server.port` is VOICE_AGENT__SERVER__PORT."""
    assert FIELDS["server.max_calls"].variable == "VOICE_AGENT__SERVER__MAX_CALLS"
    assert FIELDS["server.max_calls"].file_variable == "VOICE_AGENT__SERVER__MAX_CALLS_FILE"


def test_a_default_of_the_root_goes_before_that_of_the_section() -> None:
    """What `Root()` holds is the default, however it came there."""
    section = attrs.make_class("Section", {"it": setting(1, "Why.")}, frozen=True)
    section.__annotations__ = {"it": int}
    root = attrs.make_class("Root", {"part": attrs.field(factory=lambda: section(it=2))})
    root.__annotations__ = {"part": section}
    assert fields_by_key(root)["part.it"].default == 2


def test_a_section_without_a_docstring_has_an_empty_title() -> None:
    """Missing words are no crash."""
    root = root_with(it=(int, setting(1, "Why.")))
    attrs.fields(root)[0].default.factory.__doc__ = None
    assert describe(root)[0].title == ""


@pytest.mark.parametrize(
    ("kind", "declared", "words"),
    [
        (list[str], setting((), "Why."), "no setting can be of the kind"),
        (Literal[1, 2], setting(1, "Why."), "no setting can be of the kind"),
        (int | None, setting(None, "Why."), "no setting can be of the kind"),
        (int, attrs.field(default=1, validator=attrs.validators.gt(0)), "has a validator"),
        (int, attrs.field(default=1), "missing"),
    ],
)
def test_a_schema_that_can_not_be_loaded_is_refused(kind: Any, declared: Any, words: str) -> None:
    """A field that not every layer can hold, or that `setting()` did not make, is a defect of the schema."""
    with pytest.raises(TypeError, match=words):
        describe(root_with(it=(kind, declared)))


def test_a_setting_outside_every_section_is_refused() -> None:
    """A root holds sections only."""
    root = attrs.make_class("Root", {"it": setting(1, "Why.")})
    root.__annotations__ = {"it": int}
    with pytest.raises(TypeError, match=r"Root\.it is no section"):
        describe(root)
