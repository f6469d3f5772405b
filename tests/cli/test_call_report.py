"""What is said when calls have ended."""

import pytest

from voice_agent.cli import exit_codes
from voice_agent.cli.call_client import CallResult
from voice_agent.cli.call_report import CallOutcome, CallReport
from voice_agent.core.errors import (
    InternalError,
    ServerUnreachableError,
    UnreadableFileError,
    VoiceAgentError,
)
from voice_agent.core.transcripts import TranscriptResult


def good_result(latency: float = 0.4) -> CallResult:
    """A call as it should be, with one final."""
    final = TranscriptResult(text="hello", is_final=True, start=0.5, end=1.0, utterance=1)
    return CallResult(
        session_id="abc",
        finals=[final],
        final_latencies_seconds=[latency],
        partial_latencies_seconds=[0.1],
        closed={"reason": "stopped", "duration_seconds": 2.04, "audio_seconds": 1.5, "dropped_audio_ms": 0},
        close_code=1000,
        audio_seconds=1.5,
    )


def outcome_of(error: VoiceAgentError | None = None, failure_code: str | None = None) -> CallOutcome:
    """An outcome that failed in the one way or the other."""
    if error is not None:
        return CallOutcome(number=1, label="a.wav", error=error)
    return CallOutcome(number=1, label="a.wav", result=CallResult(failure_code=failure_code, failure="why"))


@pytest.mark.parametrize(
    ("outcome", "exit_code"),
    [
        (outcome_of(), exit_codes.OK),
        (outcome_of(error=UnreadableFileError("no")), exit_codes.UNREADABLE_INPUT),
        (outcome_of(failure_code="unreadable_file"), exit_codes.UNREADABLE_INPUT),
        (outcome_of(error=ServerUnreachableError("no")), exit_codes.SERVER_UNREACHABLE),
        (outcome_of(error=InternalError("no")), exit_codes.FAILED),
        (outcome_of(failure_code="connection_lost"), exit_codes.FAILED),
    ],
)
def test_each_way_to_fail_has_its_exit_code(outcome: CallOutcome, exit_code: int) -> None:
    """The codes that --help documents."""
    assert outcome.exit_code == exit_code
    assert CallReport(outcomes=[outcome], was_interrupted=False).exit_code == exit_code


def test_an_interrupted_run_exits_with_130_and_the_gravest_failure_counts_otherwise() -> None:
    """Ctrl-C is the user's own wish, whatever else went wrong."""
    outcomes = [
        outcome_of(),
        outcome_of(error=ServerUnreachableError("no")),
        outcome_of(failure_code="drain"),
    ]
    assert CallReport(outcomes=outcomes, was_interrupted=True).exit_code == 130
    assert CallReport(outcomes=outcomes, was_interrupted=False).exit_code == 70
    assert CallReport(outcomes=[], was_interrupted=False).exit_code == 0


def test_the_lines_for_people() -> None:
    """A line for each call, its failure, and the latencies of all calls together."""
    dropped = good_result(0.6)
    assert dropped.closed is not None
    dropped.closed["dropped_audio_ms"] = 2500
    report = CallReport(
        outcomes=[
            CallOutcome(number=1, label="a.wav", result=good_result()),
            CallOutcome(number=2, label="b.wav", result=dropped),
            CallOutcome(number=3, label="c.wav", error=ServerUnreachableError("nobody there")),
            outcome_of(failure_code="connection_lost"),
        ],
        was_interrupted=False,
    )
    assert report.lines() == [
        "call 1 (a.wav): stopped after 2.0 s, 1.5 s of audio sent, 1 final, close code 1000",
        (
            "call 2 (b.wav): stopped after 2.0 s, 1.5 s of audio sent, 1 final, "
            "2.5 s of audio dropped by the server, close code 1000"
        ),
        "call 3 (c.wav): failed [server_unreachable]: nobody there",
        "call 1 (a.wav): no close record, 0.0 s of audio sent, 0 finals",
        "call 1 (a.wav): failed [connection_lost]: why",
        "final latency    p50 0.500 s  p95 0.590 s  max 0.600 s  (2 results)",
        "partial latency  p50 0.100 s  p95 0.100 s  max 0.100 s  (2 results)",
    ]


def test_calls_that_never_began_have_no_latency_line() -> None:
    """A server that is down is one line, not two."""
    report = CallReport(
        outcomes=[CallOutcome(number=1, label="a", error=ServerUnreachableError("nobody there"))],
        was_interrupted=False,
    )
    assert report.lines() == ["call 1 (a): failed [server_unreachable]: nobody there"]


def test_without_partials_no_latency_of_theirs_is_named() -> None:
    """Who declined partials doesn't read about them."""
    result = good_result()
    result.partial_latencies_seconds.clear()
    report = CallReport(outcomes=[CallOutcome(number=1, label="a", result=result)], was_interrupted=False)
    assert [line for line in report.lines() if "latency" in line] == [
        "final latency    p50 0.400 s  p95 0.400 s  max 0.400 s  (1 result)"
    ]


def test_figures_that_mean_nothing_are_not_shown() -> None:
    """At another speed than that of sound the reason stands in their place, for people and for machines."""
    report = CallReport(
        outcomes=[CallOutcome(number=1, label="a", result=good_result())],
        was_interrupted=False,
        latency_note="too fast",
    )
    assert report.lines()[-1] == "latency not measured: too fast"
    assert report.to_dict()["final_latency_seconds"] is None
    assert report.to_dict()["latency_note"] == "too fast"


def test_what_an_outage_cost_is_said() -> None:
    """How often a call was resumed, and what was lost with its connections; nothing of it where nothing was."""
    result = good_result()
    assert (
        "resumed"
        not in CallReport(
            outcomes=[CallOutcome(number=1, label="a", result=result)], was_interrupted=False
        ).lines()[0]
    )
    result.resumes, result.lost_seconds = 1, 3.14
    report = CallReport(outcomes=[CallOutcome(number=1, label="a", result=result)], was_interrupted=False)
    assert (
        "1 final, resumed once, 3.1 s of sound lost with the connection, close code 1000" in report.lines()[0]
    )
    assert report.exit_code == exit_codes.OK
    result.resumes = 2
    assert "resumed 2 times" in report.lines()[0]


def test_the_summary_for_machines() -> None:
    """Stable keys; the close record as the server gave it."""
    report = CallReport(
        outcomes=[
            CallOutcome(number=1, label="a.wav", result=good_result()),
            CallOutcome(number=2, label="b.wav", error=ServerUnreachableError("nobody there")),
        ],
        was_interrupted=False,
    )
    assert report.to_dict() == {
        "calls": [
            {
                "call": 1,
                "audio": "a.wav",
                "failure": None,
                "session": "abc",
                "text": "hello",
                "finals": 1,
                "audio_seconds": 1.5,
                "final_latencies_seconds": [0.4],
                "notices": [],
                "errors": [],
                "resumes": 0,
                "lost_seconds": 0.0,
                "closed": {
                    "reason": "stopped",
                    "duration_seconds": 2.04,
                    "audio_seconds": 1.5,
                    "dropped_audio_ms": 0,
                },
                "close_code": 1000,
            },
            {
                "call": 2,
                "audio": "b.wav",
                "failure": {"code": "server_unreachable", "message": "nobody there"},
            },
        ],
        "final_latency_seconds": {"count": 1, "p50": 0.4, "p95": 0.4, "max": 0.4},
        "partial_latency_seconds": {"count": 1, "p50": 0.1, "p95": 0.1, "max": 0.1},
        "latency_note": None,
        "interrupted": False,
        "exit_code": 69,
    }


def test_a_close_record_of_strange_types_is_still_reported() -> None:
    """The record is the server's; the report must not fail on it."""
    result = CallResult(closed={"reason": "stopped", "duration_seconds": None, "dropped_audio_ms": "many"})
    report = CallReport(outcomes=[CallOutcome(number=1, label="a", result=result)], was_interrupted=False)
    assert report.lines()[0] == "call 1 (a): stopped after 0.0 s, 0.0 s of audio sent, 0 finals"
