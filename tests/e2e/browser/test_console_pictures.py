"""Pictures of the page in use: made by the tests, kept in docs/images when KEEP_PICTURES is set, looked at by people."""

import os
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.e2e

IMAGES = Path(__file__).parents[3] / "docs" / "images"
DESKTOP = {"width": 1280, "height": 800}
PHONE = {"width": 380, "height": 800}
WORDS_MS = 30_000


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("console-desktop-light", {"viewport": DESKTOP, "color_scheme": "light"}),
        ("console-desktop-dark", {"viewport": DESKTOP, "color_scheme": "dark"}),
        ("console-phone-light", {"viewport": PHONE, "color_scheme": "light"}),
        ("console-phone-dark", {"viewport": PHONE, "color_scheme": "dark"}),
    ],
)
def test_pictures_of_the_page_in_use(
    server: Any,
    open_browser: Any,
    open_console: Any,
    speech: Any,
    tmp_path: Path,
    name: str,
    options: dict[str, Any],
) -> None:
    """In mid-call nothing needs scrolling sideways."""
    with open_console(open_browser(speech("beckett")), server, **options) as console:
        page = console.page
        console.call()
        expect(console.finals.nth(2)).to_be_visible(timeout=WORDS_MS)
        expect(console.partials.last).not_to_be_empty(timeout=WORDS_MS)
        folder = IMAGES if os.environ.get("KEEP_PICTURES") else tmp_path
        page.screenshot(path=folder / f"{name}.png")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        console.hang_up()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
