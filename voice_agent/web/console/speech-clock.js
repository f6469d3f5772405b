const KEPT_SECONDS = 120;

/**
 * From a second of the call's audio to the moment when the microphone heard it.
 *
 * Where this page sends the audio itself (WebSocket), each piece's time is kept: exact, whatever was dropped. Where the
 * browser sends it (WebRTC), the server's own positions tell: no message can come before the audio that it speaks of,
 * so the least difference of arrival and position is the best bound that there is.
 */
export class SpeechClock {
  /** @param {{isExact: boolean, sentSeconds?: number}} options `sentSeconds` of the call were heard before */
  constructor({ isExact, sentSeconds = 0 }) {
    this.isExact = isExact;
    this.pieces = []; // {end: seconds of audio sent, at: when, in ms}
    this.sentSeconds = sentSeconds;
    this.leastOffsetMs = Infinity;
  }

  /** A piece of so many seconds was captured at `at`, and sent. */
  sent(seconds, at) {
    this.sentSeconds += seconds;
    this.pieces.push({ end: this.sentSeconds, at });
    if (this.pieces[0].end < this.sentSeconds - KEPT_SECONDS) this.pieces.splice(0, this.pieces.length / 2);
  }

  /** A message came at `at`, when the server had heard so many seconds. */
  told(positionSeconds, at) {
    if (positionSeconds > 0) this.leastOffsetMs = Math.min(this.leastOffsetMs, at - positionSeconds * 1000);
  }

  /** Which second of the call the microphone hears at the moment `at`; by what the server told. @returns {number | null} */
  positionAt(at) {
    return Number.isFinite(this.leastOffsetMs) ? (at - this.leastOffsetMs) / 1000 : null;
  }

  /** @returns {number | null} the moment, on the clock of `performance.now()` */
  timeOf(positionSeconds) {
    if (!this.isExact) {
      return Number.isFinite(this.leastOffsetMs) ? this.leastOffsetMs + positionSeconds * 1000 : null;
    }
    let [low, high] = [0, this.pieces.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.pieces[middle].end < positionSeconds) low = middle + 1;
      else high = middle;
    }
    const piece = this.pieces[Math.min(low, this.pieces.length - 1)];
    return piece ? piece.at - (piece.end - positionSeconds) * 1000 : null;
  }
}
