"""docs/access.md says what the door does: its settings, its codes, its headers."""

import re
import typing
from pathlib import Path

import attrs

from voice_agent.access.jwks import MAX_RSA_BYTES, MIN_RSA_BYTES
from voice_agent.access.key_source import (
    COOLDOWN_SECONDS,
    FETCH_SECONDS,
    MAX_BACKOFF_SECONDS,
    MAX_DOCUMENT_BYTES,
)
from voice_agent.access.keys import KeyTable
from voice_agent.access.origins import ALLOWED_HEADERS, EXPOSED_HEADERS
from voice_agent.access.rejection import Reason
from voice_agent.access.tokens import ALGORITHMS, MAX_TOKEN_BYTES
from voice_agent.core import errors, request_errors
from voice_agent.core.identity import Quotas, Scope
from voice_agent.core.units import KIB, MINUTES
from voice_agent.settings.api_keys import ApiKey
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


def test_every_reason_of_a_refusal_is_explained() -> None:
    """What the metric and the audit say, an operator can look up; nothing else is listed."""
    table = DOCUMENT.split("| kind | what was wrong |")[1].split("\n\n")[0]
    named = [row.split("|")[1] for row in table.strip().splitlines()[1:]]
    assert set(re.findall(r"`(\w+)`", " ".join(named))) == {str(reason) for reason in Reason}


def test_every_algorithm_and_every_setting_of_tokens_and_tickets_is_named() -> None:
    """An operator who connects a provider finds all of them here."""
    for name in ALGORITHMS:
        assert name in DOCUMENT
    for key, field in FIELDS.items():
        if field.section == "access":
            assert key in DOCUMENT or f"{field.name} = " in DOCUMENT or field.variable in DOCUMENT, key


def test_the_key_and_the_line_of_the_example_fit_each_other() -> None:
    """What is shown is what happens, down to the hash."""
    key = re.search(r"^va_\S+$", DOCUMENT, re.MULTILINE)
    line = re.search(r"^kiosk-1 = .*$", DOCUMENT, re.MULTILINE)
    assert key
    assert line
    assert KeyTable(line[0]).identify(key[0], now=0).key_id == "kiosk-1"


def test_the_fields_of_a_key_are_listed() -> None:
    """All of them, and the quotas."""
    table = DOCUMENT.split("| field | meaning | default |")[1].split("\n\n")[0]
    assert re.findall(r"^\| `(\w+)`", table, re.MULTILINE) == [field.name for field in attrs.fields(ApiKey)]
    for field in attrs.fields(Quotas):
        assert f"`{field.name}`" in table


def test_the_figures_are_those_of_the_code() -> None:
    """Sizes, waits and defaults."""
    access = AccessSettings()
    for words in (
        f"`access.jwt_leeway_seconds` ({access.jwt_leeway_seconds:g})",
        f"`access.ticket_seconds` ({access.ticket_seconds:g})",
        f"every {COOLDOWN_SECONDS:g} s at most",
        f"A fetch takes {FETCH_SECONDS:g} s at most",
        f"reads {MAX_DOCUMENT_BYTES // KIB} KiB",
        f"after {2 * COOLDOWN_SECONDS:g} s, later\nafter up to {MAX_BACKOFF_SECONDS / MINUTES:g} min",
        f"RSA key of {MIN_RSA_BYTES * 8} to {MAX_RSA_BYTES * 8} bits",
        f"Tokens are at most {MAX_TOKEN_BYTES // KIB} KiB",
    ):
        assert words in DOCUMENT, words
