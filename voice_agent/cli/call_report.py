"""What is said when calls have ended: exit code, lines for people, an object for machines. Pure."""

from collections.abc import Sequence
from typing import Any

import attrs

from voice_agent.cli import exit_codes
from voice_agent.cli.call_messages import number_at
from voice_agent.cli.call_result import CallResult
from voice_agent.cli.latency import LatencySummary, describe, summarise
from voice_agent.core.errors import ServerUnreachableError, UnreadableFileError, VoiceAgentError

_MS_PER_SECOND = 1000


@attrs.frozen(kw_only=True)
class CallOutcome:
    """How call ``number`` (from 1) of the audio called ``label`` went: a result, or the error that prevented it."""

    number: int
    label: str
    result: CallResult | None = None
    error: VoiceAgentError | None = None

    @property
    def exit_code(self) -> int:
        """What this call alone would exit with."""
        if isinstance(self.error, UnreadableFileError):
            return exit_codes.UNREADABLE_INPUT
        if isinstance(self.error, ServerUnreachableError):
            return exit_codes.SERVER_UNREACHABLE
        if self.error is not None:
            return exit_codes.FAILED
        if self.result is not None and self.result.failure_code == UnreadableFileError.code:
            return exit_codes.UNREADABLE_INPUT
        return exit_codes.OK if self.failure is None else exit_codes.FAILED

    @property
    def failure(self) -> tuple[str, str] | None:
        """Code and message of what went wrong."""
        if self.error is not None:
            return self.error.code, self.error.message
        if self.result is not None and self.result.failure_code is not None:
            return self.result.failure_code, self.result.failure or ""
        return None


@attrs.frozen(kw_only=True)
class CallReport:
    """All calls of one run of the command, in the order of their numbers."""

    outcomes: Sequence[CallOutcome]
    was_interrupted: bool
    latency_note: str | None = None
    """Why latencies would mean nothing; ``None`` when they are good."""

    @property
    def exit_code(self) -> int:
        """130 after Ctrl-C, else the gravest of the calls'."""
        if self.was_interrupted:
            return exit_codes.INTERRUPTED
        return max((outcome.exit_code for outcome in self.outcomes), default=exit_codes.OK)

    @property
    def final_latency(self) -> LatencySummary | None:
        """Over the finals of all calls."""
        return self._summary([r.final_latencies_seconds for r in self._results])

    @property
    def partial_latency(self) -> LatencySummary | None:
        """Over the partials of all calls."""
        return self._summary([r.partial_latencies_seconds for r in self._results])

    @property
    def _results(self) -> list[CallResult]:
        return [outcome.result for outcome in self.outcomes if outcome.result is not None]

    def _summary(self, latencies: Sequence[Sequence[float]]) -> LatencySummary | None:
        return None if self.latency_note else summarise([value for call in latencies for value in call])

    def lines(self) -> list[str]:
        """Return the closing lines for people."""
        lines = [line for outcome in self.outcomes for line in _outcome_lines(outcome)]
        if self.outcomes and not self._results:
            return lines
        if self.latency_note:
            return [*lines, f"latency not measured: {self.latency_note}"]
        lines.append(describe("final latency  ", self.final_latency))
        if self.partial_latency is not None:
            lines.append(describe("partial latency", self.partial_latency))
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Return the summary object of ``--json``."""
        return {
            "calls": [_outcome_dict(outcome) for outcome in self.outcomes],
            "final_latency_seconds": _latency_dict(self.final_latency),
            "partial_latency_seconds": _latency_dict(self.partial_latency),
            "latency_note": self.latency_note,
            "interrupted": self.was_interrupted,
            "exit_code": self.exit_code,
        }


def _outcome_lines(outcome: CallOutcome) -> list[str]:
    head = f"call {outcome.number} ({outcome.label})"
    lines: list[str] = []
    if outcome.result is not None:
        lines.append(f"{head}: {', '.join(_facts(outcome.result))}")
    if outcome.failure is not None:
        code, message = outcome.failure
        lines.append(f"{head}: failed [{code}]: {message}")
    return lines


def _facts(result: CallResult) -> list[str]:
    finals = len(result.finals)
    facts = [f"{result.audio_seconds:.1f} s of audio sent", f"{finals} final{'' if finals == 1 else 's'}"]
    closed = result.closed
    if closed is None:
        facts.insert(0, "no close record")
    else:
        facts.insert(0, f"{closed.get('reason')} after {number_at(closed, 'duration_seconds', 0):.1f} s")
        if dropped_ms := number_at(closed, "dropped_audio_ms", 0):
            facts.append(f"{dropped_ms / _MS_PER_SECOND:.1f} s of audio dropped by the server")
    if result.resumes:
        facts.append(f"resumed {'once' if result.resumes == 1 else f'{result.resumes} times'}")
    if result.lost_seconds:
        facts.append(f"{result.lost_seconds:.1f} s of sound lost with the connection")
    if result.close_code is not None:
        facts.append(f"close code {result.close_code}")
    return facts


def _outcome_dict(outcome: CallOutcome) -> dict[str, Any]:
    failure = outcome.failure
    described: dict[str, Any] = {
        "call": outcome.number,
        "audio": outcome.label,
        "failure": None if failure is None else {"code": failure[0], "message": failure[1]},
    }
    if (result := outcome.result) is not None:
        described |= {
            "session": result.session_id,
            "text": " ".join(final.text for final in result.finals),
            "finals": len(result.finals),
            "audio_seconds": round(result.audio_seconds, 3),
            "final_latencies_seconds": [round(value, 4) for value in result.final_latencies_seconds],
            "notices": [notice.get("code") for notice in result.notices],
            "errors": [error.get("code") for error in result.errors],
            "resumes": result.resumes,
            "lost_seconds": round(result.lost_seconds, 3),
            "closed": result.closed,
            "close_code": result.close_code,
        }
    return described


def _latency_dict(summary: LatencySummary | None) -> dict[str, Any] | None:
    if summary is None:
        return None
    return {
        "count": summary.count,
        "p50": round(summary.p50, 4),
        "p95": round(summary.p95, 4),
        "max": round(summary.maximum, 4),
    }
