"""A signal before the server listens: the start ends in good order."""

import signal
import subprocess
import sys

import pytest

pytestmark = pytest.mark.e2e

SERVE_AND_SAY_WHEN_LOADING = """
import sys
import trio
from voice_agent.server import assembly, run
from voice_agent.settings.schema import ServerSettings, Settings

load_models = assembly.load_models

def load_and_say_so(settings):
    load_models(settings)
    print("loading", flush=True)
    # From here on the library is at work without a break, so that the signal finds it so.
    load_models(settings)
    return load_models(settings)

assembly.load_models = load_and_say_so
settings = Settings(server=ServerSettings(port=0))
trio.run(lambda: run.serve(settings, on_listening=lambda server: print("listening", flush=True)))
print("returned", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_the_models_are_loaded_ends_the_start(number: signal.Signals) -> None:
    """Exit code 0, nothing listened, and the process is not aborted by a library that was still at work."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVE_AND_SAY_WHEN_LOADING], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "loading\n"
        process.send_signal(number)
        told = process.stdout.read()
        assert process.wait(30) == 0
    assert told == "returned\n"
