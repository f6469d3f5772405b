"""Problem documents (RFC 9457): how an HTTP answer tells what was wrong."""

import json
from http import HTTPStatus
from typing import Final

from quart import Response

PROBLEM_TYPE: Final = "application/problem+json"


def problem(status: HTTPStatus, code: str, detail: str, *, field: str | None = None) -> Response:
    """Make an answer; programs branch on ``code``, people read ``detail``, ``field`` names what is at fault."""
    body = {
        "type": "about:blank",
        "title": status.phrase,
        "status": int(status),
        "code": code,
        "detail": detail,
        "field": field,
    }
    return Response(json.dumps(body), status=int(status), content_type=PROBLEM_TYPE)
