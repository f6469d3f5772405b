"""The exposition: what Prometheus and its linter say of it, and which values are there from the start."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from voice_agent.core.events import CloseReason
from voice_agent.observability.metrics import OPENMETRICS_TYPE, TEXT_TYPE, Metrics
from voice_agent.observability.process import count_threads

PROMETHEUS_ACCEPTS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
    "application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;q=0.3,*/*;q=0.2"
)
CLOSED_LABELS = {"reason", "stage", "outcome", "limit", "version", "python", "onnxruntime"}
FREE_LABELS = {"cause", "kind", "check"}
"""Their values are declared where they are known; what every server has, the tests of these rooms hold."""


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(with_process=True)


def families(metrics: Metrics) -> Iterator[Metric]:
    return (family for family in metrics.registry.collect() if family.name.startswith("voice_agent_"))


def test_promtool_finds_nothing_to_object_to(metrics: Metrics) -> None:
    """Names, units, types and help are what Prometheus' own linter wants."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed; Debian has it in the package prometheus")
    body, _ = metrics.render()
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=body, capture_output=True, timeout=60, check=False
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")


@pytest.mark.parametrize("accept", ["", "*/*", "text/plain", "text/html,*/*;q=0.8", "garbage;;;=,,"])
def test_who_asks_for_nothing_else_gets_the_text_format(metrics: Metrics, accept: str) -> None:
    """It is what everything reads."""
    body, content_type = metrics.render(accept)
    assert content_type == TEXT_TYPE
    assert {f.name for f in parse_text(body.decode())} >= {f.name for f in families(metrics)} - {
        "voice_agent_build"
    }


@pytest.mark.parametrize("accept", [PROMETHEUS_ACCEPTS, "Application/OpenMetrics-Text; version=abc\\n"])
def test_who_asks_for_openmetrics_gets_it(metrics: Metrics, accept: str) -> None:
    """As Prometheus asks; nothing of the request comes back in the answer's header."""
    body, content_type = metrics.render(accept)
    assert content_type == OPENMETRICS_TYPE
    assert body.endswith(b"# EOF\n")
    assert {f.name for f in parse_openmetrics(body.decode())} >= {f.name for f in families(metrics)}


def test_closed_sets_of_labels_begin_at_zero(metrics: Metrics) -> None:
    """A rate over a series that appears with its first event misses that event."""
    begun = {family.name for family in families(metrics) if family.samples}
    waiting = {
        family.name
        for family in families(metrics)
        if not family.samples and not FREE_LABELS & set(labels_of(metrics, family.name))
    }
    assert waiting == set()
    assert "voice_agent_close_seconds" in begun
    reasons = {
        sample.labels["reason"]
        for family in families(metrics)
        for sample in family.samples
        if sample.name == "voice_agent_calls_total"
    }
    assert reasons == {reason.value for reason in CloseReason}


def test_no_label_can_name_a_session_a_key_or_an_address(metrics: Metrics) -> None:
    """Their number is without bound, and so would be the server's memory, and Prometheus'."""
    names = {label for family in families(metrics) for label in labels_of(metrics, family.name)}
    assert names <= {*CLOSED_LABELS, *FREE_LABELS}


def labels_of(metrics: Metrics, name: str) -> tuple[str, ...]:
    """The label names of an instrument, also of one that has no sample yet."""
    for instrument in vars(metrics).values():
        if getattr(instrument, "_name", None) == name:
            return tuple(instrument._labelnames)
    return ()


def test_the_process_is_measured_too(metrics: Metrics) -> None:
    """Memory, file descriptors and CPU from the client library; threads from us, native ones too."""
    metrics.threads.set_function(count_threads)
    text = metrics.render()[0].decode()
    values = {
        sample.name: sample.value
        for family in parse_text(text)
        for sample in family.samples
        if not sample.labels
    }
    assert values["voice_agent_threads"] == len(list(Path("/proc/self/task").iterdir()))
    assert values["process_open_fds"] > 2
    assert values["process_resident_memory_bytes"] > 1e6
