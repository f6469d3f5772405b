"""docs/observability.md names every metric and every log event that there is."""

import re
from pathlib import Path

from voice_agent.observability.metrics import Metrics
from voice_agent.observability.worker_metrics import ANSWERED, WorkerMetrics

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs/observability.md").read_text()


def test_every_metric_is_documented_and_no_other() -> None:
    """An SRE finds in the document what is in /metrics, and the other way round."""
    endings = {"counter": "_total", "info": "_info"}
    families = [*Metrics().registry.collect(), *WorkerMetrics(2).registry.collect()]
    exposed = {family.name + endings.get(family.type, "") for family in families}
    exposed.add(ANSWERED)
    documented = set(re.findall(r"^\| `(voice_agent_\w+)", DOCUMENT, re.MULTILINE))
    assert documented == exposed


def test_every_metric_is_updated_somewhere() -> None:
    """An instrument that nothing moves lies; each attribute is used outside its declaration."""
    sources = "".join(p.read_text() for p in (ROOT / "voice_agent").rglob("*.py") if p.name != "metrics.py")
    for name in vars(Metrics()):
        if name not in {"registry", "build_info"}:
            assert re.search(rf"(metrics|instruments)\.{name}\b", sources), name


def test_the_log_events_of_a_call_are_documented() -> None:
    """What the session and the server log stands in the table."""
    logged = set()
    for room in (
        "session",
        "server",
        "observability",
        "supervisor",
        "cluster",
        "agent",
        "agent/gold_loan",
        "agent/llm",
    ):
        for path in (ROOT / "voice_agent" / room).glob("*.py"):
            logged |= set(
                re.findall(r"log\.(?:info|warning|error|exception)\(\s*\"(\w+)\"", path.read_text())
            )
    documented = set(re.findall(r"`(\w+)`", DOCUMENT.split("## Logs")[1].split("## The close record")[0]))
    assert logged <= documented, logged - documented
