"""What a person reads when something goes wrong."""

import re
import time
from typing import Any

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.e2e

WORDS_MS = 30_000
WIRES = ["WebSocket", "WebRTC"]


def test_a_refused_microphone_is_told_in_plain_words(
    server: Any, open_browser: Any, open_console: Any
) -> None:
    """Permission denied says what to do, reaches a screen reader, and leaves the page ready to call again."""
    with open_console(open_browser(may_listen=False), server) as console:
        console.button("Call").click()
        expect(console.alert).to_contain_text("The browser may not use the microphone")
        expect(console.button("Call")).to_be_focused()
        assert console.metric("voice_agent_active_sessions") == 0
        console.button("Dismiss").click()
        console.expect_no_notice()


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("NotFoundError", "No microphone was found"),
        ("NotReadableError", "The microphone can.t be opened"),
        ("NotAllowedError", "The browser may not use the microphone"),
    ],
)
def test_each_trouble_with_the_microphone_has_its_words(
    server: Any, open_browser: Any, open_console: Any, fault: str, words: str
) -> None:
    """As the browser names it (Media Capture and Streams, section 10.2), so the person reads it."""
    refuse = (
        f"navigator.mediaDevices.getUserMedia = async () => {{ throw new DOMException('', '{fault}'); }};"
    )
    with open_console(open_browser(), server) as console:
        console.page.add_init_script(refuse)
        console.page.reload()
        console.button("Call").click()
        expect(console.alert).to_contain_text(re.compile(words))
        expect(console.button("Call")).to_be_visible()


def test_a_microphone_that_is_unplugged_is_told_and_the_call_goes_on(
    server: Any, open_browser: Any, open_console: Any
) -> None:
    """The person reads it, may write on, and hangs up in order."""
    keep = """
    const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
    navigator.mediaDevices.getUserMedia = async (wanted) => (globalThis.stream = await open(wanted));
    """
    with open_console(open_browser(), server) as console:
        console.page.add_init_script(keep)
        console.page.reload()
        console.call()
        console.page.evaluate("stream.getAudioTracks()[0].dispatchEvent(new Event('ended'))")
        expect(console.alert).to_contain_text("The microphone was disconnected")
        console.page.get_by_label("Write instead of speaking").fill("Still here")
        console.page.keyboard.press("Enter")
        expect(console.finals).to_have_text(["Still here"])
        console.hang_up()


@pytest.mark.parametrize("wire", WIRES)
def test_a_full_server_and_a_stopped_one_are_told_in_plain_words(
    start_server: Any, open_browser: Any, open_console: Any, wire: str
) -> None:
    """The second caller reads that all lines are busy; when the server drains, and is gone, both are told."""
    server = start_server(server__max_calls=1, server__grace_seconds=1, session__resume_window_seconds=2)
    browser = open_browser()
    with open_console(browser, server) as first, open_console(browser, server) as second:
        first.call(wire)
        second.choose(wire)
        second.button("Call").click()
        expect(second.alert).to_contain_text("All lines are busy")
        server.process.terminate()
        expect(first.alert).to_contain_text("about to restart", timeout=WORDS_MS)
        expect(first.status).to_contain_text("The server restarted and ended the call", timeout=WORDS_MS)
        assert server.process.wait(30) == 0
        second.button("Call").click()
        expect(second.alert).to_contain_text(re.compile("The server can.t be reached"), timeout=WORDS_MS)
        expect(second.button("Call")).to_be_visible()


@pytest.mark.parametrize("wire", WIRES)
def test_a_lost_connection_is_told(
    start_server: Any, open_browser: Any, open_console: Any, wire: str
) -> None:
    """A server that vanishes in mid-call: the person reads that the connection was lost, and keeps the words."""
    server = start_server(session__resume_window_seconds=1)
    with open_console(open_browser(), server) as console:
        console.call(wire)
        console.page.get_by_label("Write instead of speaking").fill("Remember this")
        console.page.keyboard.press("Enter")
        expect(console.finals).to_have_count(1)
        killed_at = time.monotonic()
        server.process.kill()
        expect(console.alert).to_contain_text("The connection was lost", timeout=2 * WORDS_MS)
        print(f"{wire}: told after {time.monotonic() - killed_at:.1f} s")
        expect(console.finals).to_have_text(["Remember this"])
        expect(console.button("TXT")).to_be_enabled()
        expect(console.button("Call")).to_be_visible()


def test_a_server_without_webrtc_offers_none(server: Any, open_browser: Any, open_console: Any) -> None:
    """The choice is there, can't be made, and says why."""
    with open_console(open_browser(), server) as console:
        console.page.route("**/v1/webrtc", lambda route: route.fulfill(status=404))
        console.page.reload()
        expect(console.page.locator("#wire-note")).to_have_text("This server takes no WebRTC calls.")
        expect(console.page.get_by_role("radio", name="WebRTC")).to_be_disabled()
        console.call()
        console.hang_up()
