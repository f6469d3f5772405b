"""docs/errors.md lists every error code, under the branch that says whose fault it is, and nothing else."""

import importlib
import pkgutil
import re
from pathlib import Path

import voice_agent
from voice_agent.core import errors
from voice_agent.core.request_errors import UnavailableError

ROOT = Path(__file__).parents[2]
BRANCHES = (
    errors.CallerError,
    errors.OperatorError,
    errors.DependencyError,
    errors.InternalError,
    UnavailableError,
)

for module in pkgutil.walk_packages(voice_agent.__path__, "voice_agent."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)


def kinds_below(branch: type[errors.VoiceAgentError]) -> list[type[errors.VoiceAgentError]]:
    """Every public class of the project below a branch, wherever it is declared."""
    return [
        kind
        for child in branch.__subclasses__()
        for kind in (child, *kinds_below(child))
        if kind.__module__.startswith("voice_agent.") and not kind.__name__.startswith("_")
    ]


def rows() -> dict[str, dict[str, tuple[str, str]]]:
    """Class and status (or nothing) by code, by branch, as documented."""
    sections = re.split(r"^## ", (ROOT / "docs/errors.md").read_text(), flags=re.MULTILINE)[1:]
    return {
        named[1]: {
            code: (kind, status)
            for code, kind, status in re.findall(
                r"^\| `(\w+)` \| `(\w+)` \|(?: (\d+) \|)?", section, re.MULTILINE
            )
        }
        for section in sections
        if (named := re.match(r".*`(\w+)`", section))
    }


def test_the_document_lists_every_code() -> None:
    """Codes are a promise: each stands in the document with its class, under its branch."""
    documented = {
        branch: {code: kind for code, (kind, _) in found.items()} for branch, found in rows().items()
    }
    assert documented == {
        branch.__name__: {
            kind.code: kind.__name__
            for kind in (
                *kinds_below(branch),
                *([branch] if branch.__name__.startswith(("Int", "Un")) else []),
            )
        }
        for branch in BRANCHES
    }


def test_a_status_that_is_told_is_the_one_that_is_sent() -> None:
    """Where the document names a status, the class has it."""
    by_name = {kind.__name__: kind for branch in BRANCHES for kind in (branch, *kinds_below(branch))}
    for kind, status in (row for found in rows().values() for row in found.values() if row[1]):
        assert by_name[kind].status == int(status), kind


def test_codes_are_unique() -> None:
    """A program that branches on a code means one error."""
    kinds = kinds_below(errors.VoiceAgentError)
    assert len({kind.code for kind in kinds}) == len(kinds)
