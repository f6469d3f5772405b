"""The administration of a running server, as ``voice-agent sessions`` asks for it: HTTP in, values and errors out."""

import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

import attrs
import httpx
import trio

from voice_agent.cli.server_access import KEY_VARIABLE, ServerAccess
from voice_agent.core.errors import ServerUnreachableError
from voice_agent.core.event_lines import EventReader, ServerSentEvent
from voice_agent.core.problem import PROBLEM_TYPE
from voice_agent.core.units import SECONDS

PATH: Final = "/v1/sessions"
NODES_PATH: Final = "/v1/nodes"
PAGE: Final = 200
CONNECT_TIMEOUT_SECONDS: Final = 10 * SECONDS
ANSWER_TIMEOUT_SECONDS: Final = 30 * SECONDS
"""Also between two pieces of a stream, in which a server says something each 15 seconds."""

Json = dict[str, Any]


class RequestRefusedError(ServerUnreachableError):
    """A server answered with an error; ``answered`` is the HTTP status, ``told`` its code, or nothing."""

    code = "request_refused"

    def __init__(self, message: str, *, answered: int, told: str) -> None:
        super().__init__(message)
        self.answered = answered
        self.told = told


@attrs.frozen(kw_only=True)
class Listed:
    """Sessions, and what is missing among them."""

    sessions: list[Json]
    has_more: bool
    silent_nodes: tuple[str, ...]
    """Nodes that did not answer when a page was made: their sessions are not there."""


@attrs.frozen
class SessionsClient:
    """Asks one server; use :func:`open_sessions_client`.

    Every method raises :class:`RequestRefusedError` for an answer that is an error, and
    :class:`ServerUnreachableError` for none, or one that is not of a server like ours.
    """

    http: httpx.AsyncClient
    url: str

    async def sessions(self, filters: Mapping[str, str], limit: int) -> Listed:
        """Return the sessions, page by page up to ``limit``."""
        found: list[Json] = []
        silent: set[str] = set()
        query = dict(filters)
        while True:
            page = await self._ask("GET", PATH, {**query, "limit": str(min(PAGE, limit - len(found)))})
            found.extend(page.get("sessions", ()))
            silent.update(map(str, page.get("silent_nodes", ())))
            if (cursor := page.get("next")) is None or len(found) >= limit:
                return Listed(sessions=found, has_more=cursor is not None, silent_nodes=tuple(sorted(silent)))
            query["cursor"] = cursor

    async def nodes(self) -> Json:
        """Return the nodes that the server knows."""
        return await self._ask("GET", NODES_PATH)

    async def session(self, session_id: str) -> Json:
        """Return one session."""
        return await self._ask("GET", _path(session_id))

    async def end(self, session_id: str) -> Json | None:
        """End a session and return it; None where it had ended already."""
        return await self._ask("DELETE", _path(session_id)) or None

    async def follow(self, session_id: str, after: str, on_event: Callable[[ServerSentEvent], None]) -> None:
        """Hand events over as they come, until the stream ends; ``after`` is the last one that is known, or empty."""
        reader = EventReader(after)
        headers = {"Last-Event-ID": after} if after else {}

        def take(line: str) -> None:
            if (event := reader.feed(line)) is not None:
                on_event(event)

        with translated(self.url):
            async with self.http.stream("GET", f"{_path(session_id)}/events", headers=headers) as answer:
                if answer.is_error:
                    await answer.aread()
                    raise refusal(answer)
                await read_lines(answer, take)

    async def _ask(self, method: str, path: str, query: Mapping[str, str] | None = None) -> Json:
        with translated(self.url):
            answer = await self.http.request(method, path, params=query)
        if answer.is_error:
            raise refusal(answer)
        return {} if answer.status_code == HTTPStatus.NO_CONTENT else read_json(answer)


@asynccontextmanager
async def open_sessions_client(url: str, access: ServerAccess) -> AsyncIterator[SessionsClient]:
    """Open a client of the server at ``url``.

    Raises:
        ServerUnreachableError: the certificates that are to be trusted can't be read.
    """
    async with httpx.AsyncClient(
        base_url=url,
        headers=access.headers,
        verify=access.tls_context(),
        timeout=httpx.Timeout(ANSWER_TIMEOUT_SECONDS, connect=CONNECT_TIMEOUT_SECONDS),
        trust_env=False,  # as `voice-agent call`, which knows no proxies either
    ) as http:
        yield SessionsClient(http, url)


async def read_lines(answer: httpx.Response, take: Callable[[str], None]) -> None:
    """Hand over the lines of a stream; what ``take`` raises is raised when the stream has been left.

    Raised inside the loop, it would leave httpx's generators to the garbage collector, in the middle of their cleanup.
    A cancelled wait unwinds them properly.
    """
    failure: Exception | None = None
    with trio.CancelScope() as reading:
        async for line in answer.aiter_lines():
            if failure is not None:
                continue
            try:
                take(line)
            except Exception as error:  # noqa: BLE001 - raised below
                failure = error
                reading.cancel()
    if failure is not None:
        raise failure


@contextmanager
def translated(url: str) -> Iterator[None]:
    """Turn what a connection does into :class:`ServerUnreachableError`."""
    try:
        yield
    except httpx.TimeoutException as error:
        raise ServerUnreachableError(f"{url} does not answer") from error
    except (httpx.TransportError, httpx.InvalidURL) as error:
        reason = str(error) or type(error).__name__
        raise ServerUnreachableError(f"{url} can't be reached: {reason}; is the server running?") from error
    except UnicodeError as error:
        raise ServerUnreachableError(f"{url} sends what is no text: {error}") from error


def _path(session_id: str) -> str:
    return f"{PATH}/{quote(session_id, safe='')}"


def read_json(answer: httpx.Response) -> Json:
    """Return the JSON object of an answer.

    Raises:
        ServerUnreachableError: there is none, so that it is no server like ours.
    """
    try:
        found = json.loads(answer.content)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ServerUnreachableError(f"{answer.url} answers, but not as a voice_agent server does")
    return found


_ADVICE: Final[Mapping[int, str]] = {
    HTTPStatus.UNAUTHORIZED: f"; show a key with --key-file or {KEY_VARIABLE}",
    HTTPStatus.FORBIDDEN: "; use a key whose scopes and tenant reach that",
    HTTPStatus.NOT_FOUND: "; `voice-agent sessions list` shows which there are",
}


def refusal(answer: httpx.Response, advice_of_status: Mapping[int, str] | None = None) -> RequestRefusedError:
    """Tell an answer with an error in one line, with what to do next; ``advice_of_status`` goes before the usual one."""
    status = answer.status_code
    problem: object = None
    if answer.headers.get("content-type", "").startswith(PROBLEM_TYPE):
        problem = read_json(answer)
    if not isinstance(problem, dict) or not isinstance(problem.get("code"), str):
        message = (
            f"{answer.url} answered {status}; that is no voice_agent server, or there is something before it"
        )
        return RequestRefusedError(message, answered=status, told="")
    advice = {**_ADVICE, **(advice_of_status or {})}.get(status, "")
    if "retry-after" in answer.headers:
        advice = f"; try again in {answer.headers['retry-after']} s"
    detail = str(problem.get("detail")).rstrip(".")
    return RequestRefusedError(
        f"the server refuses ({status} {problem['code']}): {detail}{advice}",
        answered=status,
        told=problem["code"],
    )
