"""Run a command's Trio program, and let what it raises out as one plain error instead of a group."""

import errno
from collections.abc import Awaitable, Callable, Iterator
from typing import Final, TypeVar

import click
import trio

from voice_agent.cli import exit_codes
from voice_agent.core.errors import VoiceAgentError

ResultT = TypeVar("ResultT")

_OUTPUT_ERRORS: Final = {errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


def is_output_error(error: BaseException) -> bool:
    """Return whether this is about writing: the reader went away, the disk is full, the terminal is gone."""
    return isinstance(error, OSError) and error.errno in _OUTPUT_ERRORS


def run_program(program: Callable[[], Awaitable[ResultT]]) -> ResultT:
    """Run ``program`` and return its result.

    Nurseries wrap what is raised in them; a command wants the error itself. A group of nothing but our own errors
    comes out as its first; an output that can't be written (its reader went away, as in ``| head``; the disk is
    full) comes out bare, for click and the command group to end without a trace. Anything else comes out as it is, for it is a defect.

    Raises:
        VoiceAgentError: the program failed.
        click.exceptions.Exit: Ctrl-C came while the program was not listening for it.
    """
    try:
        return trio.run(program)
    except KeyboardInterrupt:
        raise click.exceptions.Exit(exit_codes.INTERRUPTED) from None
    except BaseExceptionGroup as group:
        errors = list(_leaves(group))
        for error in errors:
            if isinstance(error, KeyboardInterrupt):
                raise click.exceptions.Exit(exit_codes.INTERRUPTED) from None
            if is_output_error(error):
                raise error from None
        if all(isinstance(error, VoiceAgentError) for error in errors):
            raise errors[0] from group
        raise


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
