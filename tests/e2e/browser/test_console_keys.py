"""A server that asks who calls: a person enters a key, a page of another site brings one."""

import json
import re
import urllib.request
from typing import Any

import attrs
import pytest
from playwright.sync_api import expect

from voice_agent.access.keys import NewKey, new_key

pytestmark = pytest.mark.e2e

WORDS_MS = 30_000
WIRES = ["WebSocket", "WebRTC"]
WRONG = "va_caller_" + 64 * "0"


@attrs.frozen
class Guarded:
    """A server with keys."""

    server: Any
    caller: str
    watcher: str


def line(key: NewKey, scope: str) -> str:
    return f'{key.key_id} = {{ sha256 = "{key.sha256}", scopes = ["{scope}"] }}'


@pytest.fixture
def guarded(start_server: Any) -> Guarded:
    caller, watcher = new_key("caller"), new_key("watcher")
    keys = f"{line(caller, 'call')}\n{line(watcher, 'observe')}"
    server = start_server(access__keys=keys, logging__level="debug")
    return Guarded(server, caller.text, watcher.text)


def enter(console: Any, key: str) -> None:
    console.page.get_by_label("Key", exact=True).fill(key)
    console.page.keyboard.press("Enter")


@pytest.mark.parametrize("wire", WIRES)
def test_a_person_is_asked_for_a_key_and_calls_with_it(
    guarded: Guarded, open_browser: Any, open_console: Any, wire: str
) -> None:
    """In plain words, with the field at hand; a wrong one is told and asked for again, the right one begins the call."""
    with open_console(open_browser(), guarded.server) as console:
        field = console.page.get_by_label("Key", exact=True)
        expect(field).to_be_hidden()
        console.choose(wire)
        console.button("Call").click()
        expect(console.alert).to_contain_text("takes calls only with a key", timeout=WORDS_MS)
        expect(field).to_be_focused()
        enter(console, WRONG)
        expect(console.alert).to_contain_text("does not know this key", timeout=WORDS_MS)
        expect(field).to_be_focused()
        enter(console, f"  {guarded.watcher}\n")
        expect(console.alert).to_contain_text("may not make calls", timeout=WORDS_MS)
        console.button("Forget it").click()
        console.button("Call").click()
        expect(field).to_be_focused(timeout=WORDS_MS)
        enter(console, guarded.caller)
        expect(console.status).to_have_text("On a call", timeout=WORDS_MS)
        expect(field).to_be_hidden()
        console.expect_no_notice()
        console.page.get_by_label("Write instead of speaking").fill("My number is 42.")
        console.page.keyboard.press("Enter")
        expect(console.finals).to_have_text("My number is 42.")
        console.hang_up()
    assert guarded.server.stop() == 0
    record = guarded.server.close_records()[0]
    assert (record["key"], record["reason"]) == ("caller", "stopped")
    for secret in (WRONG, guarded.caller, guarded.watcher):
        assert secret not in guarded.server.log()
    assert not re.search(r"voice-agent\.ticket\.\w|ticket=\w", guarded.server.log())


def test_a_key_is_kept_for_the_tab_and_no_longer(
    guarded: Guarded, open_browser: Any, open_console: Any
) -> None:
    """A reload asks nothing; another tab does, and so does this one when it is told to forget."""
    with open_console(open_browser(), guarded.server) as console:
        page = console.page
        console.button("Call").click()
        enter(console, guarded.caller)
        expect(console.status).to_have_text("On a call", timeout=WORDS_MS)
        console.hang_up()
        page.reload()
        console.call()
        console.hang_up()
        assert guarded.caller not in page.evaluate(
            "JSON.stringify(localStorage) + document.cookie + location"
        )
        assert guarded.caller not in page.content()
        other = page.context.new_page()
        other.goto(guarded.server.http)
        other.get_by_role("button", name="Call", exact=True).click()
        expect(other.get_by_role("alert")).to_contain_text("takes calls only with a key", timeout=WORDS_MS)
        other.close()
        console.button("Forget it").click()
        expect(console.page.locator("#key-kept")).to_be_hidden()
        console.button("Call").click()
        expect(console.alert).to_contain_text("takes calls only with a key", timeout=WORDS_MS)
        assert page.evaluate("JSON.stringify(sessionStorage)") == "{}"


@pytest.mark.parametrize("viewport", [{"width": 1280, "height": 800}, {"width": 380, "height": 800}])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_while_a_key_is_asked_for(
    guarded: Guarded, open_browser: Any, open_console: Any, viewport: dict[str, int], scheme: str
) -> None:
    """The field has a name and its words, in every look; and the page is not wider than the window."""
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="needs axe-playwright-python"
    ).Axe()
    with open_console(open_browser(), guarded.server, viewport=viewport, color_scheme=scheme) as console:
        console.button("Call").click()
        expect(console.page.get_by_label("Key", exact=True)).to_be_focused(timeout=WORDS_MS)
        assert axe.run(console.page).response["violations"] == []
        assert console.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


CALL = """
async ({server, transport, key, ticket}) => {
  const {VoiceAgentClient} = await import(server + "/console/voice-agent-client.js");
  const getTicket = ticket && (async () => ticket);
  const client = new VoiceAgentClient({server, key, getTicket});
  const said = [];
  client.addEventListener("final", ({detail}) => said.push(detail.text));
  try {
    await client.connect({transport});
  } catch (problem) {
    return problem.code;
  }
  client.sendText("Hello from another site.");
  while (!said.length) await new Promise((resolve) => setTimeout(resolve, 50));
  await client.hangUp();
  return said;
}
"""


@pytest.fixture
def listed(start_server: Any, site: str) -> Guarded:
    """A server that lists the site."""
    caller, watcher = new_key("caller"), new_key("watcher")
    keys = f"{line(caller, 'call')}\n{line(watcher, 'observe')}"
    return Guarded(start_server(access__keys=keys, access__allowed_origins=site), caller.text, watcher.text)


@pytest.mark.parametrize("transport", ["websocket", "webrtc"])
def test_a_page_of_another_site_calls_with_its_key(
    listed: Guarded, site: str, open_browser: Any, transport: str
) -> None:
    """Preflights, exposed headers and tickets work across origins; without a key, or with a wrong one, it is told."""
    page = open_browser().new_context().new_page()
    page.goto(f"{site}/page.html")
    wanted = {"server": listed.server.http, "transport": transport}
    assert page.evaluate(CALL, {**wanted, "key": listed.caller}) == ["Hello from another site."]
    assert page.evaluate(CALL, wanted) == "key_needed"
    assert page.evaluate(CALL, {**wanted, "key": WRONG}) == "key_refused"
    assert page.evaluate(CALL, {**wanted, "key": listed.watcher}) == "key_forbidden"
    page.context.close()


def test_a_page_that_holds_no_key_calls_with_a_ticket(listed: Guarded, site: str, open_browser: Any) -> None:
    """Its own server asked for the ticket; it is good once."""
    asked = urllib.request.Request(  # noqa: S310 (our own server)
        f"{listed.server.http}/v1/tickets",
        method="POST",
        headers={"Authorization": f"Bearer {listed.caller}"},
    )
    with urllib.request.urlopen(asked, timeout=10) as answer:  # noqa: S310
        ticket = json.load(answer)["ticket"]
    page = open_browser().new_context().new_page()
    page.goto(f"{site}/page.html")
    wanted = {"server": listed.server.http, "transport": "websocket", "ticket": ticket}
    assert page.evaluate(CALL, wanted) == ["Hello from another site."]
    assert page.evaluate(CALL, wanted) == "key_needed"
    page.context.close()
