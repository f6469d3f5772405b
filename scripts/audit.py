"""Audit what is installed: known vulnerabilities, licences, and a software bill of materials.

    scripts/audit                       all three
    scripts/audit licences sbom         without a network

Exit codes: 0 nothing was found, 1 something was. What could not be checked is told and is no finding: a machine without a
network must not fail for it.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT: Final = Path(__file__).parents[1]
OUTPUT: Final = ROOT / "build" / "audit"
VULNERABILITY_TIMEOUT_SECONDS: Final = 300

PERMISSIVE: Final = frozenset(
    {
        "0BSD",
        "Apache-2.0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "CC0-1.0",
        "ISC",
        "MIT",
        "MIT-0",
        "MPL-2.0",
        "PSF-2.0",
        "Zlib",
    }
)
"""SPDX identifiers that a core installation may have. MPL-2.0 asks for changes to its own files only."""

LIBRARIES: Final = frozenset({"LGPL-2.1-or-later"})
"""Used as they are, as shared libraries that can be exchanged: what the LGPL asks for."""

SPELLINGS: Final[Mapping[str, str]] = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}
"""What older packages write instead of an SPDX expression."""


def main() -> int:
    """Run what was asked for; return the exit code."""
    checks = {"vulnerabilities": check_vulnerabilities, "licences": check_licences, "sbom": write_sbom}
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("checks", nargs="*", choices=[*checks, []], help="all of them by default")
    wanted = parser.parse_args().checks or list(checks)
    findings = [finding for name in wanted for finding in checks[name]()]
    for finding in findings:
        print(f"FOUND: {finding}")
    return 1 if findings else 0


# -- which packages -----------------------------------------------------------------------------------------------------


def core_packages() -> dict[str, str]:
    """Return names and versions of what an installation without extras has: the project's dependencies, and theirs.

    Names are canonical (PEP 503).
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found: dict[str, str] = {}
    waiting = [Requirement(text) for text in project["dependencies"]]
    while waiting:
        requirement = waiting.pop()
        if requirement.marker is not None and not any(
            requirement.marker.evaluate({"extra": extra}) for extra in ("", *requirement.extras)
        ):
            continue
        name = canonicalize_name(requirement.name)
        try:
            installed = distribution(requirement.name)
        except PackageNotFoundError:
            raise SystemExit(f"{requirement} is not installed: run scripts/setup --dev first") from None
        if name in found:
            continue
        found[name] = installed.version
        for text in installed.requires or ():
            further = Requirement(text)
            extras = ("", *requirement.extras)
            if further.marker is None or any(further.marker.evaluate({"extra": extra}) for extra in extras):
                further.marker = None
                waiting.append(further)
    return dict(sorted(found.items()))


# -- known vulnerabilities ------------------------------------------------------------------------------------------------


def check_vulnerabilities() -> Iterable[str]:
    """Ask the registry about each package of ``constraints.txt``, development tools included."""
    print("== known vulnerabilities of the packages in constraints.txt")
    command = ["pip-audit", "--requirement", "constraints.txt", "--no-deps", "--disable-pip"]
    command += ["--format", "json", "--progress-spinner", "off", "--timeout", "15"]
    try:
        done = run(command, timeout=VULNERABILITY_TIMEOUT_SECONDS)
        answers = json.loads(done.stdout)["dependencies"]
    except subprocess.TimeoutExpired:
        print(f"NOT CHECKED: no answer within {VULNERABILITY_TIMEOUT_SECONDS} s")
        return []
    except (ValueError, KeyError):
        reason = done.stderr.strip().splitlines()[-1:] or ["no answer"]
        print(f"NOT CHECKED: {reason[0]}")
        return []
    return judge_vulnerabilities(answers)


def judge_vulnerabilities(answers: Iterable[Mapping[str, Any]]) -> list[str]:
    """Say how much was answered, and return what was found.

    The tool itself says "No known vulnerabilities found" also where nobody has answered.
    """
    findings, unanswered, count = [], [], 0
    for package in answers:
        count += 1
        if "skip_reason" in package:
            unanswered.append(package["name"])
        findings += [
            f"{package['name']} {package['version']}: {known['id']}"
            + (f", mended in {', '.join(known['fix_versions'])}" if known.get("fix_versions") else "")
            for known in package.get("vulns", ())
        ]
    if unanswered:
        print(
            f"NOT CHECKED: {len(unanswered)} of {count} packages, for the registry says nothing about them here"
        )
    print(f"{count - len(unanswered)} packages were checked, {len(findings)} known vulnerabilities")
    return findings


# -- licences -------------------------------------------------------------------------------------------------------------


def check_licences() -> list[str]:
    """Compare the licence of each core package with those that are allowed."""
    print("== licences of a core installation")
    core = core_packages()
    listed = json.loads(run(["pip-licenses", "--format", "json", "--from", "all", "--with-system"]).stdout)
    licences = {canonicalize_name(package["Name"]): licence_of(package) for package in listed}
    findings = judge_licences({name: licences.get(name, "") for name in core})
    print(f"{len(core)} packages, {len(findings)} with a licence that is not allowed")
    return findings


def licence_of(package: Mapping[str, str]) -> str:
    """Return what a package declares: its SPDX expression, else its classifiers, else its free text."""
    for field in ("License-Expression", "License-Classifier", "License-Metadata"):
        declared = package.get(field, "UNKNOWN")
        if declared not in {"UNKNOWN", ""}:
            return declared
    return ""


def judge_licences(licences: Mapping[str, str]) -> list[str]:
    """Return the packages whose licence is none of the allowed ones, or not known."""
    return [
        f"{name}: {declared or 'no licence is declared'}"
        for name, declared in licences.items()
        if not is_allowed(declared)
    ]


def is_allowed(declared: str) -> bool:
    """Whether a licence, as declared, is allowed: each part of an AND, one part of an OR (SPDX, annex D).

    Classifiers that stand side by side, divided by semicolons, may be a choice or not: all of them must be allowed.
    """
    expression = SPELLINGS.get(declared, declared).replace(";", " AND ")
    for spelling, identifier in SPELLINGS.items():
        expression = expression.replace(spelling, identifier)
    expression = expression.strip()
    while (inner := re.search(r"\(([^()]*)\)", expression)) is not None:
        verdict = "MIT" if is_allowed(inner[1]) else "no"
        expression = expression[: inner.start()] + verdict + expression[inner.end() :]
    choices = [choice.split(" AND ") for choice in expression.split(" OR ")]
    return any(all(part.strip() in PERMISSIVE | LIBRARIES for part in choice) for choice in choices)


# -- software bill of materials -------------------------------------------------------------------------------------------


def write_sbom() -> list[str]:
    """Write what a core installation has, as CycloneDX 1.6."""
    print("== software bill of materials")
    command = ["cyclonedx-py", "environment", "--pyproject", "pyproject.toml", "--output-format", "JSON"]
    command += ["--spec-version", "1.6", "--output-reproducible", sys.executable]
    done = run(command)
    if done.returncode:
        return [f"no bill of materials could be written: {done.stderr.strip().splitlines()[-1]}"]
    whole = json.loads(done.stdout)
    bill = only(whole, set(core_packages()))
    OUTPUT.mkdir(parents=True, exist_ok=True)
    for name, document in (("sbom.cdx.json", bill), ("sbom-development.cdx.json", whole)):
        path = OUTPUT / name
        path.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n")
        print(f"{os.path.relpath(path)}: {len(document['components'])} packages")
    return []


def only(bill: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    """Return the bill with the named packages alone, and what they depend on among each other."""
    kept = [part for part in bill["components"] if canonicalize_name(part["name"]) in names]
    references = {part["bom-ref"] for part in kept} | {bill["metadata"]["component"]["bom-ref"]}
    depends = [
        {**entry, "dependsOn": [ref for ref in entry.get("dependsOn", ()) if ref in references]}
        for entry in bill["dependencies"]
        if entry["ref"] in references
    ]
    return {**bill, "components": kept, "dependencies": depends}


def run(command: list[str], *, timeout: float | None = None) -> subprocess.CompletedProcess[str]:
    """Run a tool that is installed beside this Python."""
    tool = Path(sys.executable).with_name(command[0])
    return subprocess.run(
        [tool, *command[1:]], capture_output=True, text=True, check=False, cwd=ROOT, timeout=timeout
    )


if __name__ == "__main__":
    sys.exit(main())
