"""The ``voice-agent`` command."""

from importlib.metadata import version

import click

from voice_agent.cli.call_command import call
from voice_agent.cli.models_command import models
from voice_agent.cli.serve_command import serve
from voice_agent.cli.settings_command import settings_group
from voice_agent.cli.transcribe_command import transcribe


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("voice-agent"), prog_name="voice-agent")
def main() -> None:
    """A real-time voice agent server: callers speak and read their words at once.

    Start with "voice-agent serve" in one terminal and "voice-agent call FILE.wav" in another; or transcribe a file
    without a server: "voice-agent transcribe FILE.wav".
    """


for command in (serve, call, transcribe, models, settings_group):
    main.add_command(command)

if __name__ == "__main__":
    main()
