"""``voice-agent transcribe``: files to text, without a server."""

import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Final, get_args

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from voice_agent.audio.files import describe_audio
from voice_agent.cli import exit_codes
from voice_agent.cli.call_display import printable
from voice_agent.cli.call_options import RawFormat
from voice_agent.cli.running import run_program
from voice_agent.cli.settings_command import config_option
from voice_agent.cli.transcribe_output import (
    FileTranscript,
    Format,
    OutputPlanError,
    choose_format,
    plan_outputs,
    render,
    write_atomically,
)
from voice_agent.cli.transcribe_run import (
    OnProgress,
    OpenSession,
    TranscribeJob,
    TranscriptionFailedError,
    transcribe_files,
)
from voice_agent.core.commands import CallOptions
from voice_agent.core.errors import OperatorError, UnreadableFileError, VoiceAgentError
from voice_agent.core.formats import AudioFormat
from voice_agent.embedding import open_session
from voice_agent.observability.logs import configure_logging
from voice_agent.server.assembly import open_services
from voice_agent.settings.load import load_settings
from voice_agent.settings.schema import Settings

EPILOG: Final = """\b
Exit codes:
  0    every file was transcribed
  1    the reader of the output went away
  2    the command line is wrong
  66   a file can't be read
  70   a transcription began and failed, or its output can't be written
  78   a setting or a model file is wrong
  130  Ctrl-C; the file at hand is not written

An output file is either whole or not there.
"""


@click.command(epilog=EPILOG, short_help="Write down what is said in FILEs, without a server.")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--format",
    "asked_format",
    type=click.Choice(get_args(Format)),
    help="Form of the transcript; without it, what the suffix of --output says, else text.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="File to write, or an existing folder, in which each transcript is named after its FILE.",
)
@click.option("--raw", "raw_format", type=RawFormat(), help="The FILEs have no header, and this format.")
@config_option
@click.pass_context
def transcribe(
    ctx: click.Context,
    files: tuple[Path, ...],
    asked_format: Format | None,
    output: Path | None,
    raw_format: AudioFormat | None,
    config_files: tuple[Path, ...],
) -> None:
    """Transcribe FILEs (WAV, FLAC, OGG or raw) without a server."""
    form = choose_format(asked_format, output)
    try:
        targets = plan_outputs(files, output, form)
    except OutputPlanError as error:
        raise click.UsageError(str(error)) from error
    try:
        jobs = [
            TranscribeJob(
                path=path,
                duration_seconds=describe_audio(path, raw_format=raw_format).duration_seconds,
                target=target,
                raw_format=raw_format,
            )
            for path, target in zip(files, targets, strict=True)
        ]
        settings = load_settings(files=config_files or None).settings
        # The words and the progress are the output here; of the log only what went wrong is.
        configure_logging("warning", settings.logging.format)
        has_heading = form == "text" and len(jobs) > 1
        is_done = run_program(partial(_transcribe_all, settings, jobs, form, has_heading=has_heading))
    except VoiceAgentError as error:
        message = "\n".join(map(printable, error.message.splitlines()))
        click.echo(f"voice-agent transcribe: {message}", err=True)
        ctx.exit(_exit_code(error))
    ctx.exit(exit_codes.OK if is_done else exit_codes.INTERRUPTED)


async def _transcribe_all(
    settings: Settings, jobs: list[TranscribeJob], form: Format, *, has_heading: bool
) -> bool:
    async with open_hearing(settings) as open_one:
        return await transcribe_files(
            jobs,
            open_one,
            show_progress=show_progress,
            write=partial(_write, form=form, has_heading=has_heading),
        )


@asynccontextmanager
async def open_hearing(settings: Settings) -> AsyncIterator[OpenSession]:
    """Load the models once; what is yielded opens a session that tells finals only."""
    async with open_services(settings) as services:
        yield partial(open_session, services, options=CallOptions(partials=False))


@contextmanager
def show_progress(job: TranscribeJob) -> Iterator[OnProgress]:
    """Show a bar on standard error, by the place in the audio, if somebody is looking."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _audio_seconds: None
        return
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        # Without rich's refresh thread: every redraw follows a block of audio.
        auto_refresh=False,
    ) as progress:
        task = progress.add_task(printable(job.path.name), total=job.duration_seconds)
        yield lambda audio_seconds: progress.update(task, completed=audio_seconds, refresh=True)


def _write(job: TranscribeJob, transcript: FileTranscript, *, form: Format, has_heading: bool) -> None:
    text = render(transcript, form)
    if job.target is None:
        heading = f"==> {printable(job.path.name)} <==\n" if has_heading else ""
        sys.stdout.write(heading + text)
        sys.stdout.flush()
        return
    try:
        write_atomically(job.target, text)
    except OSError as error:
        raise TranscriptionFailedError(f"{job.target} can't be written: {error.strerror or error}") from error


def _exit_code(error: VoiceAgentError) -> int:
    if isinstance(error, UnreadableFileError):
        return exit_codes.UNREADABLE_INPUT
    return exit_codes.SETTINGS if isinstance(error, OperatorError) else exit_codes.FAILED
