"""The client module in a page of somebody else's site: the files that docs/console.md names, copied, and nothing more."""

import functools
import http.server
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from voice_agent.access.keys import new_key

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[3]
CONSOLE = ROOT / "voice_agent" / "web" / "console"
PAGE = """<!doctype html>
<title>another site</title>
<script type="module">
  import { VoiceAgentClient } from "./voice-agent-client.js";
  globalThis.VoiceAgentClient = VoiceAgentClient;
</script>
"""
CALL = """
async ([server, transport, key]) => {
  const client = new VoiceAgentClient({ server, key: "va_nobody_" + "0".repeat(64) });
  const finals = [];
  client.addEventListener("final", ({ detail }) => finals.push(detail.text));
  const ended = new Promise((resolve) => client.addEventListener("ended", ({ detail }) => resolve(detail)));
  const refused = await client.connect({ transport }).catch(({ code }) => code);
  client.key = key;
  const { session } = await client.connect({ transport });
  while (!finals.some((text) => /fail better/i.test(text))) await new Promise((resolve) => setTimeout(resolve, 50));
  client.sendText("typed");
  await client.hangUp();
  const { reason, record } = await ended;
  return { refused, session, finals, reason, recorded: record?.session, state: client.state };
}
"""


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_arguments: Any) -> None:
        pass


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    """A page on another port is of another origin; it has the files that the document names."""
    document = (ROOT / "docs" / "console.md").read_text()
    paragraph = next(part for part in document.split("\n\n") if part.startswith("`voice-agent-client.js`"))
    folder = tmp_path / "site"
    folder.mkdir()
    for name in re.findall(r"`([\w-]+\.js)`", paragraph):
        shutil.copy(CONSOLE / name, folder / name)
    (folder / "index.html").write_text(PAGE)
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("transport", ["websocket", "webrtc"])
def test_a_page_of_another_site_calls_with_a_copy(
    start_server: Any, open_browser: Any, speech: Any, site: str, transport: str
) -> None:
    """From an origin that the operator listed, with a key: heard, typed to, hung up, and told when the key is wrong."""
    kiosk = new_key("kiosk")
    server = start_server(
        access__allowed_origins=site, access__keys=f'kiosk = {{ sha256 = "{kiosk.sha256}" }}'
    )
    page = open_browser(speech("beckett")).new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(site)
    page.wait_for_load_state("networkidle")
    told = page.evaluate(CALL, [server.http, transport, kiosk.text])
    assert told["refused"] == "key_refused"
    assert told["finals"][-1] == "typed"
    assert (told["reason"], told["state"]) == ("stopped", "idle")
    assert told["recorded"] == told["session"]
    assert faults == []
    assert server.stop() == 0
    assert server.log().count('"call_closed"') == 1


CANCEL = """
async (server) => {
  let opened = 0;
  const Native = WebSocket;
  globalThis.WebSocket = class extends Native { constructor(...all) { super(...all); opened += 1; } };
  let give, asked;
  const wanted = new Promise((resolve) => { asked = resolve; });
  const ticket = new Promise((resolve) => { give = resolve; });
  const client = new VoiceAgentClient({ server, getTicket: () => { asked(); return ticket; } });
  const refused = client.connect().catch(({ code }) => code);
  await wanted;
  await client.hangUp();
  give("late");
  await new Promise((resolve) => setTimeout(resolve));
  return [await refused, opened, client.state];
}
"""


def test_a_call_that_is_cancelled_before_its_ticket_came_opens_nothing(
    start_server: Any, open_browser: Any, site: str
) -> None:
    """Who hangs up while something is being fetched has no call a moment later."""
    page = open_browser().new_page()
    page.goto(site)
    page.wait_for_load_state("networkidle")
    server = start_server(access__allowed_origins=site)
    assert page.evaluate(CANCEL, server.http) == ["cancelled", 0, "idle"]
