"""``voice-agent say``: hear the voice that the settings choose, without a server."""

from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Final

import attrs
import click
import numpy as np
import soundfile
import trio

from voice_agent.cli import exit_codes
from voice_agent.cli.call_display import printable
from voice_agent.cli.running import run_program
from voice_agent.cli.settings_command import config_option
from voice_agent.cli.transcribe_output import write_atomically
from voice_agent.core.errors import OperatorError, SynthesisFailedError, VoiceAgentError
from voice_agent.core.units import MS
from voice_agent.observability.logs import configure_logging
from voice_agent.settings.load import load_settings
from voice_agent.settings.schema import VoiceSettings
from voice_agent.speech.voice import MonoAudio, Sentence
from voice_agent.speech.voices import open_voice

EPILOG: Final = """\b
Exit codes:
  0    the file is written
  2    the command line is wrong
  70   the voice failed, or there is nothing in TEXT that can be said
  73   the file can't be written
  78   a setting is wrong, or the voice is not installed
  130  Ctrl-C
"""


@attrs.frozen
class Said:
    """What a voice made of a text; ``first_seconds`` passed until the first sound."""

    sound: MonoAudio
    sample_rate: int
    first_seconds: float
    seconds: float


@click.command(epilog=EPILOG, short_help="Write TEXT as speech into a WAV file, without a server.")
@click.argument("text")
@click.option(
    "--output", "-o", required=True, type=click.Path(path_type=Path, dir_okay=False), help="WAV file."
)
@click.option(
    "--voice",
    "kind",
    type=click.Choice(["piper", "api"]),
    help="Which one, where the settings have none or another one.",
)
@config_option
@click.pass_context
def say(
    ctx: click.Context, text: str, output: Path, kind: str | None, config_files: tuple[Path, ...]
) -> None:
    r"""Say TEXT with the voice that callers would hear, into a WAV file.

    \b
    voice-agent say --voice piper "How may I help you?" -o help.wav
    """
    try:
        flags = {} if kind is None else {"voice.kind": kind}
        settings = load_settings(files=config_files or None, flags=flags).settings
        configure_logging("warning", settings.logging.format)
        if settings.voice.kind == "none":
            raise click.UsageError(
                "the settings have no voice (voice.kind); --voice piper takes the built-in one"
            )
        said = run_program(partial(_say, settings.voice, text))
        if not len(said.sound):
            raise SynthesisFailedError("there is nothing in the text that can be said")
    except VoiceAgentError as error:
        message = "\n".join(map(printable, error.message.splitlines()))
        click.echo(f"voice-agent say: {message}", err=True)
        ctx.exit(exit_codes.SETTINGS if isinstance(error, OperatorError) else exit_codes.FAILED)
    try:
        write_atomically(output, _wav(said))
    except OSError as error:
        click.echo(f"voice-agent say: {printable(str(output))} can't be written: {error.strerror}", err=True)
        ctx.exit(exit_codes.CANT_CREATE)
    click.echo(
        f"{printable(str(output))}: {len(said.sound) / said.sample_rate:.1f} s of sound at {said.sample_rate} Hz; "
        f"the first of it after {said.first_seconds / MS:.0f} ms, all of it after {said.seconds / MS:.0f} ms"
    )


async def _say(settings: VoiceSettings, text: str) -> Said:
    async with open_voice(settings) as voice:
        assert voice is not None  # noqa: S101 (looked at before)
        began_at = trio.current_time()
        first_at: float | None = None
        heard: list[MonoAudio] = [np.zeros(0, np.float32)]
        async with voice.speaking(Sentence(text=text)) as pieces:
            async for piece in pieces:
                first_at = first_at or trio.current_time()
                heard.append(piece)
        ended_at = trio.current_time()
        return Said(
            np.concatenate(heard), voice.sample_rate, (first_at or ended_at) - began_at, ended_at - began_at
        )


def _wav(said: Said) -> bytes:
    file = BytesIO()
    soundfile.write(file, said.sound, said.sample_rate, subtype="PCM_16", format="WAV")
    return file.getvalue()
