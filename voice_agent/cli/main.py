"""The ``voice-agent`` command: finds the command that was asked for, and loads what that one needs."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import version
from typing import Any, Final

import click

from voice_agent.cli import exit_codes
from voice_agent.cli.running import is_output_error

_COMMANDS: Final = {
    "serve": ("serve_command", "serve"),
    "call": ("call_command", "call"),
    "transcribe": ("transcribe_command", "transcribe"),
    "say": ("say_command", "say"),
    "talk": ("talk_command", "talk"),
    "keys": ("keys_command", "keys"),
    "sessions": ("sessions_command", "sessions_group"),
    "nodes": ("nodes_command", "nodes"),
    "journals": ("journals_command", "journals_group"),
    "models": ("models_command", "models"),
    "settings": ("settings_command", "settings_group"),
}
"""Where each command stands: the module beside this one, and the name in it. In the order of the help."""


class _Commands(click.Group):
    """Loads a command when it is asked for, so that ``settings check`` does not wait for a resampler."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the commands' names."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Return the command, or ``None`` for an unknown name."""
        if cmd_name not in _COMMANDS:
            return None
        module, name = _COMMANDS[cmd_name]
        with _quiet_interrupts():
            command = getattr(import_module(f"voice_agent.cli.{module}"), name)
        assert isinstance(command, click.Command)  # noqa: S101 - getattr has no type
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; Ctrl-C and an output that can't be written end it without a trace."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            ctx.exit(exit_codes.INTERRUPTED)
        except OSError as error:
            if isinstance(error, BrokenPipeError) or not is_output_error(error):
                raise  # click itself ends quietly on a broken pipe
            click.echo(f"voice-agent: the output can't be written: {error.strerror}", err=True)
            _discard_output()
            ctx.exit(exit_codes.FAILED)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("voice-agent"), prog_name="voice-agent")
def main() -> None:
    """A real-time voice agent server: callers speak and read their words at once.

    Start with "voice-agent serve" in one terminal and "voice-agent call FILE.wav" in another; or transcribe a file
    without a server: "voice-agent transcribe FILE.wav".
    """


@contextmanager
def _quiet_interrupts() -> Iterator[None]:
    """While modules load, let Ctrl-C end the process by the signal itself.

    A KeyboardInterrupt raised inside an import is a page of trace, and native modules turn it into an ImportError.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield  # ignored by who started us, or somebody else's
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _discard_output() -> None:
    """Let what is still buffered go nowhere, or the interpreter fails on it once more at its end."""
    if sys.__stdout__ is not None and sys.stdout is sys.__stdout__:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.__stdout__.fileno())
        os.close(nowhere)


if __name__ == "__main__":
    main()
