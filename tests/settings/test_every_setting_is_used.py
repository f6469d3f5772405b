"""A setting that no code reads is a promise that nobody keeps; this finds it."""

import ast
import re
import typing
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import attrs
import pytest

import voice_agent
from voice_agent.settings.fields import SettingField, fields_by_key
from voice_agent.settings.schema import Settings

PACKAGE = Path(voice_agent.__file__).parent
SECTIONS: dict[str, str] = {kind.__name__: name for name, kind in typing.get_type_hints(Settings).items()}
"""Section class -> section: {"VadSettings": "vad"}."""
WORD = re.compile(r"\w+")


def last_name(node: ast.AST) -> str:
    """`vad` of `vad` and of `self.vad`."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case _:
            return ""


def sections_of(node: ast.AST, held: dict[str, set[str]]) -> set[str]:
    """The sections that an expression may be: `x.vad`, or a name that holds one."""
    name = last_name(node)
    own = {name} & set(SECTIONS.values()) if isinstance(node, ast.Attribute) else set()
    return own | held.get(name, set())


def annotated(annotation: ast.AST) -> set[str]:
    """The sections whose class an annotation names, quoted or not."""
    return {SECTIONS[word] for word in WORD.findall(ast.unparse(annotation)) if word in SECTIONS}


def names_of_sections(tree: ast.AST) -> dict[str, set[str]]:
    """Names of a module that hold a section's settings: by annotation, or assigned from what does."""
    held: dict[str, set[str]] = defaultdict(set)
    assigned: list[tuple[str, ast.AST]] = []
    for node in ast.walk(tree):
        match node:
            case ast.arg(arg=name, annotation=ast.AST() as annotation):
                held[name] |= annotated(annotation)
            case ast.AnnAssign(target=target, annotation=annotation):
                held[last_name(target)] |= annotated(annotation)
            case ast.Assign(targets=[ast.Tuple(elts=targets)], value=ast.Tuple(elts=values)):
                assigned += zip(map(last_name, targets), values, strict=False)
            case ast.Assign(targets=[target], value=value):
                assigned.append((last_name(target), value))
    for _ in assigned:
        for name, value in assigned:
            held[name] |= sections_of(value, held)
    held.pop("", None)
    return held


def settings_read(source: str) -> set[str]:
    """Paths of settings that a module reads, as `x.vad.threshold` or through a name that holds the section."""
    tree = ast.parse(source)
    held = names_of_sections(tree)
    return {
        f"{section}.{node.attr}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
        for section in sections_of(node.value, held)
    }


def modules() -> Iterable[Path]:
    """Every module of the package outside the settings room."""
    return [path for path in PACKAGE.rglob("*.py") if PACKAGE / "settings" not in path.parents]


@pytest.fixture(scope="module")
def read_anywhere() -> set[str]:
    """Every setting that some module reads."""
    return set().union(*(settings_read(path.read_text(encoding="utf-8")) for path in modules()))


@pytest.mark.parametrize("field", fields_by_key(Settings).values(), ids=lambda field: field.key)
def test_every_setting_is_read_by_some_module(field: SettingField, read_anywhere: set[str]) -> None:
    """What an operator can set, some room of the package reads."""
    assert field.key in read_anywhere, f"nothing outside voice_agent/settings/ reads {field.key}"


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("bind(settings.server.port)", {"server.port"}),
        ("def f(server: Server): return server.port", set()),
        ("def f(limits: ServerSettings): return limits.port", {"server.port"}),
        ("class A:\n x: 'VadSettings | None'\n def f(self): return self.x.threshold", {"vad.threshold"}),
        ("def f(s: Settings):\n v = s.vad\n w = v\n return w.threshold", {"vad.threshold"}),
        ("def f(s):\n a, b = s.vad, s.server\n return a.threshold, b.port", {"vad.threshold", "server.port"}),
        (
            "class A:\n def g(self, s: schema.VadSettings):\n  self._s = s\n  self._s.threshold",
            {"vad.threshold"},
        ),
        ("'{}'.format(1)", set()),
        ("def f(model: Model): return model.threshold", set()),
        ("settings.server.port = 1", set()),
        ("threshold = 1; f(threshold)", set()),
        ("# settings.server.port", set()),
    ],
)
def test_the_search_finds_reads_and_nothing_else(source: str, found: set[str]) -> None:
    """A read through the root, a section or an alias counts; a namesake elsewhere, a write or a comment does not."""
    known = set(fields_by_key(Settings))
    assert settings_read(source) & known == found


def test_each_section_has_a_class_of_its_own() -> None:
    """The search tells sections apart by their class."""
    assert len(SECTIONS) == len(attrs.fields(Settings))
