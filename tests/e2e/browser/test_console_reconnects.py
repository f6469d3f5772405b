"""A browser whose network breaks: the page says so, comes back by itself, and each word stands there once."""

import itertools
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.e2e

WORDS_MS = 30_000
IMAGES = Path(__file__).parents[3] / "docs" / "images"
WORDS = {"ever": 2, "tried": 1, "matter": 1, "try": 1, "again": 2, "better": 1}
"""How often Beckett says them. "Fail" is left out: behind a break the recogniser lacks what was said before, and hears it as it likes."""
LOST = "Reconnecting…"


def expect_each_phrase_once(console: Any, words: Callable[[str], str]) -> None:
    """Beckett's sentences are short: a word that stands there too often was heard or told twice."""
    console.expect_words("better")
    text = words(" ".join(console.finals.all_inner_texts()))
    assert {word: text.split().count(word) for word in WORDS} == WORDS, text
    spoken = words(" ".join(console.page.locator("#spoken p").all_text_contents()))
    assert spoken == text


@pytest.fixture
def through(server: Any, cutting: Callable[[Any], Any]) -> Any:
    """The file's server behind a network that breaks."""
    return cutting(server)


def test_a_cut_connection_costs_no_word(
    through: Any, open_browser: Any, open_console: Any, speech: Any, words: Callable[[str], str]
) -> None:
    """Cut twice in mid-sentence, for a moment and for seconds: told, resumed, and nothing is lost."""
    with open_console(open_browser(speech("beckett")), through) as console:
        console.call()
        expect(console.partials.first).not_to_be_empty(timeout=WORDS_MS)
        assert through.proxy.cut() >= 1
        expect(console.alert).to_contain_text("The connection is back. Nothing was lost.", timeout=WORDS_MS)
        expect(console.status).to_have_text("On a call")
        session = console.page.locator("#figure-session").inner_text()
        console.button("Dismiss").click()
        expect(console.finals).not_to_have_count(0, timeout=WORDS_MS)
        expect(console.partials.first).not_to_be_empty(timeout=WORDS_MS)
        through.proxy.target = None
        through.proxy.cut()
        expect(console.status).to_have_text(LOST)
        expect(console.alert).to_contain_text("the last 30 seconds are kept")
        expect(console.partials).to_have_count(0)
        expect(console.button("Hang up")).to_be_enabled()
        console.page.wait_for_timeout(1_500)
        through.proxy.target = through.server.port
        expect(console.alert).to_have_text(
            re.compile("^The connection is back. Nothing was lost."), timeout=WORDS_MS
        )
        expect_each_phrase_once(console, words)
        assert console.page.locator("#figure-session").inner_text() == session
        assert console.page.locator("#figure-dropped").inner_text() == "0 ms"
        console.hang_up()


def test_another_server_takes_the_call_up(
    start_server: Any,
    cutting: Callable[[Any], Any],
    open_browser: Any,
    open_console: Any,
    speech: Any,
    words: Callable[[str], str],
    tmp_path: Path,
) -> None:
    """SIGKILL in mid-sentence; a second server with the same store goes on, and the page as well."""
    first = start_server(store__path=tmp_path / "kept.db")
    second = start_server(store__path=tmp_path / "kept.db")
    network = cutting(first)
    with open_console(open_browser(speech("beckett")), network) as console:
        console.call()
        expect(console.finals).not_to_have_count(0, timeout=WORDS_MS)
        expect(console.partials.first).not_to_be_empty(timeout=WORDS_MS)
        network.proxy.target = second.port
        first.process.kill()
        expect(console.alert).to_contain_text("The connection is back. Nothing was lost.", timeout=WORDS_MS)
        expect_each_phrase_once(console, words)
        console.hang_up()
    assert second.wait_for_close_record()["reason"] == "stopped"


def test_a_call_over_webrtc_is_taken_up_by_another_server(
    start_server: Any,
    cutting: Callable[[Any], Any],
    open_browser: Any,
    open_console: Any,
    speech: Any,
    tmp_path: Path,
) -> None:
    """SIGKILL: the browser finds nobody there after some seconds, which it takes; then the same session goes on.

    Over either wire: what a track can't carry later may be lost, and is told; no words stand there twice.
    """
    first = start_server(store__path=tmp_path / "kept.db")
    second = start_server(store__path=tmp_path / "kept.db")
    network = cutting(first)
    with open_console(open_browser(speech("two_cities")), network) as console:
        console.call("WebRTC")
        expect(console.partials.first).not_to_be_empty(timeout=WORDS_MS)
        session = console.page.locator("#figure-session").inner_text()
        network.proxy.target = second.port
        first.process.kill()
        expect(console.alert).to_contain_text("The connection is back", timeout=WORDS_MS)
        expect(console.partials.first).not_to_be_empty(timeout=WORDS_MS)
        console.expect_words("wisdom|foolishness|belief|incredulity|Light|Darkness|hope|despair")
        assert console.page.locator("#figure-session").inner_text() == session
        console.hang_up()
        print(console.alert.inner_text(), console.finals.all_inner_texts())
        spans = [
            list(map(float, re.findall(r"\d+\.\d", it)))
            for it in console.page.locator(".details").all_inner_texts()
        ]
        assert all(one[1] <= other[0] + 0.1 for one, other in itertools.pairwise(spans)), spans
    second.stop()
    assert "stopped" in [it["reason"] for it in second.close_records() if it["session"] == session]


def test_a_silent_network_is_noticed(
    through: Any, open_browser: Any, open_console: Any, speech: Any, words: Callable[[str], str]
) -> None:
    """Nothing breaks, nothing comes: after 12 s the page looks for another way. Real time is what it measures."""
    with open_console(open_browser(speech("beckett")), through) as console:
        console.call()
        expect(console.partials.first).not_to_be_empty(timeout=WORDS_MS)
        through.proxy.stall()
        expect(console.alert).to_contain_text("has not answered for a while", timeout=WORDS_MS)
        expect(console.status).to_have_text(LOST, timeout=WORDS_MS)
        through.proxy.cut()
        through.proxy.stall(flows=True)
        expect(console.alert).to_contain_text("The connection is back. Nothing was lost.", timeout=WORDS_MS)
        expect_each_phrase_once(console, words)
        console.hang_up()


KEEP = """
globalThis.kept = { contexts: [], streams: [], peers: [] };
const Context = AudioContext;
globalThis.AudioContext = class extends Context { constructor(...all) { super(...all); kept.contexts.push(this); } };
const Peer = RTCPeerConnection;
globalThis.RTCPeerConnection = class extends Peer { constructor(...all) { super(...all); kept.peers.push(this); } };
const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
navigator.mediaDevices.getUserMedia = async (wanted) => { const it = await open(wanted); kept.streams.push(it); return it; };
"""
LEFT = """
() => [
  kept.contexts.filter(({ state }) => state !== "closed").length,
  kept.streams.flatMap((stream) => stream.getTracks()).filter(({ readyState }) => readyState !== "ended").length,
  kept.peers.filter(({ connectionState }) => connectionState !== "closed").length,
]
"""


@pytest.mark.parametrize("how", ["gives up", "hangs up"])
def test_a_page_that_gives_up_lets_go_of_everything(
    start_server: Any, cutting: Callable[[Any], Any], open_browser: Any, open_console: Any, how: str
) -> None:
    """When the window is over, or the person hangs up meanwhile: no microphone, no audio context, no attempt is left."""
    server = start_server(session__resume_window_seconds=3 if how == "gives up" else 60)
    network = cutting(server)
    with open_console(open_browser(), network) as console:
        page = console.page
        page.add_init_script(KEEP)
        page.reload()
        console.call()
        network.proxy.target = None
        network.proxy.cut()
        expect(console.status).to_have_text(LOST)
        if how == "hangs up":
            console.hang_up()
            console.expect_no_notice()
        else:
            expect(console.status).to_contain_text("The connection was lost", timeout=WORDS_MS)
        expect(console.button("Call")).to_be_focused()
        page.wait_for_function(f"({LEFT})().every((count) => count === 0)", timeout=5_000)
        tried = network.proxy.accepted
        page.wait_for_timeout(1_000)
        assert network.proxy.accepted == tried
        assert page.evaluate("kept.streams.length") == 1


def test_a_server_that_keeps_nothing_is_not_asked_to_resume(
    start_server: Any, cutting: Callable[[Any], Any], open_browser: Any, open_console: Any
) -> None:
    """As it always was: told at once, and over."""
    server = start_server(store__kind="none")
    network = cutting(server)
    with open_console(open_browser(), network) as console:
        console.call()
        network.proxy.cut()
        expect(console.alert).to_contain_text("The connection was lost")
        expect(console.button("Call")).to_be_visible()


def test_a_reloaded_page_begins_a_new_session(through: Any, open_browser: Any, open_console: Any) -> None:
    """A resume token lives as long as its page."""
    with open_console(open_browser(), through) as console:
        console.call()
        first = console.page.locator("#figure-session").inner_text()
        console.page.reload()
        expect(console.status).to_have_text("Ready")
        console.call()
        assert console.page.locator("#figure-session").inner_text() != first
        console.hang_up()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("console-reconnecting", {"viewport": {"width": 1280, "height": 800}, "color_scheme": "light"}),
        ("console-reconnecting-phone", {"viewport": {"width": 380, "height": 800}, "color_scheme": "dark"}),
    ],
)
def test_a_picture_of_the_page_without_a_connection(
    through: Any, open_browser: Any, open_console: Any, tmp_path: Path, name: str, options: dict[str, Any]
) -> None:
    """Nothing needs scrolling sideways, and axe finds nothing against it."""
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="needs axe-playwright-python"
    ).Axe()
    with open_console(open_browser(), through, **options) as console:
        page = console.page
        console.call()
        page.get_by_label("Write instead of speaking").fill("My number is 42.")
        page.keyboard.press("Enter")
        expect(console.finals).to_have_count(1)
        through.proxy.target = None
        through.proxy.cut()
        expect(console.status).to_have_text(LOST)
        expect(page.get_by_role("status")).to_contain_text(LOST)
        expect(page.get_by_label("Write instead of speaking")).to_be_disabled()
        folder = IMAGES if os.environ.get("KEEP_PICTURES") and "phone" not in name else tmp_path
        page.screenshot(path=folder / f"{name}.png")
        print(folder / f"{name}.png")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        violations = axe.run(page).response["violations"]
        assert json.dumps([rule["id"] for rule in violations]) == "[]"
        console.hang_up()
