"""docs/access.md says what the door does: its settings, its codes, its headers."""

import re
import typing
from pathlib import Path

from voice_agent.access.origins import ALLOWED_HEADERS, EXPOSED_HEADERS
from voice_agent.core import errors, request_errors
from voice_agent.core.identity import Scope
from voice_agent.settings.fields import fields_by_key
from voice_agent.settings.schema import AccessSettings, Settings

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs/access.md").read_text()
FIELDS = fields_by_key(Settings)


def test_every_setting_that_it_names_exists() -> None:
    """A name in the document can be pasted into settings.toml."""
    named = set(re.findall(r"`((?:access|server)\.\w+)", DOCUMENT))
    assert named <= FIELDS.keys()
    assert named >= {
        f"access.{name}" for name in ("anonymous", "allowed_origins", "trusted_proxies", "proxy_header")
    }


def test_every_choice_is_explained() -> None:
    """The words of access.anonymous and access.proxy_header stand there, all of them."""
    hints = typing.get_type_hints(AccessSettings)
    for name in ("anonymous", "proxy_header"):
        for choice in typing.get_args(hints[name]):
            assert f"`{choice}`" in DOCUMENT, choice


def test_every_refusal_is_listed_with_its_status() -> None:
    """What the door answers itself."""
    kinds: tuple[type[errors.VoiceAgentError], ...] = (
        request_errors.AmbiguousCredentialsError,
        errors.UnauthenticatedError,
        errors.ForbiddenError,
        request_errors.ForbiddenOriginError,
    )
    listed = set(re.findall(r"^\| (4\d\d) \| `(\w+)` \|", DOCUMENT, re.MULTILINE))
    assert listed == {(str(int(kind.status)), kind.code) for kind in kinds}


def test_every_scope_is_listed() -> None:
    """One row each."""
    assert set(re.findall(r"^\| `(\w+)` \| \w", DOCUMENT, re.MULTILINE)) >= {scope.value for scope in Scope}


def test_the_headers_of_cors_are_those_that_are_sent() -> None:
    """A client's author can rely on the list."""
    for name in (*ALLOWED_HEADERS.split(", "), *EXPOSED_HEADERS.split(", ")):
        assert f"`{name}`" in DOCUMENT, name
