"""A small application under the connection guard, as a process of its own.

Prints its port, then serves: WebSocket paths that behave well and badly, and a few HTTP paths; ``/counts`` tells how
many tasks, file descriptors and threads there are, and what the guard has counted.
"""

import argparse
import json
import logging
import os
import resource
import signal
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import attrs
import structlog
import trio
import trio.testing

from voice_agent.server.guard_limits import GuardHooks, GuardLimits, Intervention
from voice_agent.server.listening import open_http_server
from voice_agent.settings.schema import ServerSettings, Settings

BIG = b"x" * 65_536


class Counting(GuardHooks):
    """Counts everything."""

    def __init__(self) -> None:
        self.counts = Counter(opened=0, closed=0, refused=0)

    def connection_opened(self) -> None:
        self.counts["opened"] += 1

    def connection_closed(self) -> None:
        self.counts["closed"] += 1

    def connection_refused(self) -> None:
        self.counts["refused"] += 1

    def intervened(self, kind: Intervention) -> None:
        self.counts[kind.value] += 1


class App:
    """The ASGI application."""

    def __init__(self, hooks: Any) -> None:
        self.hooks = hooks
        self.seen = Counter()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await getattr(self, "ws_" + scope["path"].strip("/"))(scope, receive, send)
        else:
            handler = getattr(self, "http_" + scope["path"].strip("/"), self.http_echo)
            await handler(scope, receive, send)

    # WebSocket

    async def ws_echo(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        subprotocols = scope["subprotocols"]
        await send({"type": "websocket.accept", "subprotocol": subprotocols[0] if subprotocols else None})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "bytes": message["bytes"], "text": message["text"]})
        self.seen[f"disconnect_{message['code']}"] += 1

    async def ws_never_reads(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        await trio.sleep_forever()

    async def ws_raises(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        await receive()
        raise ValueError("a handler's defect")

    async def ws_raises_group(self, scope: Any, receive: Any, send: Any) -> None:
        """As a framework would: an error beside a Cancelled, in one group."""
        await send({"type": "websocket.accept"})
        with trio.CancelScope() as scope_:
            scope_.cancel()
            try:
                await trio.sleep(1)
            except trio.Cancelled as cancelled:
                stray = cancelled
        raise BaseExceptionGroup("both", [stray, ValueError("hidden?")])

    async def ws_stray_cancelled(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        with trio.CancelScope() as scope_:
            scope_.cancel()
            try:
                await trio.sleep(1)
            except trio.Cancelled as cancelled:
                stray = cancelled
        raise stray

    async def ws_exits(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        raise SystemExit(3)

    async def ws_raises_early(self, scope: Any, receive: Any, send: Any) -> None:
        raise ValueError("before the handshake's answer")

    async def ws_returns_early(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})

    async def ws_returns_unaccepted(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()

    async def ws_refuses(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.close"})

    async def ws_responds(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        headers = [(b"content-type", b"text/plain"), (b"content-length", b"4")]
        await send({"type": "websocket.http.response.start", "status": 401, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": b"who?"})

    async def ws_floods(self, scope: Any, receive: Any, send: Any) -> None:
        """Send for ever, and never look at what is received."""
        await send({"type": "websocket.accept"})
        while True:
            await send({"type": "websocket.send", "bytes": BIG})

    async def ws_closes(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        code = int(scope["query_string"] or 1000)
        await send({"type": "websocket.close", "code": code, "reason": "as asked"})
        await send({"type": "websocket.send", "text": "too late"})
        self.seen[f"after_close_{(await self._last(receive))['code']}"] += 1

    async def ws_slow_to_leave(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        await self._last(receive)
        await trio.sleep_forever()

    async def ws_wrong_subprotocol(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept", "subprotocol": "never-offered"})

    async def ws_header_injection(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept", "headers": [(b"x-bad", b"a\r\nset-cookie: b")]})

    async def ws_extension_header(self, scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"sec-websocket-extensions", b"permessage-deflate")]
        await send({"type": "websocket.accept", "headers": headers})

    async def ws_undecided(self, scope: Any, receive: Any, send: Any) -> None:
        self.seen["undecided"] += 1
        await self._last(receive)

    async def ws_responds_by_halves(self, scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-length", b"9")]
        await send({"type": "websocket.http.response.start", "status": 401, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": b"half", "more_body": True})

    async def ws_sends_nothing(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send"})

    async def ws_accepts_twice(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.accept"})

    async def ws_headers(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept", "headers": [(b"x-good", b"yes")]})

    async def _last(self, receive: Any) -> Any:
        while (message := await receive())["type"] != "websocket.disconnect":
            pass
        return message

    # HTTP

    async def http_echo(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.seen["http_disconnect"] += 1
                return
            body += message["body"]
            if not message["more_body"]:
                break
        await _answer(send, json.dumps({"path": scope["path"], "bytes": len(body)}).encode())

    async def http_counts(self, scope: Any, receive: Any, send: Any) -> None:
        with trio.move_on_after(0.2):  # tasks that are about to end have ended
            await trio.testing.wait_all_tasks_blocked(0.005)
        tasks = trio.lowlevel.current_statistics().tasks_living
        counts = {
            "tasks": tasks,
            "fds": len(list(Path("/proc/self/fd").iterdir())),
            "threads": threading.active_count(),
            "cpu": sum(os.times()[:2]),
            "rss_kib": int(Path("/proc/self/statm").read_text().split()[1]) * 4,
            "guard": self.hooks.counts,
            "seen": self.seen,
        }
        await _answer(send, json.dumps(counts).encode())

    async def http_raises(self, scope: Any, receive: Any, send: Any) -> None:
        raise ValueError("a handler's defect")

    async def http_raises_midway(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"10")]})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise ValueError("a handler's defect")

    async def http_bad_header(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x", b"a\r\nb: c")]})

    async def http_hangs(self, scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.seen["http_hangs_ended"] += 1

    async def http_slow(self, scope: Any, receive: Any, send: Any) -> None:
        await trio.sleep(0.3)
        await _answer(send, b"slow")

    async def http_endless(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": BIG, "more_body": True})

    async def http_big(self, scope: Any, receive: Any, send: Any) -> None:
        await _answer(send, BIG * 32)


async def _answer(send: Any, body: Any) -> None:
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def main(overrides: Any, port: Any) -> None:
    """Serve until SIGTERM."""
    settings = Settings(server=ServerSettings(port=port))
    limits = attrs.evolve(GuardLimits.from_settings(settings), **overrides)
    hooks = Counting()
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async with open_http_server(App(hooks), settings, limits=limits, hooks=hooks) as server:
            print(server.addresses[0][1], flush=True)
            async for _ in signals:
                server.stop_accepting()
                break


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--limits", type=json.loads, default={})
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--max-files", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.max_files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (arguments.max_files, arguments.max_files))
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    trio.run(main, arguments.limits, arguments.port)
