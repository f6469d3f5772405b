"""docs/operations.md names a test for each promise, and each of them is there and starts a real server."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROMISES = (
    (ROOT / "docs/operations.md")
    .read_text(encoding="utf-8")
    .split("## Promises and the tests that hold them")[1]
)
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PROMISES)
ROWS = [
    line for line in PROMISES.splitlines() if line.startswith("| ") and not line.startswith("| promise |")
]


@pytest.mark.parametrize(("path", "name"), NAMED, ids=[name for _, name in NAMED])
def test_each_named_test_is_there(path: str, name: str) -> None:
    """It is a function of that file, which holds tests of real server processes."""
    source = (ROOT / path).read_text(encoding="utf-8")
    assert re.search(rf"^(async )?def {name}\(", source, re.MULTILINE)
    assert path.startswith("tests/e2e/")
    assert "pytest.mark.e2e" in source


@pytest.mark.parametrize("row", ROWS)
def test_each_promise_names_a_test(row: str) -> None:
    """No row is a promise alone."""
    assert re.search(r"`tests/[\w/]+\.py::\w+`", row)


def test_the_table_is_there() -> None:
    """Rows and names were found at all."""
    assert len(ROWS) > 20
    assert len(NAMED) >= len(ROWS)
