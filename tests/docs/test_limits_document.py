"""docs/limits.md names every limit and every setting that bounds one caller, with the answer that the code gives."""

import re
from pathlib import Path

import attrs

from voice_agent.core.errors import CallerError
from voice_agent.core.identity import Quotas
from voice_agent.core.limits import Limit
from voice_agent.settings.schema import AdmissionSettings, LimitsSettings

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs/limits.md").read_text()


def rows(section: str) -> list[list[str]]:
    """The cells of a section's table, without its head."""
    text = DOCUMENT.split(f"## {section}\n")[1].split("\n## ")[0]
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("| `")
    ]


def test_every_setting_of_the_section_is_explained_and_no_other() -> None:
    """An operator finds each of them, and of the section `admission` too."""
    for section, kind in (("limits", LimitsSettings), ("admission", AdmissionSettings)):
        named = set(re.findall(rf"`{section}\.(\w+)`", DOCUMENT))
        assert named == {field.name for field in attrs.fields(kind)}


def test_every_limit_has_its_row() -> None:
    """What the metric's label can be stands in one of the two tables."""
    named = [row[0].strip("`") for section in ("At the door", "On a running call") for row in rows(section)]
    assert sorted(named) == sorted(Limit)


def test_every_quota_has_its_row() -> None:
    """What a key can have of its own stands beside the setting that it goes before; two are not looked at there."""
    named = {row[2].strip("`") for row in rows("At the door")} - {""}
    assert named | {"max_duration_seconds", "retention_hours"} == {
        field.name for field in attrs.fields(Quotas)
    }


def test_the_ends_of_calls_are_those_of_the_errors() -> None:
    """Error and close code of each limit of a running call."""
    ends = {kind.limit: (kind.code, str(kind.close_code)) for kind in kinds(CallerError) if kind.limit}
    assert {row[0].strip("`"): (row[3].strip("`"), row[4]) for row in rows("On a running call")} == ends


def kinds(root: type[CallerError]) -> list[type[CallerError]]:
    return [found for child in root.__subclasses__() for found in (child, *kinds(child))]
