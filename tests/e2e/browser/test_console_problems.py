"""What a person reads when something goes wrong."""

import re
from typing import Any

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.e2e

WORDS_MS = 30_000


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


def test_a_full_server_and_a_stopped_one_are_told_in_plain_words(
    start_server: Any, open_browser: Any, open_console: Any
) -> None:
    """The second caller reads that all lines are busy; when the server drains, and is gone, both are told."""
    server = start_server(server__max_calls=1, server__grace_seconds=1)
    browser = open_browser()
    with open_console(browser, server) as first, open_console(browser, server) as second:
        first.call()
        second.button("Call").click()
        expect(second.alert).to_contain_text("All lines are busy")
        server.process.terminate()
        expect(first.alert).to_contain_text("about to restart", timeout=WORDS_MS)
        expect(first.alert).to_contain_text("The server restarted and ended the call", timeout=WORDS_MS)
        assert server.process.wait(30) == 0
        second.button("Call").click()
        expect(second.alert).to_contain_text(re.compile("The server can.t be reached"), timeout=WORDS_MS)
        expect(second.button("Call")).to_be_visible()


def test_a_lost_connection_is_told(start_server: Any, open_browser: Any, open_console: Any) -> None:
    """A server that vanishes in mid-call: the person reads that the connection was lost."""
    server = start_server()
    with open_console(open_browser(), server) as console:
        console.call()
        server.process.kill()
        expect(console.alert).to_contain_text("The connection was lost", timeout=WORDS_MS)
        expect(console.page.locator("#timer")).to_be_visible()
        expect(console.button("Call")).to_be_visible()
