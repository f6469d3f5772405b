"""A page of another site in a real Chromium: what the browser lets it try, the server refuses, and the other way round."""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, sync_playwright

pytestmark = pytest.mark.e2e

CHROMIUM = shutil.which("chromium")

TRY = """
async (server) => {
  const seen = {};
  seen.websocket = await new Promise((resolve) => {
    const socket = new WebSocket(server.replace("http", "ws") + "/v1/ws");
    socket.onopen = () => socket.send('{"type":"start"}');
    socket.onmessage = ({data}) => { resolve(JSON.parse(data).type); socket.close(); };
    socket.onerror = () => resolve("refused");
  });
  const post = (mode, type) => fetch(server + "/v1/webrtc", {
    method: "POST", mode, headers: {"Content-Type": type}, body: "garbage",
  });
  seen.offer = await post("cors", "application/sdp").then(
    async (answer) => (await answer.json()).code, () => "refused");
  seen.blind = await post("no-cors", "text/plain").then((answer) => answer.type, () => "refused");
  seen.health = await fetch(server + "/healthz").then((answer) => answer.status, () => "refused");
  return seen;
}
"""


@pytest.fixture
def page() -> Iterator[Page]:
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed (Debian package chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser.new_page()
        browser.close()


def test_a_page_of_another_site_can_t_call_with_its_visitor_s_browser(
    start_server: Any, page: Page, site: str
) -> None:
    """Cross-site WebSocket hijacking and forged requests: refused, though the visitor's machine may call."""
    server = start_server(logging__level="info")
    page.goto(f"{site}/page.html")
    seen = page.evaluate(TRY, server.http)
    assert seen == {"websocket": "refused", "offer": "refused", "blind": "refused", "health": "refused"}
    assert server.stop() == 0
    assert "call_opened" not in server.log()


def test_a_page_of_a_listed_site_can(start_server: Any, page: Page, site: str) -> None:
    """Both wires are open to it, and its script reads the answers."""
    server = start_server(access__allowed_origins=site)
    page.goto(f"{site}/page.html")
    seen = page.evaluate(TRY, server.http)
    assert seen == {"websocket": "ready", "offer": "invalid_sdp", "blind": "refused", "health": 200}
    assert server.stop() == 0
    assert server.log().count("call_opened") == 1
