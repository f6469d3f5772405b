"""What a server keeps, as ``voice-agent journals`` asks for it: HTTP in, values and errors out."""

import json
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Final
from urllib.parse import quote

import attrs

from voice_agent.cli.sessions_client import (
    Json,
    RequestRefusedError,
    SessionsClient,
    read_json,
    read_lines,
    refusal,
    translated,
)
from voice_agent.cli.sessions_follow import BrokenStreamError
from voice_agent.core.errors import ServerUnreachableError

PATH: Final = "/v1/journals"
PAGE: Final = 200
_ADVICE: Final[Mapping[int, str]] = {
    HTTPStatus.NOT_FOUND: "; `voice-agent journals list` shows which there are",
    HTTPStatus.CONFLICT: " (or `voice-agent sessions end`)",
}


@attrs.frozen
class JournalsClient:
    """Asks one server, over a connection that is open.

    Every method raises :class:`RequestRefusedError` for an answer that is an error, and
    :class:`ServerUnreachableError` for none, or one that is not of a server like ours.
    """

    connection: SessionsClient

    async def journals(self, filters: Mapping[str, str], limit: int) -> tuple[list[Json], bool]:
        """Return kept sessions, page by page up to ``limit``, and whether there are more."""
        found: list[Json] = []
        query = dict(filters)
        while True:
            query["limit"] = str(min(PAGE, limit - len(found)))
            page = json.loads(await self._ask("GET", PATH, query))
            found.extend(page.get("journals", ()))
            if (cursor := page.get("next")) is None or len(found) >= limit:
                return found, cursor is not None
            query["cursor"] = cursor

    async def journal(self, session_id: str) -> Json:
        """Return the record of one session."""
        answer: Json = json.loads(await self._ask("GET", _path(session_id)))
        return answer

    async def transcript(self, session_id: str, form: str) -> str:
        """Return what was said, as ``json`` or ``text``."""
        return await self._ask("GET", f"{_path(session_id)}/transcript", {"format": form})

    async def delete(self, session_id: str) -> None:
        """Delete one session."""
        await self._ask("DELETE", _path(session_id))

    async def export(self, session_id: str, write: Callable[[str], None]) -> int:
        """Hand over the lines of an export as they come, and return how many entries there were.

        Raises:
            BrokenStreamError: it broke off, or the server said that it is not all.
        """
        reading = _Export(write)
        url = self.connection.url
        try:
            with translated(url):
                async with self.connection.http.stream("GET", f"{_path(session_id)}/export") as answer:
                    if answer.is_error:
                        await answer.aread()
                        raise refusal(answer, _ADVICE)
                    await read_lines(answer, reading.take)
        except RequestRefusedError:
            raise
        except ServerUnreachableError as error:
            if not reading.last:
                raise
            raise BrokenStreamError(f"the export broke off: {error.message}") from error
        return reading.finish()

    async def _ask(self, method: str, path: str, query: Mapping[str, str] | None = None) -> str:
        with translated(self.connection.url):
            answer = await self.connection.http.request(method, path, params=query)
        if answer.is_error:
            raise refusal(answer, _ADVICE)
        if answer.headers.get("content-type", "").startswith("application/json"):
            read_json(answer)
        elif answer.content and not answer.headers.get("content-type", "").startswith("text/plain"):
            raise ServerUnreachableError(f"{answer.url} answers, but not as a voice_agent server does")
        return answer.text


@attrs.define
class _Export:
    """Lines on their way through; holds the last one, which says whether that was all."""

    _write: Callable[[str], None]
    last: str = ""

    def take(self, line: str) -> None:
        self.last = line
        self._write(line)

    def finish(self) -> int:
        try:
            last = json.loads(self.last)
            if "error" in last:
                raise BrokenStreamError(f"the export is not complete: {last['error']['message']}")
            return int(last["end"]["entries"])
        except (ValueError, KeyError, TypeError) as error:
            raise BrokenStreamError("the export broke off: its last line is missing") from error


def _path(session_id: str) -> str:
    return f"{PATH}/{quote(session_id, safe='')}"
