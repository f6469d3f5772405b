"""The page for who does not see it, sees it enlarged, or uses no mouse."""

import re
from typing import Any

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.e2e

WORDS_MS = 30_000
DESKTOP = {"width": 1280, "height": 800}
PHONE = {"width": 380, "height": 800}
ENLARGED = {"width": 320, "height": 256}
"""1280 by 1024 at 400 % (WCAG 2.2, success criterion 1.4.10)."""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_axe_finds_nothing_in_any_state(
    server: Any, open_browser: Any, open_console: Any, viewport: dict[str, int], scheme: str
) -> None:
    """Names, roles, contrast, structure: idle, refused, in a call with words and muted, and afterwards."""
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="needs axe-playwright-python"
    ).Axe()
    found: dict[str, list[str]] = {}

    def look(state: str, console: Any) -> None:
        violations = axe.run(console.page).response["violations"]
        found[state] = [
            f"{rule['id']}: {node['html'][:200]}: {node['failureSummary']}"
            for rule in violations
            for node in rule["nodes"]
        ]

    look_of = {"viewport": viewport, "color_scheme": scheme}
    with open_console(open_browser(may_listen=False), server, **look_of) as console:
        look("idle", console)
        console.button("Call").click()
        expect(console.alert).to_contain_text("may not use the microphone")
        look("refused", console)
    with open_console(open_browser(), server, **look_of) as console:
        console.call()
        look("silent", console)
        console.page.get_by_label("Write instead of speaking").fill("Hello")
        console.page.keyboard.press("Enter")
        expect(console.finals).to_have_count(1)
        console.button("Mute").click()
        look("muted, with words", console)
        console.hang_up()
        look("ended", console)
    assert found == {state: [] for state in found}


def test_the_keyboard_is_enough(server: Any, open_browser: Any, open_console: Any) -> None:
    """Tab reaches Call, Enter calls, focus goes to Hang up, Enter ends."""
    with open_console(open_browser(), server) as console:
        page = console.page
        for _ in range(2):
            page.keyboard.press("Tab")
        expect(console.button("Call")).to_be_focused()
        page.keyboard.press("Enter")
        expect(console.button("Hang up")).to_be_focused(timeout=WORDS_MS)
        page.keyboard.press("Enter")
        expect(console.status).to_have_text("Call ended.", timeout=WORDS_MS)
        expect(console.button("Call")).to_be_focused()


def test_nobody_is_torn_away_when_a_call_ends(
    start_server: Any, open_browser: Any, open_console: Any
) -> None:
    """Focus moves only when what had it is gone: who reads the transcript goes on reading."""
    server = start_server(server__grace_seconds=1, session__resume_window_seconds=1)
    with open_console(open_browser(), server) as console:
        console.call()
        transcript = console.page.get_by_role("region", name="What was said")
        transcript.focus()
        server.process.terminate()
        expect(console.alert).to_contain_text("The server restarted", timeout=WORDS_MS)
        expect(transcript).to_be_focused()


def test_what_happens_is_told_to_a_screen_reader(server: Any, open_browser: Any, open_console: Any) -> None:
    """State and mute through the status, finals through a polite log; partials, which change, through neither."""
    with open_console(open_browser(), server) as console:
        page = console.page
        expect(page.get_by_role("status")).to_have_text("Ready")
        console.call()
        expect(page.get_by_role("status")).to_have_text("On a call")
        mute = console.button("Mute")
        mute.click()
        expect(mute).to_have_attribute("aria-pressed", "true")
        expect(page.get_by_role("status")).to_have_text("On a call, muted")
        page.get_by_label("Write instead of speaking").fill("Hello")
        page.keyboard.press("Enter")
        log = page.get_by_role("log", name="Captions")
        expect(log).to_have_text("Hello")
        expect(log).to_have_attribute("aria-live", "polite")
        expect(page.locator("#captions")).not_to_have_attribute("aria-live", re.compile(".*"))
        expect(page).to_have_title(re.compile("On a call"))
        console.hang_up()
        expect(page).to_have_title("Voice agent")


def test_enlarged_four_times_nothing_needs_scrolling_sideways(
    server: Any, open_browser: Any, open_console: Any
) -> None:
    """In every state; text reflows."""
    with open_console(open_browser(), server, viewport=ENLARGED) as console:
        fits = "document.documentElement.scrollWidth <= innerWidth"
        assert console.page.evaluate(fits)
        console.call()
        console.page.get_by_label("Write instead of speaking").fill("word " * 20 + "w" * 80)
        console.page.keyboard.press("Enter")
        expect(console.finals).to_have_count(1)
        assert console.page.evaluate(fits)
        console.hang_up()
        assert console.page.evaluate(fits)
