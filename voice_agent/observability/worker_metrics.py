"""WorkerMetrics: what a supervisor knows of its workers; and the exposition of several processes as one."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

RESTART_CAUSES: Final = ("crashed", "hung", "not_started", "replaced")
ANSWERED: Final = "voice_agent_worker_answered"
WORKER_LABEL: Final = "worker"
END: Final = "# EOF"
METRICS_FILE: Final = "supervisor.prom"
OPENMETRICS_FILE: Final = "supervisor.om"
"""Where a supervisor, which serves nobody, leaves its figures for its workers: in the folder of their sockets."""

_SAMPLE: Final = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(\{?)(.*)", re.DOTALL)


class WorkerMetrics:
    """The instruments of a supervisor."""

    def __init__(self, count: int) -> None:
        self.registry = CollectorRegistry()
        self.ready = Gauge(
            "voice_agent_worker_ready",
            "1 while the worker serves, 0 while it starts, stops, or waits to be started again.",
            [WORKER_LABEL],
            registry=self.registry,
        )
        self.restarts_total = Counter(
            "voice_agent_worker_restarts_total",
            "Workers that were started again, by what had become of the one before: crashed; hung, and so killed; "
            "not_started, it ended before it served; replaced, somebody had ended it in good order.",
            [WORKER_LABEL, "cause"],
            registry=self.registry,
        )
        for number in range(1, count + 1):
            self.ready.labels(str(number)).set(0)
            for cause in RESTART_CAUSES:
                self.restarts_total.labels(str(number), cause)

    def render(self, *, openmetrics: bool) -> bytes:
        """Return the exposition."""
        if openmetrics:
            body: bytes = generate_openmetrics(self.registry)  # type: ignore[no-untyped-call]  # it says bytes in words
            return body
        return generate_latest(self.registry)


def exposition_of_answers(count: int, *, answered: Collection[int]) -> str:
    """Return the metric that says which workers' figures are missing in an exposition of all."""
    registry = CollectorRegistry()
    gauge = Gauge(
        ANSWERED,
        "1 when this exposition holds the worker's figures, 0 when the worker was silent.",
        [WORKER_LABEL],
        registry=registry,
    )
    for number in range(1, count + 1):
        gauge.labels(str(number)).set(number in answered)
    return generate_latest(registry).decode()


def merge_expositions(of_workers: Mapping[int, str], others: Sequence[str] = ()) -> str:
    """Make one exposition of those of several workers, each sample labelled ``worker``, and of ``others`` as they are.

    All of them are in one format and made by this program, whose families say ``# HELP`` first; so lines are moved and not
    parsed: a page of 16 workers takes a few milliseconds, and a parser most of a second (measured).
    """
    families: dict[str, list[str]] = {}
    is_open = False
    texts: Iterable[tuple[str | None, str]] = [
        *((str(number), text) for number, text in of_workers.items()),
        *((None, text) for text in others),
    ]
    for worker, text in texts:
        family: list[str] = []
        is_first = True
        for line in text.splitlines():
            if line == END:
                is_open = True
            elif line.startswith("# HELP "):
                name = line.split(" ", 3)[2]
                is_first = name not in families
                family = families.setdefault(name, [])
                if is_first:
                    family.append(line)
            elif line.startswith("#"):
                if is_first:
                    family.append(line)
            elif line:
                family.append(line if worker is None else _labelled(line, worker))
    lines = [line for family in families.values() for line in family]
    return "\n".join([*lines, *([END] if is_open else [])]) + "\n"


def _labelled(sample: str, worker: str) -> str:
    """Put the label first: what follows a name is its labels, or its value."""
    found = _SAMPLE.fullmatch(sample)
    if found is None:
        return sample
    name, brace, rest = found.groups()
    closing = "," if brace else "}"
    return f'{name}{{{WORKER_LABEL}="{worker}"{closing}{rest}'
