"""The drain contract, measured on a real server process by the script that operators can run too."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.alone]

SCRIPT = Path(__file__).parents[2] / "scripts/bench_drain.py"


def test_no_word_is_lost_and_the_exit_is_in_time() -> None:
    """Calls speak, SIGTERM comes: half of them finish, half are cut off at the deadline, and each is told every word.

    The script compares with what an idle server makes of the same audio, and fails unless all calls have a close record,
    no word is lost, and the process has ended with 0 within five seconds of the grace time. Fewer calls than its default:
    a machine that runs tests beside others can't recognise twenty in real time.
    """
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--calls", "6", "--grace", "6"],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"calls: 6, told of the drain: 6\n", done.stdout)
    assert re.search(r"close record: 6 \{'stopped': 3, 'drain': 3\}", done.stdout)
    told = re.search(r"words told: (\d+), lost: 0", done.stdout)
    assert told is not None
    assert int(told[1]) > 20
