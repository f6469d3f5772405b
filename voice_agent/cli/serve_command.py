"""``voice-agent serve``: run the server."""

import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from voice_agent.cli import exit_codes
from voice_agent.cli.running import run_program
from voice_agent.cli.settings_command import config_option
from voice_agent.core.errors import AddressInUseError, OperatorError
from voice_agent.core.worker import WorkerPlace
from voice_agent.observability.audit import open_audit
from voice_agent.observability.logs import configure_logging
from voice_agent.settings.changes import Adoption
from voice_agent.settings.load import LoadedSettings
from voice_agent.settings.origin import SettingsOrigin
from voice_agent.settings.schema import Settings
from voice_agent.supervisor.template import Template, ended_as_a_copy

if TYPE_CHECKING:
    from voice_agent.server.listening import HttpServer
    from voice_agent.speech.models import SpeechModels

Addresses = Sequence[tuple[str, int]]

EXIT_ADDRESS: Final = 1


@click.command(
    epilog="""Exit codes: 0 after a clean shutdown; 1 the address can't be had; 70 the shutdown hung and was cut
    short, workers could not be started, or standard output can't be written; 75 a second signal; 78 a setting or a
    model file is wrong. With workers it is the worst of theirs."""
)
@click.option("--host", help="Address to listen on (server.host).")
@click.option("--port", type=int, help="Port to listen on; 0 takes a free one (server.port).")
@click.option(
    "--workers", type=int, help="Processes that serve the port together, to use all cores (server.workers)."
)
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
    workers: int | None,
    grace_seconds: float | None,
    log_format: str | None,
    config_files: tuple[Path, ...],
) -> None:
    """Serve calls until SIGTERM or Ctrl-C.

    The first signal drains: new calls are refused, open calls may finish within the grace time, last words are
    recognised. A second signal ends the process at once. Several workers do it together, under one process that
    starts them, and starts a crashed one again.
    """
    with ExitStack() as stack:
        _serve(
            stack,
            flags={
                "server.host": host,
                "server.port": port,
                "server.workers": workers,
                "server.grace_seconds": grace_seconds,
                "logging.format": log_format,
            },
            files=config_files or None,
        )


def _serve(stack: ExitStack, flags: Mapping[str, object], files: tuple[Path, ...] | None) -> None:
    template = Template.from_environ()
    models: SpeechModels | None = None
    try:
        origin = SettingsOrigin(files=files, flags=flags)
        if template is not None:
            models = _load_once(origin)
            template.become_worker()
            stack.enter_context(ended_as_a_copy())
        place = WorkerPlace.from_environ()
        loaded = origin.load()
        settings = loaded.settings
        _set_up_logging(settings, place)
        if place is None and settings.server.workers > 1:
            sys.exit(_supervise(loaded))
        open_audit(settings.logging.audit_path)
        _serve_alone(settings, origin, place, models)
    except AddressInUseError as error:
        click.echo(f"voice-agent: {error}", err=True)
        sys.exit(EXIT_ADDRESS)
    except OperatorError as error:
        click.echo(f"voice-agent: {error}", err=True)
        sys.exit(exit_codes.SETTINGS)


def _load_once(origin: SettingsOrigin) -> "SpeechModels":
    """Load everything that workers need, in the process that they are copies of."""
    from voice_agent.server import run  # noqa: F401, PLC0415 (for its modules)
    from voice_agent.speech.models import load_models  # noqa: PLC0415 (a supervisor loads no models)

    settings = origin.load().settings
    _set_up_logging(settings, None)
    return load_models(settings)


def _serve_alone(
    settings: Settings, origin: SettingsOrigin, place: WorkerPlace | None, models: "SpeechModels | None"
) -> None:
    from voice_agent.server.run import serve as serve_until_signal  # noqa: PLC0415 (a supervisor needs none of it)

    def announce(server: "HttpServer") -> None:
        if place is None:  # of several workers the supervisor says it, when all of them serve
            _announce(settings, _speech(settings), server.addresses)

    run_program(
        partial(
            serve_until_signal,
            settings,
            on_listening=announce,
            origin=origin,
            apply=partial(_adopt_logging, place=place),
            place=place,
            models=models,
        )
    )


def _supervise(loaded: LoadedSettings) -> int:
    from voice_agent.supervisor.run import supervise  # noqa: PLC0415 (a server alone needs none of it)

    called_by_name = Path(sys.argv[0]).name == "voice-agent"
    # As "python -m" was called, it finds what is in the working directory; the installed program does not.
    interpreter = [sys.executable, "-P"] if called_by_name else [sys.executable]
    return run_program(
        partial(
            supervise,
            loaded,
            command=[*interpreter, "-m", "voice_agent", *_arguments()],
            on_listening=partial(_announce, loaded.settings, "FILE.wav"),
        )
    )


def _arguments() -> list[str]:
    """Return this command and its options, as they were given."""
    context = click.get_current_context()
    given = [context.info_name or "serve"]
    for option in context.command.params:
        value = context.params[option.name or ""]
        for one in value if isinstance(value, tuple) else [value]:
            if one is not None:
                given.extend((option.opts[-1], str(one)))
    return given


def _set_up_logging(settings: Settings, place: WorkerPlace | None) -> None:
    logging = settings.logging
    configure_logging(
        logging.level,
        logging.format,
        transcripts=logging.transcripts,
        max_repeats_per_minute=logging.max_repeats_per_minute,
        worker=None if place is None else place.number,
    )


def _adopt_logging(adoption: Adoption, *, place: WorkerPlace | None = None) -> None:
    if any(key.startswith("logging.") for key in adoption.changed):
        _set_up_logging(adoption.settings, place)


def _announce(settings: Settings, speech: str, addresses: Addresses) -> None:
    """Print where the server is, and a command to try; the line with "listening" is the one to wait for."""
    for host, port in addresses:
        shown = f"[{host}]" if ":" in host else host
        secure = "s" if settings.server.tls_certificate_file else ""
        url = f"ws{secure}://{shown}:{port}/v1/ws"
        click.echo(f"voice-agent is listening on http{secure}://{shown}:{port}  (calls: {url})")
        click.echo(f"Try it:  {_program()} call --url {url} {speech}")
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
    from voice_agent.speech.models import find_models  # noqa: PLC0415 (a supervisor loads no models)

    for model in find_models(settings):
        shipped = model.path.parent.parent / "two_cities.wav"
        if shipped.exists():
            return shlex.quote(_nearby(shipped))
    return "FILE.wav"


def _nearby(path: Path) -> str:
    """Return the path from the working directory, where it lies below it."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
