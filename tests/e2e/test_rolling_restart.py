"""Three real nodes on one real Redis, each drained and replaced while callers speak."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e

SOAK = Path(__file__).parents[2] / "scripts/soak.py"


@pytest.mark.timeout(300)
def test_a_rolling_restart_under_live_load_loses_no_word() -> None:
    """By the script that soaks for longer: its counts are all zero that must be, and calls did go on elsewhere.

    Takes a minute, because speech does.
    """
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed; Debian has it in the package redis-server")
    plan = ["--plan", "rolling", "--seconds", "1", "--calls", "3", "--compare", "0"]
    soaked = subprocess.run(
        [sys.executable, SOAK, *plan], capture_output=True, text=True, timeout=280, check=False
    )
    assert soaked.returncode == 0, soaked.stdout + soaked.stderr
    assert re.search(r"trouble +\{'drain': 3\}", soaked.stdout)
    assert int(re.search(r"(\d+) resumes, \d+ found", soaked.stdout)[1]) >= 1  # type: ignore[index]
    assert re.search(r"words promised +[1-9]", soaked.stdout)
