"""The console page in a real Chromium, as a person uses it: its microphone is fed from the speech that ships.

Playwright's synchronous interface only: it runs in the test's own thread, the server is a process of its own.
"""

import json
import os
import re
import shutil
import signal
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Playwright, expect, sync_playwright

pytestmark = pytest.mark.e2e

CHROMIUM = shutil.which("chromium")
IMAGES = Path(__file__).parents[2] / "docs" / "images"
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
DESKTOP = {"width": 1280, "height": 800}
PHONE = {"width": 380, "height": 800}
WORDS_MS = 30_000
"""How long words may take to appear on a busy machine."""

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
    """Start browsers: ``open_browser(speech)`` speaks the file into the microphone, once."""
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


@contextmanager
def console(browser: Browser, server: Any, **options: Any) -> Iterator[Page]:
    """Open the page; nothing on it may be refused by the policy or raise."""
    faults: list[str] = []
    with browser.new_context(**{"viewport": DESKTOP, **options}) as context:
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on(
            "console",
            lambda message: (
                faults.append(message.text)
                if message.type == "error" and "Failed to load resource" not in message.text
                else None
            ),
        )
        page.goto(server.http)
        yield page
    assert faults == []


def metric(server: Any, name: str) -> float:
    with urllib.request.urlopen(f"{server.http}/metrics", timeout=10) as answer:  # noqa: S310 (our own server)
        found = re.search(rf"^{re.escape(name)} (\S+)$", answer.read().decode(), re.MULTILINE)
    return float(found[1]) if found else 0.0


def calls_ended(server: Any) -> float:
    return sum(
        metric(server, f'voice_agent_calls_total{{reason="{reason}"}}') for reason in ("hangup", "stopped")
    )


def seconds_until_no_call(server: Any) -> float:
    """Wait until the server has no call open; return how long that took."""
    began = time.monotonic()
    while metric(server, "voice_agent_active_sessions"):
        assert time.monotonic() - began < 30
        time.sleep(0.02)
    return time.monotonic() - began


def call(page: Page, wire: str = "WebSocket") -> None:
    page.get_by_text(wire, exact=True).click()
    page.get_by_role("button", name="Call", exact=True).click()
    expect(page.locator("#status")).to_have_text("On a call", timeout=WORDS_MS)


def hang_up(page: Page) -> None:
    page.get_by_role("button", name="Hang up").click()
    expect(page.locator("#status")).to_have_text("Call ended.", timeout=WORDS_MS)


def say_nothing_wrong(page: Page) -> None:
    assert page.locator("#notices").inner_text() == ""


@pytest.mark.parametrize("wire", ["WebSocket", "WebRTC"])
def test_a_person_calls_speaks_reads_and_hangs_up(
    server: Any, open_browser: OpenBrowser, assets: Path, words: Callable[[str], str], wire: str
) -> None:
    """Words appear in place, settle with times and confidence, and are told to a screen reader; the level moves."""
    with console(open_browser(assets / "beckett.wav"), server) as page:
        expect(page.get_by_role("button", name="Hang up")).to_be_hidden()
        call(page, wire)
        expect(page.get_by_role("button", name="Hang up")).to_be_focused()
        expect(page.locator(".is-partial .words").first).not_to_be_empty(timeout=WORDS_MS)
        expect(page.locator("#level")).to_have_attribute("aria-valuenow", re.compile(r"^([4-9]\d|100)$"))
        finals = page.locator(".caption:not(.is-partial) .words")
        expect(finals.filter(has_text=re.compile("fail better", re.IGNORECASE))).to_have_count(
            1, timeout=WORDS_MS
        )
        text = words(" ".join(finals.all_inner_texts()))
        for phrase in ("ever tried", "ever failed", "no matter", "try again", "fail again", "fail better"):
            assert phrase in text
        assert re.search(r"\d+\.\d . \d+\.\d s\s*\d+ % sure", page.locator(".details").first.inner_text())
        assert words(" ".join(page.locator("#spoken p").all_text_contents())) == text
        assert re.fullmatch(r"\d+ ms", page.locator("#figure-latency").inner_text())
        assert re.fullmatch(r"[\d.]+ ms", page.locator("#figure-round-trip").inner_text())
        assert page.locator("#figure-dropped").inner_text() == "0 ms"
        say_nothing_wrong(page)
        hang_up(page)
        assert seconds_until_no_call(server) < 1
        say_nothing_wrong(page)
        expect(page.get_by_role("button", name="Call", exact=True)).to_be_focused()


def test_hanging_up_in_mid_sentence_ends_the_session_within_a_second_and_keeps_the_words(
    server: Any, open_browser: OpenBrowser, assets: Path
) -> None:
    """What was said before the click is still recognised; a second call can follow at once."""
    with console(open_browser(assets / "two_cities.wav"), server) as page:
        call(page)
        expect(page.locator(".caption .words").first).to_contain_text(
            re.compile("best of times", re.IGNORECASE), timeout=WORDS_MS
        )
        page.get_by_role("button", name="Hang up").click()
        assert seconds_until_no_call(server) < 1
        expect(page.locator("#status")).to_have_text("Call ended.")
        expect(page.locator(".is-partial")).to_have_count(0)
        expect(page.locator(".caption")).not_to_have_count(0)
        call(page)
        expect(page.locator(".caption")).to_have_count(0)
        hang_up(page)


@pytest.mark.parametrize("wire", ["WebSocket", "WebRTC"])
def test_a_closed_tab_ends_the_session(
    server: Any, open_browser: OpenBrowser, assets: Path, wire: str
) -> None:
    """A page that is closed in mid-call leaves nothing on the server after a second."""
    ended = calls_ended(server)
    with console(open_browser(assets / "two_cities.wav"), server) as page:
        call(page, wire)
        page.close(run_before_unload=False)
        assert seconds_until_no_call(server) < 1
    assert calls_ended(server) == ended + 1


@pytest.mark.parametrize("victim", ["renderer", "browser"])
@pytest.mark.parametrize("wire", ["WebSocket", "WebRTC"])
def test_a_killed_tab_or_browser_ends_the_session(
    server: Any, open_browser: OpenBrowser, assets: Path, wire: str, victim: str
) -> None:
    """SIGKILL, so that nothing of the page can say goodbye: the session is gone within a second, words kept."""
    ended = calls_ended(server)
    browser = open_browser(assets / "two_cities.wav")
    processes = browser.new_browser_cdp_session()
    page = browser.new_page()
    page.goto(server.http)
    call(page, wire)
    expect(page.locator(".is-partial .words").first).not_to_be_empty(timeout=WORDS_MS)
    for process in processes.send("SystemInfo.getProcessInfo")["processInfo"]:
        if process["type"] == victim:
            os.kill(process["id"], signal.SIGKILL)
    seconds = seconds_until_no_call(server)
    print(f"{victim} killed over {wire}: no call after {seconds:.2f} s")
    assert seconds < 1
    assert calls_ended(server) == ended + 1


def test_typed_text_mute_and_downloads(server: Any, open_browser: OpenBrowser, tmp_path: Path) -> None:
    """Writing is a turn like speaking; mute is told by name and state; the transcript is saved in three forms."""
    with console(open_browser(), server) as page:
        expect(page.get_by_role("button", name="TXT")).to_be_disabled()
        call(page)
        mute = page.locator("#mute")
        mute.click()
        expect(mute).to_have_attribute("aria-pressed", "true")
        expect(mute).to_have_text("Muted")
        expect(page.locator("#level")).to_have_attribute("aria-valuenow", "0")
        mute.click()
        expect(mute).to_have_attribute("aria-pressed", "false")
        page.get_by_label("Write instead of speaking").fill("My number is 42. <b>&")
        page.keyboard.press("Enter")
        expect(page.locator(".caption .words")).to_have_text("My number is 42. <b>&")
        expect(page.locator(".details")).to_have_text("typed")
        hang_up(page)
        saved = {}
        for kind in ("TXT", "SRT", "JSON"):
            with page.expect_download() as waiting:
                page.get_by_role("button", name=kind).click()
            waiting.value.save_as(tmp_path / kind)
            assert waiting.value.suggested_filename == f"transcript.{kind.lower()}"
            saved[kind] = (tmp_path / kind).read_text()
    assert re.fullmatch(r"\[0:\d\d\] My number is 42\. <b>&\n", saved["TXT"])
    assert re.match(r"1\n00:00:\d\d,\d{3} --> 00:00:\d\d,\d{3}\nMy number is 42\. <b>&\n", saved["SRT"])
    whole = json.loads(saved["JSON"])
    assert whole["finals"][0]["text"] == "My number is 42. <b>&"
    assert whole["closed"]["reason"] == "stopped"


def test_a_refused_microphone_is_told_in_plain_words(server: Any, open_browser: OpenBrowser) -> None:
    """Permission denied says what to do, reaches a screen reader, and leaves the page ready to call again."""
    with console(open_browser(may_listen=False), server) as page:
        page.get_by_role("button", name="Call", exact=True).click()
        expect(page.get_by_role("alert")).to_contain_text("The browser may not use the microphone")
        expect(page.get_by_role("button", name="Call", exact=True)).to_be_focused()
        assert metric(server, "voice_agent_active_sessions") == 0
        page.get_by_role("button", name="Dismiss").click()
        say_nothing_wrong(page)


def test_a_full_server_and_a_stopped_one_are_told_in_plain_words(
    start_server: Any, open_browser: OpenBrowser
) -> None:
    """The second caller reads that all lines are busy; when the server drains, and is gone, both are told."""
    server = start_server(server__max_calls=1, server__grace_seconds=1)
    browser = open_browser()
    with console(browser, server) as first, first.context.new_page() as second:
        call(first)
        second.goto(server.http)
        second.get_by_role("button", name="Call", exact=True).click()
        expect(second.get_by_role("alert")).to_contain_text("All lines are busy")
        server.process.terminate()
        expect(first.get_by_role("alert")).to_contain_text("about to restart", timeout=WORDS_MS)
        expect(first.get_by_role("alert")).to_contain_text(
            "The server restarted and ended the call", timeout=WORDS_MS
        )
        assert server.process.wait(30) == 0
        second.get_by_role("button", name="Call", exact=True).click()
        expect(second.get_by_role("alert")).to_contain_text(
            re.compile("The server can.t be reached"), timeout=WORDS_MS
        )
        expect(second.get_by_role("button", name="Call", exact=True)).to_be_visible()


def test_a_lost_connection_is_told(start_server: Any, open_browser: OpenBrowser) -> None:
    """A server that vanishes in mid-call: the person reads that the connection was lost."""
    server = start_server()
    with console(open_browser(), server) as page:
        call(page)
        server.process.kill()
        expect(page.get_by_role("alert")).to_contain_text("The connection was lost", timeout=WORDS_MS)
        expect(page.locator("#timer")).to_be_visible()
        expect(page.get_by_role("button", name="Call", exact=True)).to_be_visible()


def test_the_keyboard_is_enough(server: Any, open_browser: OpenBrowser) -> None:
    """Tab reaches Call, Enter calls, focus goes to Hang up, Enter ends; every control has a name."""
    with console(open_browser(), server) as page:
        for _ in range(2):
            page.keyboard.press("Tab")
        expect(page.get_by_role("button", name="Call", exact=True)).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name="Hang up")).to_be_focused(timeout=WORDS_MS)
        nameless = page.locator("button, input, select").evaluate_all(
            "all => all.filter(one => !one.ariaLabel && !one.innerText?.trim() && !one.labels?.length).length"
        )
        assert nameless == 0
        page.keyboard.press("Enter")
        expect(page.locator("#status")).to_have_text("Call ended.", timeout=WORDS_MS)


def test_subtitles_are_cut_as_players_want_them(server: Any, open_browser: OpenBrowser) -> None:
    """Two lines of 42 characters a cue, no overlap, and nothing that a player takes for its own marks."""
    finals = [
        {"start": 1.0, "end": 3.0, "text": "word " * 40, "confidence": 0.9},
        {"start": 2.5, "end": 2.5, "text": "a --> b\n\nc", "confidence": 0.9},
    ]
    with console(open_browser(), server) as page:
        text = page.evaluate("async finals => (await import('/console/transcript.js')).toSrt(finals)", finals)
    cues = text.strip().split("\n\n")
    assert [cue.split("\n")[0] for cue in cues] == [str(number) for number in range(1, len(cues) + 1)]
    times = re.findall(r"00:00:(\d\d,\d{3}) --> 00:00:(\d\d,\d{3})", text)
    moments = [moment for cue in times for moment in cue]
    assert moments == sorted(moments)
    assert len(times) == len(cues)
    assert all(len(line) <= 42 for cue in cues for line in cue.split("\n")[2:])
    assert cues[-1].endswith("a -> b c")


def test_ice_servers_are_read_from_link_headers(server: Any, open_browser: OpenBrowser) -> None:
    """RFC 9725, section 4.6: STUN, TURN with credentials, and other links in between."""
    header = (
        '<stun:stun.example.net>; rel="ice-server", </help>; rel="help", '
        '<turn:turn.example.net?transport=udp>; rel="ice-server"; username="a,\\"b"; credential="c=;"; '
        'credential-type="password"'
    )
    with console(open_browser(), server) as page:
        read = page.evaluate(
            "async header => (await import('/console/wire-webrtc.js')).parseIceServers(header)", header
        )
    assert read == [
        {"urls": "stun:stun.example.net"},
        {"urls": "turn:turn.example.net?transport=udp", "username": 'a,"b', "credential": "c=;"},
    ]


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
    open_browser: OpenBrowser,
    assets: Path,
    tmp_path: Path,
    name: str,
    options: dict[str, Any],
) -> None:
    """In mid-call nothing needs scrolling sideways; the pictures go to docs/images when KEEP_PICTURES is set."""
    with console(open_browser(assets / "beckett.wav"), server, **options) as page:
        call(page)
        expect(page.locator(".caption:not(.is-partial)").nth(2)).to_be_visible(timeout=WORDS_MS)
        expect(page.locator(".is-partial .words").last).not_to_be_empty(timeout=WORDS_MS)
        folder = IMAGES if os.environ.get("KEEP_PICTURES") else tmp_path
        page.screenshot(path=folder / f"{name}.png")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        hang_up(page)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
