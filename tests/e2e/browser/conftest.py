"""A real Chromium, used as a person uses it: its microphone is fed from speech in a file.

Playwright's synchronous interface only: it runs in the test's own thread, the server is a process of its own.
"""

import contextlib
import re
import shutil
import sys
import time
import urllib.request
import wave
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Final

import attrs
import pytest
from playwright.sync_api import Browser, Error, Locator, Page, Playwright, expect, sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1]))
from cutting_proxy import CuttingProxy, cutting_proxy

CHROMIUM = shutil.which("chromium")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
]
DESKTOP: Final = {"width": 1280, "height": 800}
WORDS_MS: Final = 30_000
"""How long words may take to appear on a busy machine."""
PAUSE_SECONDS: Final = 2
"""Silence before and behind the speech: a person begins to speak when the call stands, and waits for the last words."""

NETWORK_MESSAGES: Final = ("Failed to load resource", "WebSocket connection to")
"""How the browser itself tells of servers that refuse or are gone."""

OpenBrowser = Callable[..., Browser]


@pytest.fixture(scope="module")
def driver() -> Iterator[Playwright]:
    """What drives the browsers."""
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed (Debian package chromium)")
    with sync_playwright() as driver:
        yield driver


@pytest.fixture
def open_browser(driver: Playwright) -> Iterator[OpenBrowser]:
    """Start browsers: ``open_browser(speech)`` speaks the file into the microphone, once, after the permission."""
    browsers: list[Browser] = []

    def open_(speech: Path | None = None, *, may_listen: bool = True) -> Browser:
        arguments = list(ARGUMENTS)
        if may_listen:
            arguments.append("--use-fake-ui-for-media-stream")
        if speech is not None:
            arguments.append(f"--use-file-for-fake-audio-capture={speech}%noloop")
        browsers.append(driver.chromium.launch(executable_path=CHROMIUM, headless=True, args=arguments))
        return browsers[-1]

    yield open_
    for browser in browsers:
        browser.close()


@pytest.fixture(scope="session")
def speech(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a shipped file, by its name, between two pauses."""
    folder = tmp_path_factory.mktemp("speech")

    def between_pauses(name: str) -> Path:
        path = folder / f"{name}.wav"
        if not path.exists():
            with wave.open(str(assets / f"{name}.wav")) as file:
                parameters, samples = file.getparams(), file.readframes(file.getnframes())
            pause = bytes(PAUSE_SECONDS * parameters.framerate * parameters.nchannels * parameters.sampwidth)
            with wave.open(str(path), "wb") as file:
                file.setparams(parameters)
                file.writeframes(pause + samples + pause)
        return path

    return between_pauses


@attrs.frozen
class Console:
    """The console page, as a person sees and uses it."""

    page: Page
    server: Any

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)

    @property
    def status(self) -> Locator:
        return self.page.locator("#status")

    @property
    def alert(self) -> Locator:
        return self.page.get_by_role("alert")

    @property
    def partials(self) -> Locator:
        return self.page.locator(".is-partial .words")

    @property
    def finals(self) -> Locator:
        return self.page.locator(".caption:not(.is-partial) .words")

    def choose(self, wire: str) -> None:
        self.page.get_by_text(wire, exact=True).click()

    def call(self, wire: str = "WebSocket") -> None:
        self.choose(wire)
        self.button("Call").click()
        expect(self.status).to_have_text("On a call", timeout=WORDS_MS)

    def hang_up(self) -> None:
        self.button("Hang up").click()
        expect(self.status).to_have_text("Call ended.", timeout=WORDS_MS)

    def expect_words(self, words: str) -> None:
        """Wait until one final holds the words."""
        pattern = re.compile(words, re.IGNORECASE)
        expect(self.finals.filter(has_text=pattern).first).to_be_visible(timeout=WORDS_MS)

    def expect_no_notice(self) -> None:
        assert self.page.locator("#notices").inner_text() == ""

    def metric(self, name: str) -> float:
        """What the server counts under the name."""
        with urllib.request.urlopen(f"{self.server.http}/metrics", timeout=10) as answer:  # noqa: S310 (our own server)
            text = answer.read().decode()
        family = name.partition("{")[0].removesuffix("_total")
        assert f"# TYPE {family}" in text, f"the server has no metric {family}"
        found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    def calls_ended(self) -> float:
        """How many calls the server has seen end that their callers ended."""
        return sum(
            self.metric(f'voice_agent_calls_total{{reason="{reason}"}}') for reason in ("hangup", "stopped")
        )

    def seconds_until_no_call(self) -> float:
        """Wait until the server has no call open; return how long that took."""
        began = time.monotonic()
        while self.metric("voice_agent_active_sessions"):
            assert time.monotonic() - began < 30
            time.sleep(0.02)
        return time.monotonic() - began


@attrs.frozen
class Network:
    """A way to a server that can be broken; its address is the proxy's."""

    proxy: CuttingProxy
    server: Any = None

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.proxy.port}"


@pytest.fixture
def cutting() -> Iterator[Callable[[Any], Network]]:
    """Put a network that breaks before a server: ``cutting(server)``."""
    with contextlib.ExitStack() as stack:
        yield lambda server: Network(stack.enter_context(cutting_proxy(server.port)), server)


OpenConsole = Callable[..., AbstractContextManager[Console]]


@pytest.fixture
def open_console() -> OpenConsole:
    """Open the page, ``open_console(browser, server)``; nothing on it may be refused by the policy or raise."""

    @contextmanager
    def opened(browser: Browser, server: Any, **options: Any) -> Iterator[Console]:
        faults: list[str] = []
        context = browser.new_context(**{"viewport": DESKTOP, **options})
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on(
            "console",
            lambda message: (
                faults.append(message.text)
                if message.type == "error" and not message.text.startswith(NETWORK_MESSAGES)
                else None
            ),
        )
        page.goto(server.http)
        yield Console(page, server)
        with contextlib.suppress(Error):  # a test may have killed the browser
            context.close()
        assert faults == []

    return opened
