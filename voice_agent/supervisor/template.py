"""The template: a process that has loaded everything once, and of which each worker is a copy (fork(2)).

What it has read, modules and models, lies in memory once for all workers, until one of them writes to it. The template
runs no event loop and starts no thread, so a copy is whole; onnxruntime has none either, where each model runs on the
thread that calls it (``speech/onnx.py``). It is told what to do over a socket, a JSON object in a packet:

========================  =====================================================
the supervisor says       and hears
========================  =====================================================
nothing                   ``{}`` when everything is loaded
``{"environ": {...}}``    ``{"pid": n}``: a copy runs, with these variables too
``{"close": [fd, ...]}``  nothing; the template holds these no longer
========================  =====================================================

``{"ended": n, "code": c}`` comes when a copy has ended. When the socket closes, the template ends.
"""

import gc
import json
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final, Self

from voice_agent.core.units import KIB

CHANNEL_VARIABLE: Final = "VOICE_AGENT_TEMPLATE_FD"
MAX_MESSAGE_BYTES: Final = 64 * KIB
EXIT_CRASHED: Final = 1
"""What the interpreter ends with behind an exception that nobody caught."""
IGNORED_SIGNALS: Final = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
"""A service manager that signals every process of a service must not end the one that knows how its copies ended."""


@contextmanager
def ended_as_a_copy() -> Iterator[None]:
    """End the process behind the block, by what the block ends with.

    A copy has none of the template's threads; libraries that wait for theirs at the end of a process would abort it.
    """
    code: object = EXIT_CRASHED
    try:
        yield
        code = 0
    except SystemExit as end:
        code = end.code or 0
    except BaseException:  # noqa: BLE001 (nothing is behind it but the end of the process)
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):
                stream.flush()
        os._exit(code if isinstance(code, int) else EXIT_CRASHED)


class Template:
    """This process, as the template of workers."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._children: dict[int, int] = {}
        """The ids of copies, by the descriptor that becomes readable at their end (pidfd_open(2))."""

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] = os.environ) -> Self | None:
        """Return the template that this process is to be, or None."""
        number = environ.get(CHANNEL_VARIABLE)
        return None if number is None else cls(socket.socket(fileno=int(number)))

    def become_worker(self) -> None:
        """Make copies until the supervisor is gone; returns in each copy, with its variables in the environment."""
        self._channel.set_inheritable(False)
        for number in IGNORED_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        gc.collect()
        # What is there now is never looked at by the collector again, which would write to every page of it.
        gc.freeze()
        self._tell({})
        while not self._serve():
            pass

    def _serve(self) -> bool:
        """Wait for what comes next; return True in a new copy."""
        poll = select.poll()
        for descriptor in (self._channel.fileno(), *self._children):
            poll.register(descriptor, select.POLLIN)
        for descriptor, _ in poll.poll():
            if descriptor in self._children:
                self._bury(descriptor)
                continue
            message = self._channel.recv(MAX_MESSAGE_BYTES)
            if not message:
                os._exit(0)
            order = json.loads(message)
            for number in order.get("close", ()):
                with suppress(OSError):
                    os.close(number)
            if "environ" in order and self._fork(order["environ"]):
                return True
        return False

    def _fork(self, environ: Mapping[str, str]) -> bool:
        # A signal that comes before the copy is one of its own waits until then.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, IGNORED_SIGNALS)
        try:
            pid = os.fork()
            if not pid:
                self._come_to_life(environ)
                return True
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self._children[os.pidfd_open(pid)] = pid
        self._tell({"pid": pid})
        return False

    def _come_to_life(self, environ: Mapping[str, str]) -> None:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number in IGNORED_SIGNALS - {signal.SIGINT}:
            signal.signal(number, signal.SIG_DFL)
        for descriptor in self._children:
            os.close(descriptor)
        self._channel.close()
        del os.environ[CHANNEL_VARIABLE]
        os.environ.update(environ)

    def _bury(self, descriptor: int) -> None:
        pid = self._children.pop(descriptor)
        os.close(descriptor)
        _, status = os.waitpid(pid, 0)
        self._tell({"ended": pid, "code": os.waitstatus_to_exitcode(status)})

    def _tell(self, message: Mapping[str, Any]) -> None:
        try:
            self._channel.send(json.dumps(message).encode())
        except OSError:
            os._exit(0)  # nobody is there; workers end by their own lifeline
