"""``voice-agent call``: stream files or a microphone to a server and show what it hears."""

import sys
from functools import partial
from pathlib import Path
from typing import Final

import click

from voice_agent.audio.files import describe_audio
from voice_agent.cli import exit_codes
from voice_agent.cli.call_display import open_display
from voice_agent.cli.call_files import FileSource
from voice_agent.cli.call_options import CALL_PATH, CallUrl, RawFormat
from voice_agent.cli.call_run import deal, make_calls
from voice_agent.cli.call_state import ClientOptions
from voice_agent.cli.microphone import MicrophoneSource, load_sounddevice
from voice_agent.cli.running import run_program
from voice_agent.cli.server_access import clear_text_risk, read_access, server_access_options
from voice_agent.core.errors import UnreadableFileError, UnsupportedFormatError
from voice_agent.core.formats import AudioFormat
from voice_agent.core.frames import Encoding

DEFAULT_URL: Final = f"ws://127.0.0.1:8080{CALL_PATH}"
MAX_CALLS: Final = 1000
MAX_CHUNK_MS: Final = 500
"""A longer message of the widest format (float32 stereo at 48 kHz) is over a server's usual limit of 256 KiB."""

EPILOG: Final = """\b
Exit codes:
  0    every call ended as it should, resumed ones too
  1    the reader of the output went away
  2    the command line is wrong
  66   a file, or the microphone, can't be read
  69   the server can't be reached, or refused the call
  70   a call began and ended in an error (its connection was lost for good, too), or the output can't be written
  130  Ctrl-C: the calls were hung up properly; a second Ctrl-C leaves at once

Finals go to standard output, everything else to standard error (on a terminal: together). Latency is measured
from sending the last sample that a result covers to receiving the result.

A call whose connection is lost is resumed on another one, where the server offers that: after waits of up to 8 s
each, as long as the server keeps the session. A FILE waits meanwhile; of a microphone, the last 30 s are kept and
sent later.
"""


@click.command(epilog=EPILOG, short_help="Call a server with FILEs or a microphone.")
@click.argument("files", metavar="FILE...", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--url",
    "urls",
    type=CallUrl(),
    multiple=True,
    default=[DEFAULT_URL],
    envvar="VOICE_AGENT_URL",
    show_default=True,
    show_envvar=True,
    help="The server; given again, another one to go to when one fails. Calls begin with each in turn.",
)
@click.option("--no-resume", is_flag=True, help="A call whose connection is lost has failed.")
@server_access_options
@click.option(
    "--calls",
    "call_count",
    type=click.IntRange(1, MAX_CALLS),
    default=1,
    show_default=True,
    help="Calls at once; the files are dealt out in turn.",
)
@click.option(
    "--speed",
    type=click.FloatRange(0, 1000),
    default=1.0,
    show_default=True,
    help="1 is the speed of sound; 0 is as fast as the server can hear.",
)
@click.option(
    "--encoding",
    type=click.Choice([str(encoding) for encoding in Encoding]),
    default=str(Encoding.PCM_S16LE),
    show_default=True,
    help="How the audio is sent.",
)
@click.option("--rate", type=int, default=16_000, show_default=True, help="Sample rate that is sent, in Hz.")
@click.option("--channels", type=int, default=1, show_default=True, help="Channels that are sent.")
@click.option(
    "--chunk-ms",
    type=click.IntRange(1, MAX_CHUNK_MS),
    default=20,
    show_default=True,
    help="Length of a message; Opus always has 20.",
)
@click.option("--raw", "raw_format", type=RawFormat(), help="The FILEs have no header, and this format.")
@click.option(
    "--silence-seconds",
    type=click.FloatRange(0, 3600),
    default=0.0,
    show_default=True,
    help="Silence after each file, so that its last words end as on a call.",
)
@click.option("--language", default="en", show_default=True, help="Language of the speech.")
@click.option("--no-partials", is_flag=True, help="Ask for finals only.")
@click.option("--microphone", is_flag=True, help="Speak instead of giving files; Ctrl-C ends the call.")
@click.option("--json", "is_json", is_flag=True, help="One JSON object a line: each message, then a summary.")
@click.pass_context
def call(
    ctx: click.Context,
    files: tuple[Path, ...],
    urls: tuple[str, ...],
    no_resume: bool,
    key_file: Path | None,
    ca_file: Path | None,
    call_count: int,
    speed: float,
    encoding: str,
    rate: int,
    channels: int,
    chunk_ms: int,
    raw_format: AudioFormat | None,
    silence_seconds: float,
    language: str,
    no_partials: bool,
    microphone: bool,
    is_json: bool,
) -> None:
    """Call a running server with FILEs (WAV, FLAC, OGG or raw) and show what it hears, as it hears it."""
    if microphone == bool(files):
        raise click.UsageError("Give either FILEs or --microphone.")
    if microphone and call_count > 1:
        raise click.UsageError("One microphone makes one call; leave --calls out.")
    try:
        audio_format = AudioFormat.parse(encoding, rate, channels)
    except UnsupportedFormatError as error:
        raise click.UsageError(error.message) from error
    try:
        if microphone:
            load_sounddevice()
        for path in files:
            describe_audio(path, raw_format=raw_format)
    except UnreadableFileError as error:
        click.echo(f"voice-agent call: {error.message}", err=True)
        ctx.exit(exit_codes.UNREADABLE_INPUT)
    access = read_access(key_file, ca_file)
    for risk in filter(None, map(clear_text_risk, urls) if access.key is not None else ()):
        click.echo(f"voice-agent call: {risk}", err=True)
    sources = [
        (
            path.name,
            FileSource(
                path=path,
                audio_format=audio_format,
                raw_format=raw_format,
                chunk_ms=chunk_ms,
                silence_seconds=silence_seconds,
            ),
        )
        for path in files
    ]
    make = partial(
        make_calls,
        urls,
        deal(sources or [("microphone", MicrophoneSource(audio_format, chunk_ms))], call_count),
        options=ClientOptions(
            language=language, partials=not no_partials, speed=speed, access=access, resumes=not no_resume
        ),
        latency_note=None if microphone else _latency_note(speed),
    )
    with open_display(
        out=sys.stdout, err=sys.stderr, call_count=max(call_count, len(files)), is_json=is_json
    ) as display:
        report = run_program(partial(make, display=display))
    display.show_report(report)
    ctx.exit(report.exit_code)


def _latency_note(speed: float) -> str | None:
    if speed == 1:
        return None
    how = f"at {speed:g} times the speed of sound" if speed else "as fast as it was heard"
    return f"audio was sent {how}, and only at --speed 1 do words come when they are spoken"
