"""Answers of the application that tell a problem (RFC 9457)."""

from http import HTTPStatus

from quart import Response

from voice_agent.access.refusal import Refusal
from voice_agent.core.errors import VoiceAgentError
from voice_agent.core.problem import PROBLEM_TYPE, Problem


def problem(status: HTTPStatus, code: str, detail: str, *, field: str | None = None) -> Response:
    """Make an answer; programs branch on ``code``, people read ``detail``, ``field`` names what is at fault."""
    return _answer(Problem(status=int(status), code=code, detail=detail, field=field))


def problem_of(error: VoiceAgentError) -> Response:
    """Make the answer that tells an error of the tree, with the status of its class."""
    return _answer(Problem.of(error))


def answer_refusal(refusal: Refusal) -> Response:
    """Make the answer to who may not come in, with the headers that belong to it."""
    response = problem_of(refusal.error)
    response.headers.extend([(name.decode(), value.decode()) for name, value in refusal.headers])
    return response


def _answer(told: Problem) -> Response:
    return Response(told.to_json(), status=told.status, content_type=PROBLEM_TYPE)
