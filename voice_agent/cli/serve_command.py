"""``voice-agent serve``: run the server."""

import shlex
import shutil
import sys
from functools import partial
from pathlib import Path
from typing import Final

import click

from voice_agent.cli import exit_codes
from voice_agent.cli.running import run_program
from voice_agent.cli.settings_command import config_option
from voice_agent.core.errors import AddressInUseError, OperatorError
from voice_agent.observability.audit import open_audit
from voice_agent.observability.logs import configure_logging
from voice_agent.server.listening import HttpServer
from voice_agent.server.run import serve as serve_until_signal
from voice_agent.settings.changes import Adoption
from voice_agent.settings.origin import SettingsOrigin
from voice_agent.settings.schema import Settings
from voice_agent.speech.models import find_models

EXIT_ADDRESS: Final = 1


@click.command(
    epilog="""Exit codes: 0 after a clean shutdown; 1 the address can't be had; 70 the shutdown hung and was cut
    short, or standard output can't be written; 75 a second signal; 78 a setting or a model file is wrong."""
)
@click.option("--host", help="Address to listen on (server.host).")
@click.option("--port", type=int, help="Port to listen on; 0 takes a free one (server.port).")
@click.option(
    "--grace-seconds", type=float, help="How long calls may go on after SIGTERM (server.grace_seconds)."
)
@click.option(
    "--log-format",
    type=click.Choice(["auto", "json", "console"]),
    help="Form of the log lines (logging.format).",
)
@config_option
def serve(
    host: str | None,
    port: int | None,
    grace_seconds: float | None,
    log_format: str | None,
    config_files: tuple[Path, ...],
) -> None:
    """Serve calls until SIGTERM or Ctrl-C.

    The first signal drains: new calls are refused, open calls may finish within the grace time, last words are
    recognised. A second signal ends the process at once.
    """
    try:
        origin = SettingsOrigin(
            files=config_files or None,
            flags={
                "server.host": host,
                "server.port": port,
                "server.grace_seconds": grace_seconds,
                "logging.format": log_format,
            },
        )
        settings = origin.load().settings
        _set_up_logging(settings)
        open_audit(settings.logging.audit_path)
        run_program(
            partial(
                serve_until_signal,
                settings,
                on_listening=partial(_announce, settings),
                origin=origin,
                apply=_adopt_logging,
            )
        )
    except AddressInUseError as error:
        click.echo(f"voice-agent: {error}", err=True)
        sys.exit(EXIT_ADDRESS)
    except OperatorError as error:
        click.echo(f"voice-agent: {error}", err=True)
        sys.exit(exit_codes.SETTINGS)


def _set_up_logging(settings: Settings) -> None:
    logging = settings.logging
    configure_logging(
        logging.level,
        logging.format,
        transcripts=logging.transcripts,
        max_repeats_per_minute=logging.max_repeats_per_minute,
    )


def _adopt_logging(adoption: Adoption) -> None:
    if any(key.startswith("logging.") for key in adoption.changed):
        _set_up_logging(adoption.settings)


def _announce(settings: Settings, server: HttpServer) -> None:
    """Print where the server is, and a command to try; the line with "listening" is the one to wait for."""
    for host, port in server.addresses:
        shown = f"[{host}]" if ":" in host else host
        secure = "s" if settings.server.tls_certificate_file else ""
        url = f"ws{secure}://{shown}:{port}/v1/ws"
        click.echo(f"voice-agent is listening on http{secure}://{shown}:{port}  (calls: {url})")
        click.echo(f"Try it:  {_program()} call --url {url} {_speech(settings)}")
        click.echo(f"Look:    curl http{secure}://{shown}:{port}/readyz")
    click.echo(f"Stop it: Ctrl-C; calls may then go on for {settings.server.grace_seconds:g} s.")
    sys.stdout.flush()


def _program() -> str:
    """Return how this program was called, so that the printed command can be pasted."""
    called = Path(sys.argv[0])
    if called.name != "voice-agent":
        return f"{shlex.quote(sys.executable)} -m voice_agent"
    return "voice-agent" if shutil.which("voice-agent") else shlex.quote(_nearby(called))


def _speech(settings: Settings) -> str:
    """Return a recording to try: the one that ships beside the models, or a placeholder."""
    for model in find_models(settings):
        shipped = model.path.parent.parent / "two_cities.wav"
        if shipped.exists():
            return shlex.quote(_nearby(shipped))
    return "FILE.wav"


def _nearby(path: Path) -> str:
    """Return the path from the working directory, where it lies below it."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
