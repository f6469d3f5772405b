"""deploy/: alert rules that fire when they should and stay silent when not, a dashboard whose every query is sound."""

import itertools
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from voice_agent.observability.metrics import Metrics
from voice_agent.observability.worker_metrics import ANSWERED, WorkerMetrics

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy/prometheus"
RULES = (PROMETHEUS / "alerts.yml").read_text()
RULE_TESTS = (PROMETHEUS / "alerts.test.yml").read_text()
DASHBOARD: dict[str, Any] = json.loads((ROOT / "deploy/grafana/voice-agent.json").read_text())
DOCUMENT = (ROOT / "docs/observability.md").read_text()
GRID_COLUMNS = 24

OTHERS_METRICS = {
    "up",  # Prometheus' own
    "process_cpu_seconds_total",
    "process_max_fds",
    "process_open_fds",
    "process_resident_memory_bytes",
}


def promtool(*arguments: Any, cwd: Path = PROMETHEUS) -> subprocess.CompletedProcess[str]:
    """Run Prometheus' tool; without it the test is skipped."""
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed; Debian has it in the package prometheus")
    return subprocess.run(
        [program, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False, cwd=cwd
    )


def panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def queries() -> list[str]:
    """Every query of the dashboard, as Prometheus gets it."""
    found = [target["expr"] for panel in panels() for target in panel["targets"]]
    found += [annotation["expr"] for annotation in DASHBOARD["annotations"]["list"]]
    return [
        query.replace("$__rate_interval", "5m").replace("$job", "a").replace("$instance", "b")
        for query in found
    ]


def exposed() -> set[str]:
    """Names of samples that a server exposes."""
    endings = {
        "counter": ["_total"],
        "histogram": ["_bucket", "_sum", "_count"],
        "info": ["_info"],
        "gauge": [""],
    }
    families = [*Metrics().registry.collect(), *WorkerMetrics(2).registry.collect()]
    return (
        OTHERS_METRICS
        | {ANSWERED}
        | {family.name + ending for family in families for ending in endings[family.type]}
    )


def names_in(query: str) -> set[str]:
    return set(re.findall(r"\b(?:voice_agent_\w+|process_\w+|up)\b", query))


def test_the_rules_and_the_configuration_are_sound() -> None:
    """As Prometheus reads them at its start."""
    for kind, name in (("rules", "alerts.yml"), ("config", "prometheus.yml")):
        checked = promtool("check", kind, name)
        assert checked.returncode == 0, checked.stdout + checked.stderr


def test_each_rule_fires_in_its_time_and_none_on_a_good_day() -> None:
    """Its own tests run; and each rule has one in which it is silent, one in which it fires, and the good day."""
    tested = promtool("test", "rules", "alerts.test.yml")
    assert tested.returncode == 0, tested.stdout + tested.stderr
    good_day, *scenarios = RULE_TESTS.split("  - name: ")[1:]
    alerts = set(re.findall(r"- alert: (\w+)", RULES))
    assert set(re.findall(r"alertname: (\w+)", good_day)) == alerts
    assert "exp_labels" not in good_day
    fired = {
        name
        for scenario in scenarios
        for name, outcome in re.findall(r"alertname: (\w+)\n\s+exp_alerts:(.*)", scenario)
        if not outcome.strip()
    }
    silent = {
        name
        for scenario in scenarios
        for name, outcome in re.findall(r"alertname: (\w+)\n\s+exp_alerts:(.*)", scenario)
        if outcome.strip() == "[]"
    }
    assert fired == silent == alerts


def test_a_broken_rule_fails_its_test(tmp_path: Path) -> None:
    """The tests of the rules can fail: a threshold that is moved is noticed."""
    broken = RULES.replace("(voice_agent_stuck_closes) > 0", "(voice_agent_stuck_closes) > 2")
    assert broken != RULES
    (tmp_path / "alerts.yml").write_text(broken)
    (tmp_path / "alerts.test.yml").write_text(RULE_TESTS)
    tested = promtool("test", "rules", "alerts.test.yml", cwd=tmp_path)
    assert tested.returncode != 0
    assert "VoiceAgentCloseStuck" in tested.stdout + tested.stderr


def test_every_alert_is_explained_and_no_other() -> None:
    """Who is woken by one finds in the document what to look at."""
    alerts = re.findall(r"- alert: (\w+)", RULES)
    assert re.findall(r"^\| `(VoiceAgent\w+)`", DOCUMENT, re.MULTILINE) == alerts


def test_rules_and_dashboard_name_metrics_that_exist() -> None:
    """A name that was changed in the code is found here."""
    rules = {name for name in names_in(RULES) if not name.endswith("_yml")}
    for name in rules | set().union(*map(names_in, queries())):
        assert name in exposed(), name


def test_labels_have_values_that_exist() -> None:
    """What a query picks by its label is a value that the code knows."""
    metrics = Metrics()
    values: dict[str, set[str]] = {}
    for family in metrics.registry.collect():
        for sample in family.samples:
            for label, value in sample.labels.items():
                values.setdefault(label, set()).add(value)
    for query in [RULES, *queries()]:
        for label, wanted in re.findall(r"\b(reason|stage|outcome)=~?\"([^\"]+)\"", query):
            assert set(wanted.split("|")) <= values[label], (label, wanted)


def test_every_metric_is_on_the_dashboard() -> None:
    """An SRE finds each figure without writing a query."""
    shown = set().union(*map(names_in, queries()))
    for family in [*Metrics().registry.collect(), *WorkerMetrics(2).registry.collect()]:
        assert any(name.startswith(family.name) for name in shown), family.name


def test_every_query_of_the_dashboard_parses(tmp_path: Path) -> None:
    """Prometheus reads each; as rules that record them, for its tool has no check of a single query."""
    rules = [
        {"record": f"dashboard:query_{number}:now", "expr": query} for number, query in enumerate(queries())
    ]
    path = tmp_path / "queries.json"
    # JSON is YAML.
    path.write_text(json.dumps({"groups": [{"name": "queries", "rules": rules}]}))
    checked = promtool("check", "rules", path)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_dashboard_is_laid_out() -> None:
    """Ids are unique, every panel says what it shows and where from, and none lies over another."""
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    covered: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= GRID_COLUMNS
        cells = set(
            itertools.product(
                range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
            )
        )
        assert not cells & covered, panel["title"]
        covered |= cells
        assert panel["title"]
    for panel in panels():
        assert panel["datasource"]["uid"] == "${datasource}"
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert [target["refId"] for target in panel["targets"]] == [
            chr(ord("A") + number) for number in range(len(panel["targets"]))
        ]
