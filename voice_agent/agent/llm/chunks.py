"""What a chat endpoint streams, read into one reply: pieces of text, and tool calls put together from their fragments. Pure.

The form is that of the API's reference, "Create chat completion", with ``stream``: each event's data is a JSON object whose
``choices[0].delta`` holds ``content`` or ``tool_calls``; ``[DONE]`` ends the stream. What compatible servers do differently is
taken as it is meant: calls without ``index`` or ``id``, ``finish_reason`` ``stop`` behind a call, no ``[DONE]``.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, Final

import attrs

from voice_agent.core.errors import LanguageModelFailedError

DONE: Final = "[DONE]"
MAX_CALLS: Final = 16
"""Tool calls in one reply; whoever asks for more asks for nothing sensible."""
MAX_NAME_CHARS: Final = 64
_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9_-]")
"""The API's reference, "Create chat completion", ``tools``: letters, digits, underscores and dashes, 64 at most."""
_TOLD_CHARS: Final = 200


@attrs.frozen
class ToolCall:
    """One use of a tool that the model asks for; ``arguments`` is JSON as the model wrote it."""

    id: str
    name: str
    arguments: str


@attrs.define
class _Parts:
    id: str = ""
    name: str = ""
    arguments: list[str] = attrs.field(factory=list)


class ReplyReader:
    """Reads one reply; give it each event's data."""

    def __init__(self) -> None:
        self._calls: dict[int, _Parts] = {}
        self.finish_reason: str = ""
        self.is_done = False
        self.has_begun = False
        """Whether text or a call has come; a role alone is nothing yet."""

    @property
    def is_whole(self) -> bool:
        """Whether the reply is complete; costs and :data:`DONE` may follow a reason to finish, or not."""
        return self.is_done or bool(self.finish_reason)

    def feed(self, data: str) -> str:
        """Take an event's data; return the text that it brings.

        Raises:
            LanguageModelFailedError: it is no chunk of a chat completion, or tells of an error.
        """
        if data.strip() == DONE:
            self.is_done = True
            return ""
        chunk = _object(data)
        if "error" in chunk:
            raise LanguageModelFailedError(
                f"the model's endpoint broke off with an error: {told_by(chunk['error'])}"
            )
        choices = chunk.get("choices")
        if not isinstance(choices, list):
            raise LanguageModelFailedError("the model's endpoint sent an event that is no part of a reply")
        # Without choices it tells what the reply has cost; of several choices, only one was asked for.
        return self._choice(choices[0]) if choices else ""

    def calls(self) -> tuple[ToolCall, ...]:
        """Return the tool calls, whole, in their order; with ids that tell them apart, and names that may be sent back."""
        parts = list(self._calls.values())
        has_ids = len({part.id for part in parts} - {""}) == len(parts)
        return tuple(
            ToolCall(
                part.id if has_ids else f"call_{number}",
                _NOT_IN_NAMES.sub("_", part.name)[:MAX_NAME_CHARS] or "nameless",
                "".join(part.arguments),
            )
            for number, part in enumerate(parts, 1)
        )

    def _choice(self, choice: object) -> str:
        if not isinstance(choice, Mapping):
            raise LanguageModelFailedError("the model's endpoint sent a choice that is no object")
        reason = choice.get("finish_reason")
        if isinstance(reason, str):
            self.finish_reason = reason
        delta = choice.get("delta")
        if not isinstance(delta, Mapping):
            return ""
        fragments = delta.get("tool_calls")
        for fragment in fragments if isinstance(fragments, list) else ():
            self._fragment(fragment)
        content = delta.get("content")
        if not isinstance(content, str) or not content:
            return ""
        self.has_begun = True
        return content

    def _fragment(self, fragment: object) -> None:
        if not isinstance(fragment, Mapping):
            raise LanguageModelFailedError("the model's endpoint sent a tool call that is no object")
        self.has_begun = True
        told = fragment.get("function")
        function: Mapping[str, Any] = told if isinstance(told, Mapping) else {}
        parts = self._parts(fragment, begins=bool(function.get("name")))
        if isinstance(fragment.get("id"), str):
            parts.id = parts.id or fragment["id"]
        if isinstance(function.get("name"), str):
            parts.name = parts.name or function["name"]
        arguments = function.get("arguments")
        if isinstance(arguments, str):
            parts.arguments.append(arguments)
        elif isinstance(arguments, Mapping):
            parts.arguments.append(json.dumps(arguments))

    def _parts(self, fragment: Mapping[str, Any], *, begins: bool) -> _Parts:
        index = fragment.get("index")
        if not isinstance(index, int):
            # Servers that send calls whole leave it out.
            index = max(self._calls, default=-1) + (1 if begins or not self._calls else 0)
        if index not in self._calls and len(self._calls) >= MAX_CALLS:
            raise LanguageModelFailedError(f"the model asks for more than {MAX_CALLS} tools at once")
        return self._calls.setdefault(index, _Parts())


def _object(data: str) -> dict[str, Any]:
    try:
        chunk = json.loads(data)
    except (ValueError, RecursionError):
        chunk = None
    if not isinstance(chunk, dict):
        # What it holds may be a part of what was to be said, and is not for the log.
        raise LanguageModelFailedError(
            f"the model's endpoint sent an event of {len(data)} characters that is no object"
        )
    return chunk


def told_by(error: object) -> str:
    """Return what an endpoint's error says, as one short line for the log."""
    for name in ("error", "message", "detail"):
        if isinstance(error, Mapping) and name in error:
            error = error[name]
    return repr(error if isinstance(error, str) else json.dumps(error))[:_TOLD_CHARS]
