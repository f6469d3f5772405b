"""The modules by which a page comes back, alone: the ring of audio, the messages that were seen, the waits."""

from typing import Any

import pytest

pytestmark = pytest.mark.e2e

MODULES = """
async () => {
  const { AudioRing } = await import("/console/audio-ring.js");
  const { ResumePoint, SettledPosition, isLoss } = await import("/console/resume-point.js");
  const { Backoff, Outage } = await import("/console/outage.js");
  const { OutgoingAudio } = await import("/console/outgoing-audio.js");
  Object.assign(globalThis, { AudioRing, ResumePoint, SettledPosition, isLoss, Backoff, Outage, OutgoingAudio });
}
"""

RING = """
(seed) => {
  // A call over connections that come and go, played against a server that counts samples.
  let state = seed;
  const chance = () => ((state = (state * 1103515245 + 12345) % 2147483648) / 2147483648);
  const rate = 48000, piece = 960, ring = new AudioRing(1);
  let cut = 0, place = null, settled = 0, heard = 0, wrong = [];
  for (let step = 0; step < 3000; step += 1) {
    const what = Math.floor(chance() * 5);
    if (what === 0) {
      for (let n = chance() * 20; n > 0; n -= 1) { ring.push(cut, piece / rate); cut += piece; }
    } else if (what === 1 && place === null) {
      place = Math.round(ring.rewind() * rate);
      if (place > cut) wrong.push(["begins behind the end", place, cut]);
    } else if (what === 2 && place !== null) {
      for (let n = chance() * 60; n > 0; n -= 1) {
        if (ring.hasGap) { place = null; ring.park(); break; }
        const next = ring.next();
        if (!next) break;
        if (next.pcm !== place || Math.round(next.end * rate) !== place + piece) wrong.push(["place", next.pcm, place]);
        ring.took();
        place += piece;
        heard = Math.max(heard, place);
      }
    } else if (what === 3 && place !== null) {
      settled = Math.max(settled, Math.floor(heard * chance()));
      ring.settle(settled / rate);
    } else if (what === 4 && place !== null) {
      place = null;
      ring.park();
    }
    const held = ring.endSeconds - ring.startSeconds;
    if (held > (place === null ? 1 : 2) + 1e-6) wrong.push(["bound", held]);
    const start = Math.round(ring.startSeconds * rate);
    if (start > Math.max(settled, cut - rate) + piece) wrong.push(["let go too early", start, settled, cut]);
  }
  return { wrong: wrong.slice(0, 5), cut };
}
"""

SEEN = """
() => {
  const offer = { token: "t", window_seconds: 60 };
  const point = new ResumePoint();
  point.takeReady({ seq: 1, session: "s", resume: offer });
  const first = [2, 3, 4].map((seq) => point.take({ seq }));
  point.takeReady({ seq: 9, session: "s", resumed: true, resume: { ...offer, token: "u" } });
  const asked = [point.request(1.25)];
  const again = [3, 4, 6].map((seq) => point.take({ seq }));
  asked.push(point.request(0)); // broken off among the missed ones: 7 is still wanted
  point.takeReady({ seq: 12, session: "s", resumed: true, resume: offer });
  const last = [7, 13].map((seq) => point.take({ seq }));
  asked.push(point.request(0));
  return { first, again, last, asked };
}
"""

SETTLED = """
() => {
  const fold = (...messages) => {
    const settled = new SettledPosition();
    for (const [type, position_ms, fields] of messages) settled.take({ type, position_ms, ...fields });
    return settled.seconds;
  };
  const speaking = ["speech_started", 5000, { utterance: 1 }];
  return [
    fold(["pong", 10000, {}]),
    fold(["pong", 5000, {}], speaking, ["partial", 9000, {}]),
    fold(speaking, ["final", 9000, { utterance: 1, end: 8.5 }]),
    fold(speaking, ["notice", 9000, { code: "no_words", detail: { utterance: 1 } }]),
    fold(["pong", 2000, {}], ["final", 9000, { utterance: 1, end: 8, stored: false }], ["pong", 9000, {}]),
  ];
}
"""

WAITS = """
() => {
  const bounds = new Backoff(() => 1), drawn = new Backoff();
  const outage = new Outage();
  outage.connected();
  const within = [outage.nextWait(60000), outage.nextWait(60000)].every((wait) => wait >= 0 && wait < 1000);
  const fair = Array.from({ length: 1000 }, () => new Backoff().next()).filter((wait) => wait < 250).length;
  return {
    bounds: Array.from({ length: 7 }, () => bounds.next()),
    isWithin: Array.from({ length: 50 }, () => drawn.next()).every((wait) => wait >= 0 && wait <= 8000),
    within, fair, over: new Outage().nextWait(0), attempts: outage.attempts,
    losses: [1000, 1001, 1006, 1008, 1011, 1012, 4404, 4409].filter(isLoss),
  };
}
"""

LATE = """
() => {
  // 20 s are late; the server may have 10 s waiting, so five are sent, then as many as it hears.
  const outgoing = new OutgoingAudio({ isTrack: false });
  for (let n = 0; n < 1000; n += 1) outgoing.capture(new Int16Array(960), 0.02, n * 20, false);
  outgoing.rewind({ isTrack: false });
  outgoing.begin({ limits: { max_waiting_audio_ms: 10000 } }, true);
  const lost = outgoing.goOn({ heard_ms: 0 }, { isTrack: false });
  let sent = 0, asked = 0;
  const wire = { sendAudio: () => { sent += 1; return true; }, sendMessage: () => { asked += 1; } };
  for (let n = 0; n < 200; n += 1) outgoing.pump(wire);
  const first = sent;
  outgoing.told({ type: "pong", position_ms: 3000 }, 0);
  for (let n = 0; n < 200; n += 1) outgoing.pump(wire);
  return { lost, first, second: sent, asked };
}
"""


def test_the_modules_by_which_a_page_comes_back(server: Any, open_browser: Any, open_console: Any) -> None:
    """Sound lies where it was cut after any sequence of losses; messages are told once; waits are bounded and spread."""
    with open_console(open_browser(), server) as console:
        page = console.page
        page.evaluate(MODULES)
        for seed in range(20):
            played = page.evaluate(RING, seed)
            assert played["wrong"] == [], seed
            assert played["cut"] > 100_000
        seen = page.evaluate(SEEN)
        assert (seen["first"], seen["again"], seen["last"]) == (
            [True] * 3,
            [False, False, True],
            [True, True],
        )
        assert [(it["token"], it["last_seq"], it["audio_ms"]) for it in seen["asked"]] == [
            ("u", 4, 1250),
            ("u", 6, 0),
            ("t", 13, 0),
        ]
        assert page.evaluate(SETTLED) == [8.5, 3.5, 7.5, 7.5, 0.5]
        waits = page.evaluate(WAITS)
        assert waits["bounds"] == [500, 1000, 2000, 4000, 8000, 8000, 8000]
        assert waits["isWithin"]
        assert waits["within"]
        assert waits["over"] is None
        assert waits["attempts"] == 2
        assert 400 < waits["fair"] < 600
        assert waits["losses"] == [1001, 1006, 1011, 1012]
        late = page.evaluate(LATE)
        assert (late["lost"], late["first"], late["second"]) == (0, 250, 400)
        assert late["asked"] >= 1
