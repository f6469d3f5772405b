"""The audit of what is installed, as far as it needs no network: licences and bill of materials for real."""

import importlib.util
import json
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit", ROOT / "scripts/audit.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_core_is_what_the_project_depends_on_and_no_tool(audit: ModuleType) -> None:
    """Every dependency with its own, and none of the development's."""
    core = audit.core_packages()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = {canonicalize_name(Requirement(text).name) for text in project["dependencies"]}
    assert named <= core.keys()
    assert {"h11", "wsproto", "cryptography", "protobuf"} <= core.keys()  # what those depend on
    assert not {"pytest", "mypy", "schemathesis", "pip-audit"} & core.keys()


def test_no_licence_of_a_core_installation_binds_its_users(audit: ModuleType) -> None:
    """No GPL, nothing undeclared: each is on the list, whatever is installed today."""
    assert audit.check_licences() == []


@pytest.mark.e2e
def test_the_bill_of_materials_is_valid_and_whole(
    audit: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CycloneDX by its own schema; the packages of a core installation with their versions, and no others."""
    monkeypatch.setattr(audit, "OUTPUT", tmp_path)
    assert audit.write_sbom() == []
    text = (tmp_path / "sbom.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    bill = json.loads(text)
    listed = {canonicalize_name(part["name"]): part["version"] for part in bill["components"]}
    assert listed == audit.core_packages()
    assert bill["metadata"]["component"]["name"] == "voice-agent"
    references = {part["bom-ref"] for part in bill["components"]} | {"root-component"}
    assert {ref for entry in bill["dependencies"] for ref in entry.get("dependsOn", ())} <= references


def test_what_is_written_is_not_committed() -> None:
    """The output folder is one that git ignores."""
    assert "build/" in (ROOT / ".gitignore").read_text().splitlines()


@pytest.mark.parametrize(
    ("declared", "is_allowed"),
    [
        ("MIT", True),
        ("MIT License", True),
        ("Apache-2.0 OR GPL-3.0-only", True),
        ("GPL-3.0-only OR Apache-2.0", True),
        ("Apache-2.0 AND BSD-2-Clause", True),
        ("(MIT OR GPL-2.0-only) AND BSD-3-Clause", True),
        ("Apache Software License; MIT License", True),
        ("LGPL-2.1-or-later", True),
        ("GPL-3.0-only", False),
        ("GPL-2.0-or-later WITH Classpath-exception-2.0", False),
        ("MIT AND GPL-3.0-only", False),
        ("MIT AND (GPL-3.0-only OR AGPL-3.0-only)", False),
        ("GNU General Public License v3 (GPLv3)", False),
        ("MIT License; GNU General Public License v3 (GPLv3)", False),
        ("LGPL-3.0-only", False),
        ("Proprietary", False),
        ("SSPL-1.0", False),
        ("", False),
    ],
)
def test_which_licences_are_allowed(audit: ModuleType, declared: str, is_allowed: bool) -> None:
    """SPDX expressions and the older spellings; what is not on the list is not allowed."""
    assert audit.is_allowed(declared) is is_allowed
    findings = audit.judge_licences({"some-package": declared})
    assert findings == ([] if is_allowed else [f"some-package: {declared or 'no licence is declared'}"])


def known(name: str, *ids: str) -> dict[str, Any]:
    return {
        "name": name,
        "version": "1.0",
        "vulns": [{"id": number, "fix_versions": ["1.1"]} for number in ids],
    }


def test_a_known_vulnerability_is_found(audit: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    """With the version that mends it."""
    found = audit.judge_vulnerabilities([known("a"), known("b", "CVE-1", "CVE-2")])
    assert found == ["b 1.0: CVE-1, mended in 1.1", "b 1.0: CVE-2, mended in 1.1"]
    assert "2 packages were checked, 2 known vulnerabilities" in capsys.readouterr().out


def test_no_answer_is_not_taken_for_no_vulnerability(
    audit: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the registry says nothing, that is said, and it is no finding."""
    assert audit.judge_vulnerabilities([{"name": "a", "skip_reason": "not found"}, known("b")]) == []
    assert "NOT CHECKED: 1 of 2 packages" in capsys.readouterr().out


@pytest.mark.parametrize("said", ["", "no JSON", "{}"])
def test_a_registry_out_of_reach_is_said_and_no_failure(
    audit: ModuleType, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A machine without a network can run the audit."""
    done = audit.subprocess.CompletedProcess([], 1, stdout=said, stderr="trace\nConnection refused\n")
    monkeypatch.setattr(audit, "run", lambda *_arguments, **_options: done)
    assert list(audit.check_vulnerabilities()) == []
    assert "NOT CHECKED: Connection refused" in capsys.readouterr().out


def test_a_finding_fails_the_run(audit: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 1 for a finding, 0 for none."""
    monkeypatch.setattr(audit.sys, "argv", ["audit", "licences"])
    for findings, code in ((["x: GPL-3.0-only"], 1), ([], 0)):
        monkeypatch.setattr(audit, "check_licences", lambda found=findings: found)
        assert audit.main() == code
