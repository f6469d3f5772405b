"""Problem: how every HTTP error is told (RFC 9457), whoever answers: the application, a handshake, the guard."""

import json
from http import HTTPStatus
from typing import Final, Self

import attrs

from voice_agent.core.errors import VoiceAgentError

PROBLEM_TYPE: Final = "application/problem+json"
NO_TYPE: Final = "about:blank"
"""RFC 9457, section 4.2.1: the code says all that a type of its own could say."""


@attrs.frozen(kw_only=True)
class Problem:
    """One problem document; programs branch on ``code``, people read ``detail``, ``field`` names what is at fault."""

    status: int
    code: str
    detail: str
    field: str | None = None

    @classmethod
    def of(cls, error: VoiceAgentError) -> Self:
        """Tell an error of the tree."""
        return cls(status=int(error.status), code=error.code, detail=error.message, field=error.field)

    @property
    def title(self) -> str:
        """The status in words, as RFC 9457, section 4.2.1 wants it for :data:`NO_TYPE`."""
        return HTTPStatus(self.status).phrase

    def to_json(self) -> str:
        """Return the document."""
        return json.dumps(
            {
                "type": NO_TYPE,
                "title": self.title,
                "status": self.status,
                "code": self.code,
                "detail": self.detail,
                "field": self.field,
            }
        )
