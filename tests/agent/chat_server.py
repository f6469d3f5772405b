"""A server process that speaks the chat API, well or badly, by what the caller's last words are.

It tells on its output, a line of JSON each, its port, what it was asked, and who left before their answer was whole.
"""

import json
import sys
from collections import Counter
from functools import partial
from itertools import count
from typing import Any

import trio

HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
)
WORDS = [
    "Hello",
    " there",
    ".",
    " It",
    " is",
    " 42",
    ".5",
    " grams",
    ",",
    " I",
    " think",
    ".",
    " Good",
    "bye",
]
TIMES: Counter[str] = Counter()
NUMBERS = count(1)


def tell(**what: object) -> None:
    print(json.dumps(what), flush=True)


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def event(delta: dict[str, Any], reason: str | None = None) -> bytes:
    body = {
        "object": "chat.completion.chunk",
        "choices": [{"index": 0, "delta": delta, "finish_reason": reason}],
    }
    return f"data: {json.dumps(body)}\n\n".encode()


def text_events(words: list[str], reason: str = "stop") -> list[bytes]:
    return [
        event({"role": "assistant", "content": ""}),
        *(event({"content": word}) for word in words),
        event({}, reason),
        b'data: {"choices": [], "usage": {"total_tokens": 9}}\n\n',
        b"data: [DONE]\n\n",
    ]


def call_events(*calls: tuple[str, str]) -> list[bytes]:
    """Tool calls in fragments: the name first, then a few characters of arguments at a time."""
    events = [event({"role": "assistant", "content": None})]
    for index, (name, arguments) in enumerate(calls):
        begins = {"index": index, "id": f"call_{next(NUMBERS)}", "type": "function"}
        events.append(event({"tool_calls": [{**begins, "function": {"name": name, "arguments": ""}}]}))
        events += [
            event({"tool_calls": [{"index": index, "function": {"arguments": arguments[at : at + 3]}}]})
            for at in range(0, len(arguments), 3)
        ]
    return [*events, event({}, "tool_calls"), b"data: [DONE]\n\n"]


async def send(stream: trio.SocketStream, events: list[bytes], *, is_whole: bool = True) -> None:
    await stream.send_all(HEAD)
    for data in events:
        await stream.send_all(chunk(data))
    if is_whole:
        await stream.send_all(b"0\r\n\r\n")


async def send_status(stream: trio.SocketStream, status: str, body: bytes, *headers: str) -> None:
    head = "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""])
    await stream.send_all(head.encode() + body)


async def until_gone(stream: trio.SocketStream, said: str) -> None:
    """Send nothing more, and tell when the other side has left."""
    try:
        while await stream.receive_some(1024):
            pass
    except trio.BrokenResourceError:
        pass
    tell(left=said)


async def answer(  # noqa: C901, PLR0912 - a case for each thing that can go wrong
    stream: trio.SocketStream, request: dict[str, Any], said: str
) -> bool:
    """Answer one request; returns whether the connection may be used again."""
    TIMES[said] += 1
    match said.split():
        case ["stall", *_]:
            if said.endswith("after a sentence"):
                await send(stream, [event({"content": w}) for w in WORDS[:4]], is_whole=False)
            await until_gone(stream, said)
            return False
        case ["break", *_]:
            words = WORDS[:5] if "sentence" in said else WORDS[:1]
            if TIMES[said] == 1 or "always" in said:
                await send(stream, [event({"content": w}) for w in words], is_whole=False)
                return False
            await send(stream, text_events(["Again."]))
        case ["garbage", *_]:
            await send(stream, [b"data: {nonsense\n\n"])
        case ["bytes", *_]:
            await stream.send_all(b"\x00\xff\x00 this is no HTTP\r\n\r\n")
            return False
        case ["page", *_]:
            await send_status(stream, "200 OK", b"<html>", "Content-Type: text/html")
        case ["endless", *_]:
            try:
                await stream.send_all(HEAD)
                while True:
                    await stream.send_all(chunk(b": " + b"x" * 65_000 + b"\n\n"))
            except trio.BrokenResourceError:
                tell(left=said)
            return False
        case ["busy", *_] if TIMES[said] == 1 or "always" in said:
            seconds = said.split()[1]
            await send_status(stream, "429 Too Many Requests", b"slow down", f"Retry-After: {seconds}")
        case ["fail", *_] if TIMES[said] == 1 or "always" in said:
            await send_status(stream, "500 Internal Server Error", b"oops")
        case ["refuse", *_]:
            await send_status(stream, "401 Unauthorized", b'{"error": {"message": "bad key: secret-key"}}')
        case ["tool", name, *arguments] if request["messages"][-1]["role"] != "tool":
            await send(stream, call_events((name, " ".join(arguments))))
        case ["tool", *_]:
            await send(stream, text_events(["It", " says ", request["messages"][-1]["content"], "."]))
        case ["bye"]:
            events = [event({"content": "Good"}), event({"content": "bye, friend."})]
            await send(stream, [*events, *call_events(("end_call", "{}"))])
        case ["leave"]:
            await send(stream, call_events(("end_call", "")))
        case _:
            await send(stream, text_events(WORDS))
    return True


async def serve(stream: trio.SocketStream) -> None:
    """Serve one connection, until it is closed in whatever way."""
    try:
        await serve_requests(stream)
    except trio.BrokenResourceError:
        return


async def serve_requests(stream: trio.SocketStream) -> None:
    async with stream:
        waiting = b""
        goes_on = True
        while goes_on:
            while b"\r\n\r\n" not in waiting:
                data = await stream.receive_some()
                if not data:
                    return
                waiting += data
            head, _, waiting = waiting.partition(b"\r\n\r\n")
            fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
            size = int({key.lower(): value for key, value in fields.items()}["content-length"])
            while len(waiting) < size:
                waiting += await stream.receive_some()
            request, waiting = json.loads(waiting[:size]), waiting[size:]
            tell(path=head.split()[1].decode(), key=fields.get("Authorization", ""), request=request)
            said = next(
                (m["content"] for m in reversed(request["messages"]) if m["role"] == "user"), ""
            ).split("\n")[-1]
            goes_on = await answer(stream, request, said)


async def main() -> None:
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        tell(port=listeners[0].socket.getsockname()[1])
        await trio.sleep(float(sys.argv[1]))
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
