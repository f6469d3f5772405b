"""docs/errors.md lists every error code, under the branch that says whose fault it is, and nothing else."""

import re
from pathlib import Path

from voice_agent.core import errors

ROOT = Path(__file__).parents[2]


def codes_of(branch: type[errors.VoiceAgentError]) -> dict[str, str]:
    found = {}
    for child in branch.__subclasses__():
        if child.__module__ == errors.__name__:
            found |= {child.code: child.__name__} | codes_of(child)
    return found


def test_the_document_lists_every_code() -> None:
    """Codes are a promise: each stands in the document with its class."""
    sections = re.split(r"^## ", (ROOT / "docs/errors.md").read_text(), flags=re.MULTILINE)[1:]
    documented = {
        re.search(r"`(\w+)`", section)[1]: dict(
            re.findall(r"^\| `(\w+)` \| `(\w+)` \|", section, re.MULTILINE)
        )
        for section in sections
    }
    assert documented == {
        "CallerError": codes_of(errors.CallerError),
        "OperatorError": codes_of(errors.OperatorError),
        "DependencyError": codes_of(errors.DependencyError),
        "InternalError": {"internal_error": "InternalError"},
    }


def test_codes_are_unique() -> None:
    """A program that branches on a code means one error."""
    classes = [c for b in errors.VoiceAgentError.__subclasses__() for c in (b, *_all(b))]
    codes = [c.code for c in classes]
    assert len(codes) == len(set(codes))


def _all(branch: type[errors.VoiceAgentError]) -> list[type[errors.VoiceAgentError]]:
    return [
        c
        for child in branch.__subclasses__()
        for c in (child, *_all(child))
        if c.__module__ == errors.__name__
    ]
