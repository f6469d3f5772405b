"""A signal before the server listens: the start ends in good order."""

import signal
import subprocess
import sys

import pytest

pytestmark = pytest.mark.e2e

SERVE_WITH_A_LONG_START = """
import trio
from voice_agent.server import assembly, run
from voice_agent.settings.schema import ServerSettings, Settings

load_models = assembly.load_models

def load_for_long(settings):
    models = load_models(settings)
    print("loading", flush=True)
    for _ in range(30):
        models.recogniser.warm_up()
    return models

assembly.load_models = load_for_long
settings = Settings(server=ServerSettings(port=0))
trio.run(lambda: run.serve(settings, on_listening=lambda server: print("listening", flush=True)))
print("returned", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_the_models_are_loaded_ends_the_start(number: signal.Signals) -> None:
    """Exit code 0, nothing listened, and the process is not aborted by a library that is still at work."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVE_WITH_A_LONG_START], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "loading\n"
        process.send_signal(number)
        told, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert told == "returned\n"
