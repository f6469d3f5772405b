"""Calls through the console page, by clicking and typing."""

import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.e2e

WORDS_MS = 30_000
"""How long words may take to appear on a busy machine."""
SOON_SECONDS = 8
"""Sooner than any timeout of the server could end a call, the media timeout of 10 s first: it was told, or noticed. What a
quiet machine takes, some hundredths, is printed."""


@pytest.mark.parametrize("wire", ["WebSocket", "WebRTC"])
def test_a_person_calls_speaks_reads_and_hangs_up(
    server: Any, open_browser: Any, open_console: Any, speech: Any, words: Callable[[str], str], wire: str
) -> None:
    """Words appear in place, settle with times and confidence, and are told to a screen reader; the level moves."""
    with open_console(open_browser(speech("beckett")), server) as console:
        page = console.page
        expect(console.button("Hang up")).to_be_hidden()
        console.call(wire)
        expect(console.button("Hang up")).to_be_focused()
        expect(console.partials.first).not_to_be_empty(timeout=WORDS_MS)
        expect(page.locator("#level")).to_have_attribute("aria-valuenow", re.compile(r"^([4-9]\d|100)$"))
        console.expect_words("fail better")
        text = words(" ".join(console.finals.all_inner_texts()))
        for phrase in ("ever tried", "ever failed", "no matter", "try again", "fail again", "fail better"):
            assert phrase in text
        assert re.search(r"\d+\.\d . \d+\.\d s\s*\d+ % sure", page.locator(".details").first.inner_text())
        assert words(" ".join(page.locator("#spoken p").all_text_contents())) == text
        assert re.fullmatch(r"\d+ ms", page.locator("#figure-latency").inner_text())
        assert re.fullmatch(r"[\d.]+ ms", page.locator("#figure-round-trip").inner_text())
        assert page.locator("#figure-dropped").inner_text() == "0 ms"
        console.expect_no_notice()
        console.hang_up()
        assert console.seconds_until_no_call() < SOON_SECONDS
        console.expect_no_notice()
        expect(console.button("Call")).to_be_focused()


def test_hanging_up_in_mid_sentence_ends_the_session_at_once_and_keeps_the_words(
    server: Any, open_browser: Any, open_console: Any, speech: Any
) -> None:
    """What was said before the click is still recognised; a second call can follow at once."""
    with open_console(open_browser(speech("two_cities")), server) as console:
        console.call()
        expect(console.page.locator(".caption .words").first).to_contain_text(
            re.compile("best of times", re.IGNORECASE), timeout=WORDS_MS
        )
        console.button("Hang up").click()
        assert console.seconds_until_no_call() < SOON_SECONDS
        expect(console.status).to_have_text("Call ended.")
        expect(console.partials).to_have_count(0)
        expect(console.finals).not_to_have_count(0)
        console.call()
        expect(console.page.locator(".caption")).to_have_count(0)
        console.hang_up()


@pytest.mark.parametrize("wire", ["WebSocket", "WebRTC"])
def test_a_closed_tab_ends_the_session(
    server: Any, open_browser: Any, open_console: Any, speech: Any, wire: str
) -> None:
    """A page that is closed in mid-call leaves nothing on the server, and no timeout is waited for."""
    with open_console(open_browser(speech("two_cities")), server) as console:
        ended = console.calls_ended()
        console.call(wire)
        console.page.close(run_before_unload=False)
        assert console.seconds_until_no_call() < SOON_SECONDS
        assert console.calls_ended() == ended + 1


@pytest.mark.parametrize("victim", ["renderer", "browser"])
@pytest.mark.parametrize("wire", ["WebSocket", "WebRTC"])
def test_a_killed_tab_or_browser_ends_the_session(
    server: Any, open_browser: Any, open_console: Any, speech: Any, wire: str, victim: str
) -> None:
    """SIGKILL, so that nothing of the page can say goodbye: the session ends, and no timeout is waited for."""
    browser = open_browser(speech("two_cities"))
    processes = browser.new_browser_cdp_session()
    with open_console(browser, server) as console:
        ended = console.calls_ended()
        console.call(wire)
        expect(console.partials.first).not_to_be_empty(timeout=WORDS_MS)
        for process in processes.send("SystemInfo.getProcessInfo")["processInfo"]:
            if process["type"] == victim:
                os.kill(process["id"], signal.SIGKILL)
        seconds = console.seconds_until_no_call()
        print(f"{victim} killed over {wire}: no call after {seconds:.2f} s")
        assert seconds < SOON_SECONDS
        assert console.calls_ended() == ended + 1


def test_typed_text_mute_and_downloads(
    server: Any, open_browser: Any, open_console: Any, tmp_path: Path
) -> None:
    """Writing is a turn like speaking; a muted microphone gives silence; the transcript is saved in three forms."""
    with open_console(open_browser(), server) as console:
        page = console.page
        expect(console.button("TXT")).to_be_disabled()
        console.call()
        mute = console.button("Mute")
        mute.click()
        expect(mute).to_have_attribute("aria-pressed", "true")
        expect(page.locator("#level")).to_have_attribute("aria-valuenow", "0")
        mute.click()
        expect(mute).to_have_attribute("aria-pressed", "false")
        page.get_by_label("Write instead of speaking").fill("My number is 42. <b>&")
        page.keyboard.press("Enter")
        expect(page.locator(".caption .words")).to_have_text("My number is 42. <b>&")
        expect(page.locator(".details")).to_have_text("typed")
        console.hang_up()
        saved = {}
        for kind in ("TXT", "SRT", "JSON"):
            with page.expect_download() as waiting:
                console.button(kind).click()
            waiting.value.save_as(tmp_path / kind)
            assert waiting.value.suggested_filename == f"transcript.{kind.lower()}"
            saved[kind] = (tmp_path / kind).read_text()
    assert re.fullmatch(r"\[0:\d\d\] My number is 42\. <b>&\n", saved["TXT"])
    assert re.match(r"1\n00:00:\d\d,\d{3} --> 00:00:\d\d,\d{3}\nMy number is 42\. <b>&\n", saved["SRT"])
    whole = json.loads(saved["JSON"])
    assert whole["finals"][0]["text"] == "My number is 42. <b>&"
    assert whole["closed"]["reason"] == "stopped"


def test_what_a_person_chose_is_how_the_call_is_made(
    server: Any, open_browser: Any, open_console: Any, speech: Any
) -> None:
    """Wire, microphone and partials; remembered by the browser, and fixed while the call lasts."""
    spy = """
    globalThis.asked = [];
    const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
    navigator.mediaDevices.getUserMedia = (wanted) => { globalThis.asked.push(wanted); return open(wanted); };
    """
    with open_console(open_browser(speech("beckett")), server) as console:
        page = console.page
        page.add_init_script(spy)
        page.reload()
        console.call()
        console.hang_up()
        microphone = page.get_by_role("combobox", name="Microphone", exact=True)
        names = microphone.locator("option").all_text_contents()
        assert len(names) > 1
        microphone.select_option(label=names[-1])
        page.get_by_label("Show words while they are spoken").uncheck()
        console.choose("WebRTC")
        page.reload()
        expect(page.get_by_role("radio", name="WebRTC")).to_be_checked()
        expect(page.get_by_label("Show words while they are spoken")).not_to_be_checked()
        expect(microphone.locator("option:checked")).to_have_text(names[-1])
        console.button("Call").click()
        expect(console.status).to_have_text("On a call", timeout=WORDS_MS)
        expect(microphone).to_be_disabled()
        expect(page.get_by_role("radio", name="WebSocket")).to_be_disabled()
        page.evaluate(
            "new MutationObserver(() => { globalThis.sawPartial ||= !!document.querySelector('.is-partial'); })"
            ".observe(document.getElementById('captions'), { childList: true, subtree: true })"
        )
        console.expect_words("fail better")
        assert not page.evaluate("globalThis.sawPartial")
        assert page.evaluate("asked[0].audio.deviceId.exact") == microphone.input_value()
        expect(page.locator("#figure-packets")).to_have_text("0")
        console.hang_up()


def test_words_that_nobody_saved_outlive_the_next_call(
    server: Any, open_browser: Any, open_console: Any, tmp_path: Path
) -> None:
    """A new call begins an empty transcript; the one before can still be saved, unless it was."""
    with open_console(open_browser(), server) as console:
        page = console.page
        console.call()
        page.get_by_label("Write instead of speaking").fill("Worth keeping")
        page.keyboard.press("Enter")
        expect(console.finals).to_have_count(1)
        console.hang_up()
        console.call()
        expect(console.finals).to_have_count(0)
        with page.expect_download() as waiting:
            console.button("Save it").click()
        waiting.value.save_as(tmp_path / "saved")
        assert "Worth keeping" in (tmp_path / "saved").read_text()
        console.hang_up()
        console.call()
        console.expect_no_notice()
        console.hang_up()


def test_the_session_s_id_can_be_copied(server: Any, open_browser: Any, open_console: Any) -> None:
    """For who asks the operator about this call."""
    with open_console(open_browser(), server, permissions=["clipboard-read", "clipboard-write"]) as console:
        page = console.page
        console.call()
        page.get_by_role("button", name="Copy the session").click()
        copied = page.evaluate("navigator.clipboard.readText()")
        assert copied == page.locator("#figure-session").inner_text()
        assert len(copied) == 32
        console.hang_up()
