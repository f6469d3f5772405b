"""Several processes accept from one socket: who has least to do goes first, and nobody waits for one that hangs."""

import errno
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from voice_agent.core.errors import AddressInUseError
from voice_agent.server.burdens import NOBODY, Burdens
from voice_agent.server.sockets import SharedListener, listen_inside, share


@contextmanager
def listening() -> Iterator[socket.socket]:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        bound.listen(16)
        yield bound


def shares(stack: ExitStack, bound: socket.socket, *patience: float) -> list[SharedListener]:
    """As in several processes: a descriptor each."""
    made = [share([bound.dup().detach()], lambda seconds=seconds: seconds)[0] for seconds in patience]
    for one in made:
        stack.callback(one.socket.close)
    return made


async def accept_into(listener: SharedListener, number: int, taken: list[int]) -> None:
    while True:
        stream = await listener.accept()
        taken.append(number)
        await trio.aclose_forcefully(stream)


async def test_the_one_with_most_patience_comes_last(autojump_clock: MockClock) -> None:
    """A connection that nobody before it takes, is taken by it: one that hangs keeps nobody waiting."""
    taken: list[int] = []
    with listening() as bound, ExitStack() as stack:
        quick, slow = shares(stack, bound, 0.0, 0.003)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept_into, slow, 2, taken)
            with trio.CancelScope() as first:
                async with trio.open_nursery() as inner:
                    inner.start_soon(accept_into, quick, 1, taken)
                    for _ in range(5):
                        with socket.create_connection(bound.getsockname()):
                            await wait_all_tasks_blocked(0.001)
                            await trio.sleep(0.1)
                    assert taken == [1] * 5
                    first.cancel()
            with socket.create_connection(bound.getsockname()):
                await trio.sleep(0.1)
            assert taken == [1] * 5 + [2]
            nursery.cancel_scope.cancel()


async def test_whose_turn_it_is_may_change_while_it_waits(autojump_clock: MockClock) -> None:
    """One that has become the least burdened takes the next connection at once, however long it meant to wait."""
    taken: list[int] = []
    patience = [10.0]
    with listening() as bound, ExitStack() as stack:
        [listener] = shares(stack, bound, 0.0)
        listener._patience_seconds = lambda: patience[0]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept_into, listener, 1, taken)
            with socket.create_connection(bound.getsockname()):
                await trio.sleep(1)
                assert taken == []
                patience[0] = 0.0
                await trio.sleep(0.1)
                assert taken == [1]
            nursery.cancel_scope.cancel()


async def test_who_closes_its_share_leaves_the_others_theirs(autojump_clock: MockClock) -> None:
    """What waits in the queue is still there for them."""
    taken: list[int] = []
    with listening() as bound, ExitStack() as stack:
        one, other = shares(stack, bound, 0.0, 0.0)
        async with trio.open_nursery() as nursery:

            async def ends() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await one.accept()

            nursery.start_soon(ends)
            await wait_all_tasks_blocked()
            await one.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await one.accept()
        with socket.create_connection(bound.getsockname()):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(accept_into, other, 2, taken)
                await trio.sleep(0.1)
                nursery.cancel_scope.cancel()
        assert taken == [2]


async def test_a_connection_that_is_gone_is_passed_over(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """accept(2) may report what was wrong with a connection; what is wrong with us comes out."""
    with listening() as bound, ExitStack() as stack:
        [listener] = shares(stack, bound, 0.0)

        class Failing:
            def __init__(self, inner: socket.socket, *numbers: int) -> None:
                self.inner, self.numbers = inner, list(numbers)

            def fileno(self) -> int:
                return self.inner.fileno()

            def accept(self) -> tuple[socket.socket, object]:
                if self.numbers:
                    raise OSError(self.numbers.pop(0), "injected")
                return self.inner.accept()

            def close(self) -> None:
                self.inner.close()

        listener.socket = Failing(listener.socket, errno.ECONNABORTED, errno.EMFILE)
        with socket.create_connection(bound.getsockname()):
            with pytest.raises(OSError, match="injected") as raised:
                await listener.accept()
            assert raised.value.errno == errno.EMFILE
            await trio.aclose_forcefully(await listener.accept())


def test_burdens_are_seen_by_all(tmp_path: Path) -> None:
    """One writes, the others read; who is not there counts as one that has more to do than anybody."""
    with (
        Burdens(tmp_path, 3, create=True) as supervisor,
        Burdens(tmp_path, 3) as first,
        Burdens(tmp_path, 3) as second,
    ):
        assert [first.before(1), first.before(2)] == [0, 0]
        first.put(1, 10.0)
        second.put(2, 0.0)
        assert (first.before(1), second.before(2), second.before(3)) == (1, 0, 2)
        first.put(1, 0.0)
        assert (first.before(1), second.before(2)) == (0, 0)
        supervisor.put(2, NOBODY)
        assert second.before(2) == 1
        assert struct.unpack("=3d", (tmp_path / "burdens").read_bytes()) == (0.0, NOBODY, NOBODY)


async def test_the_socket_for_siblings_takes_the_place_of_a_dead_worker_s(tmp_path: Path) -> None:
    """A worker that was killed leaves its file; a folder that can't be written is an operator's error."""
    path = tmp_path / "worker-1.sock"
    for _ in range(2):
        [listener] = listen_inside(path)
        async with await trio.open_unix_socket(path):
            pass
        listener.socket.close()
    with pytest.raises(AddressInUseError, match=r"worker-1\.sock"):
        listen_inside(tmp_path / "nowhere" / "worker-1.sock")
