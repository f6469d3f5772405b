"""What comes out of a command's Trio program."""

import errno

import click
import pytest
import trio

from voice_agent.cli.running import run_program
from voice_agent.core.errors import InternalError, SettingsError


async def raise_in_nurseries(*errors: BaseException) -> None:
    """Raise all of them at once, each two nurseries deep."""

    async def fail(error: BaseException) -> None:
        await trio.lowlevel.cancel_shielded_checkpoint()
        async with trio.open_nursery():
            raise error

    async with trio.open_nursery() as nursery:
        for error in errors:
            nursery.start_soon(fail, error)


def test_a_result_is_returned() -> None:
    """The usual case."""

    async def program() -> int:
        await trio.lowlevel.checkpoint()
        return 5

    assert run_program(program) == 5


def test_our_errors_come_out_of_their_groups() -> None:
    """A command has one message to print."""
    with pytest.raises(SettingsError, match="wrong"):
        run_program(lambda: raise_in_nurseries(SettingsError("wrong")))


def test_a_broken_pipe_comes_out_bare_whatever_else_failed() -> None:
    """A command ends quietly on EPIPE when click sees it, and only then."""
    with pytest.raises(BrokenPipeError):
        run_program(lambda: raise_in_nurseries(InternalError("x"), BrokenPipeError(errno.EPIPE, "gone")))


def test_a_full_disk_comes_out_bare_and_another_error_of_the_system_does_not() -> None:
    """The first is about the output and needs one line; the second is a defect until somebody translates it."""
    with pytest.raises(OSError, match="full") as caught:
        run_program(lambda: raise_in_nurseries(OSError(errno.ENOSPC, "full")))
    assert caught.value.errno == errno.ENOSPC
    with pytest.raises(ExceptionGroup):
        run_program(lambda: raise_in_nurseries(OSError(errno.EBADF, "bad")))


def test_a_defect_comes_out_as_it_is() -> None:
    """A trace is worth more than a tidy message."""
    with pytest.raises(ExceptionGroup) as caught:
        run_program(lambda: raise_in_nurseries(ZeroDivisionError(), SettingsError("wrong")))
    assert caught.value.subgroup(ZeroDivisionError) is not None


def test_ctrl_c_outside_a_receiver_exits_with_130() -> None:
    """While models load, for instance."""

    async def program() -> None:
        await trio.lowlevel.checkpoint()
        raise KeyboardInterrupt

    with pytest.raises(click.exceptions.Exit) as caught:
        run_program(program)
    assert caught.value.exit_code == 130


def test_ctrl_c_inside_a_nursery_exits_with_130() -> None:
    """Trio may deliver it in any task."""
    with pytest.raises(click.exceptions.Exit) as caught:
        run_program(lambda: raise_in_nurseries(KeyboardInterrupt()))
    assert caught.value.exit_code == 130
