"""The embedding document's example is the one that runs, and it runs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from voice_agent.settings.schema import Settings
from voice_agent.speech.models import find_models

ROOT = Path(__file__).parents[2]


def test_the_document_shows_the_example_that_runs() -> None:
    """The code in docs/embedding.md is docs/examples/embed.py, to the letter."""
    document = (ROOT / "docs/embedding.md").read_text()
    shown = re.search(r"```python\n# docs/examples/embed\.py\n(.*?)```", document, re.DOTALL)
    assert shown is not None
    assert shown[1] == (ROOT / "docs/examples/embed.py").read_text()


@pytest.mark.e2e
def test_the_example_transcribes_real_speech(tmp_path: Path) -> None:
    """A new user's first program prints what was said."""
    speech = find_models(Settings())[0].path.parent.parent / "beckett.wav"
    done = subprocess.run(
        [sys.executable, ROOT / "docs/examples/embed.py", speech],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "fail better" in done.stdout.lower()
    assert "transcripts" in done.stdout
