"""The expositions of several workers become one that every scraper reads."""

from collections import defaultdict
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from voice_agent.observability.metrics import OPENMETRICS, Metrics
from voice_agent.observability.worker_metrics import (
    ANSWERED,
    WorkerMetrics,
    exposition_of_answers,
    merge_expositions,
)

HARD = 'a"b\\c\nd{e="f"} 1'
"""A label's value that looks like a sample."""


def metrics(calls: int) -> Metrics:
    made = Metrics(with_process=True)
    made.active_sessions.set(calls)
    made.calls_refused_total.labels(HARD).inc(calls)
    made.stt_latency_seconds.observe(0.1 * calls, {"trace_id": "a" * 32})
    return made


@pytest.mark.parametrize(("accept", "parse"), [("", parse_text), (OPENMETRICS, parse_openmetrics)])
def test_the_strict_parser_finds_every_sample_of_every_worker(accept: str, parse: Any) -> None:
    """Nothing is lost, nothing is there twice, and each sample says whose it is; families stand together."""
    texts = {number: metrics(number).render(accept)[0].decode() for number in (1, 2, 3)}
    supervisor = WorkerMetrics(3).render(openmetrics=accept == OPENMETRICS).decode()
    answers = exposition_of_answers(3, answered={1, 2, 3})
    merged = merge_expositions(texts, [answers, supervisor])
    families = list(parse(merged))
    assert len({family.name for family in families}) == len(families)
    found: dict[str, dict[Any, float]] = defaultdict(dict)
    for family in families:
        for sample in family.samples:
            labels = dict(sample.labels)
            worker = labels.pop("worker")
            key = (sample.name, frozenset(labels.items()))
            assert key not in found[worker]
            found[worker][key] = sample.value
    for number, text in texts.items():
        alone = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in parse(text)
            for sample in family.samples
        }
        own = {key: value for key, value in found[str(number)].items() if "voice_agent_worker_" not in key[0]}
        assert own == alone
        assert found[str(number)][ANSWERED, frozenset()] == 1


def test_exemplars_stay() -> None:
    """They lead from a histogram to a trace."""
    texts = {number: metrics(number).render(OPENMETRICS)[0].decode() for number in (1, 2)}
    families = parse_openmetrics(merge_expositions(texts))
    exemplars = [
        sample.exemplar.labels
        for family in families
        for sample in family.samples
        if sample.exemplar is not None
    ]
    assert exemplars == [{"trace_id": "a" * 32}] * 2


def test_a_worker_that_was_silent_is_named() -> None:
    """Its figures are missing, which nobody would notice in a sum."""
    merged = merge_expositions({1: metrics(1).render()[0].decode()}, [exposition_of_answers(2, answered={1})])
    [answered] = [family for family in parse_text(merged) if family.name == ANSWERED]
    assert {sample.labels["worker"]: sample.value for sample in answered.samples} == {"1": 1, "2": 0}


def test_one_that_was_written_by_an_earlier_version_does_no_harm() -> None:
    """Families that only one of them has stand there once."""
    merged = merge_expositions(
        {1: "# HELP a A.\n# TYPE a gauge\na 1.0\n", 2: "# HELP b B.\n# TYPE b gauge\nb 2.0\n"}
    )
    assert (
        merged
        == '# HELP a A.\n# TYPE a gauge\na{worker="1"} 1.0\n# HELP b B.\n# TYPE b gauge\nb{worker="2"} 2.0\n'
    )
