"""What the page does with messages that today's server has little occasion for: a scripted server answers it."""

import json
import math
import struct
import time
from typing import Any

import pytest
from playwright.sync_api import WebSocketRoute, expect

pytestmark = pytest.mark.e2e

RATE = 16_000
TONE_SECONDS = 0.5
TONE = struct.pack(
    f"<{int(RATE * TONE_SECONDS)}h",
    *(int(8000 * math.sin(2 * math.pi * 440 * at / RATE)) for at in range(int(RATE * TONE_SECONDS))),
)

PLAYED = """
// What leaves for the loudspeaker: how long, and how loud.
globalThis.played = [];
const start = AudioBufferSourceNode.prototype.start;
AudioBufferSourceNode.prototype.start = function (...at) {
  const samples = this.buffer.getChannelData(0);
  globalThis.played.push({ seconds: this.buffer.duration, peak: Math.max(...samples), at: at[0] });
  return start.apply(this, at);
};
"""


class ScriptedServer:
    """Takes the call and says what a test has it say."""

    def __init__(self) -> None:
        self.route: WebSocketRoute
        self._seq = 0

    def answer(self, route: WebSocketRoute) -> None:
        self.route = route
        route.on_message(self._hear)

    def say(self, kind: str, **fields: Any) -> None:
        self._seq += 1
        self.route.send(json.dumps({"type": kind, "seq": self._seq, "position_ms": 0, **fields}))

    def _hear(self, message: str | bytes) -> None:
        if isinstance(message, bytes):
            return
        told = json.loads(message)
        if told["type"] == "start":
            audio = {"encoding": told["encoding"], "sample_rate": RATE, "channels": 1}
            self.say("ready", session="scripted", protocol=1, format=audio, language="en", partials=True)
        elif told["type"] == "stop":
            self.say("closed", session="scripted", reason="stopped", error_code=None)
            self.route.close(code=1000)


Scripted = tuple[Any, ScriptedServer]


@pytest.fixture
def scripted(server: Any, open_browser: Any, open_console: Any) -> Any:
    """The page in a call with a scripted server."""
    answering = ScriptedServer()
    with open_console(open_browser(), server) as console:
        console.page.add_init_script(PLAYED)
        console.page.route_web_socket("**/v1/ws", answering.answer)
        console.page.reload()
        console.call()
        yield console, answering
        console.hang_up()


def test_a_reply_is_read_and_heard(scripted: Scripted) -> None:
    """The agent's words are marked by name and not by colour alone; its audio is played piece by piece, without gaps."""
    console, answering = scripted
    answering.say(
        "final", utterance=1, start=1.0, end=1.5, text="Good morning.", confidence=1.0, speaker="agent"
    )
    for _ in range(3):
        answering.route.send(TONE)
    expect(console.finals).to_have_text(["Good morning."])
    expect(console.page.locator(".details")).to_have_text("Agent")
    expect(console.page.get_by_role("log", name="Captions")).to_have_text("Agent: Good morning.")
    deadline = time.monotonic() + 30
    while len(played := console.page.evaluate("globalThis.played")) < 3:
        assert time.monotonic() < deadline
    assert [piece["seconds"] for piece in played] == [TONE_SECONDS] * 3
    assert all(piece["peak"] == pytest.approx(8000 / 32768, abs=0.01) for piece in played)
    starts = [piece["at"] for piece in played]
    assert starts[1] - starts[0] == pytest.approx(TONE_SECONDS, abs=1e-6)
    assert starts[2] - starts[1] == pytest.approx(TONE_SECONDS, abs=1e-6)


def test_audio_that_the_server_dropped_is_told_and_counted(scripted: Scripted) -> None:
    """The notice stands in plain words, the milliseconds among the figures, and both add up."""
    console, answering = scripted
    for dropped_ms in (480, 520):
        answering.say("notice", code="overflow", message="…", detail={"dropped_ms": dropped_ms})
    expect(console.alert).to_contain_text("0.5 s of audio came too fast to be heard and were left out.")
    expect(console.page.locator("#figure-dropped")).to_have_text("1000 ms")


def test_errors_are_told_in_plain_words(scripted: Scripted) -> None:
    """A known code has a sentence of its own; for a new one the server's words stand."""
    console, answering = scripted
    answering.say("error", code="recognition_failed", message="ENGINE", fatal=False, field=None)
    expect(console.alert).to_contain_text("One utterance could not be recognised. The call goes on.")
    answering.say("error", code="brand_new", message="the moon is full", fatal=False, field=None)
    expect(console.alert).to_contain_text("The server reports: the moon is full.")


def test_a_sound_without_words_leaves_no_caption(scripted: Scripted) -> None:
    """What was taken for speech goes when it held no words; text that looks like markup stays text."""
    console, answering = scripted
    answering.say("speech_started", utterance=1, start=0.5)
    answering.say("partial", utterance=1, start=0.5, text="<b>Mm</b>", stable="", revision=1, confidence=0.4)
    expect(console.partials).to_have_text("<b>Mm</b>")
    answering.say("notice", code="no_words", message="…", detail={"utterance": 1})
    expect(console.page.locator(".caption")).to_have_count(0)
    console.expect_no_notice()


def test_an_unsure_final_stands_out(scripted: Scripted) -> None:
    """What the model is not sure of is marked, in number and colour."""
    console, answering = scripted
    answering.say("speech_started", utterance=1, start=0.5)
    answering.say("final", utterance=1, start=0.5, end=1.0, text="Maybe.", confidence=0.31, speaker="caller")
    expect(console.page.locator(".is-unsure")).to_have_text("31 % sure")
