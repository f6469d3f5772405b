"""JSON of attrs classes: field names as they are, times as RFC 3339 in UTC, seconds to the millisecond."""

import json
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Final

import cattrs
from quart import Response

from voice_agent.web.described import JSON

_DECIMALS: Final = 3


def time_text(moment: datetime) -> str:
    """Return a time as RFC 3339 has it, in UTC and to the millisecond."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def plain(value: Any) -> Any:
    """Return what stands in the JSON for an object."""
    return _CONVERTER.unstructure(value)


def json_answer(value: Any, status: HTTPStatus = HTTPStatus.OK) -> Response:
    """Answer with an object of an attrs class; nothing of what is told here may be kept by a cache."""
    response = Response(json.dumps(plain(value)), status=int(status), content_type=JSON)
    response.headers["Cache-Control"] = "no-store"
    return response


_CONVERTER: Final = cattrs.Converter()
_CONVERTER.register_unstructure_hook(datetime, time_text)
_CONVERTER.register_unstructure_hook(float, lambda number: round(number, _DECIMALS))
