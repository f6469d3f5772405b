const RING_SECONDS = 30; // longer than an utterance may be, and than most outages are

/**
 * What may have to be sent once more, and what was not sent yet, of a call's audio: pieces in order, first those that
 * were sent on the connection of the moment, then those that were not.
 *
 * It holds `RING_SECONDS`; beyond it the oldest go. While a connection carries it, what was not sent yet may be as much
 * again: what a connection has announced must not go behind its back. Positions are seconds of the call's audio.
 */
export class AudioRing {
  /** @param {number} [maxSeconds] */
  constructor(maxSeconds = RING_SECONDS) {
    this.maxSeconds = maxSeconds;
    this.endSeconds = 0;
    this.heldSeconds = 0;
    /** Whether pieces went that the connection of the moment should have carried. */
    this.hasGap = false;
    this.isCarried = false;
    this.pieces = []; // {pcm, seconds, count: seconds ever pushed, this piece included}
    this.count = 0;
    this.sent = 0;
  }

  get startSeconds() {
    return this.endSeconds - this.heldSeconds;
  }

  get unsent() {
    return this.pieces.length - this.sent;
  }

  /** @param {Int16Array} pcm @param {number} seconds how long it sounds */
  push(pcm, seconds) {
    this.count += seconds;
    this.pieces.push({ pcm, seconds, count: this.count });
    this.heldSeconds += seconds;
    this.endSeconds += seconds;
    this.keepBound();
  }

  /** The next piece to send, which does not count as sent before `took`. @returns {{pcm: Int16Array, seconds: number, end: number} | null} */
  next() {
    if (!this.unsent) return null;
    const { pcm, seconds, count } = this.pieces[this.sent];
    return { pcm, seconds, end: this.endSeconds - (this.count - count) };
  }

  /** The next piece was sent. */
  took() {
    this.sent += 1;
  }

  /** All of it was sent, by other ways than piece by piece. */
  tookAll() {
    this.sent = this.pieces.length;
  }

  /** Let go of what was sent and lies wholly before the position: nobody will want it again. @param {number} seconds */
  settle(seconds) {
    while (this.sent && this.startSeconds + this.pieces[0].seconds <= seconds) this.dropOldest();
  }

  /** Begin again with the oldest piece, for another connection. @returns {number} where it begins */
  rewind() {
    this.sent = 0;
    this.hasGap = false;
    this.isCarried = true;
    return this.startSeconds;
  }

  /** No connection carries it any more; it still grows. */
  park() {
    this.sent = 0;
    this.isCarried = false;
    this.keepBound();
  }

  /** @private */
  keepBound() {
    while (this.pieces.length > 1) {
      const bound = this.maxSeconds * (this.isCarried && !this.sent ? 2 : 1);
      if (this.heldSeconds <= bound + 1e-6) return;
      this.dropOldest();
    }
  }

  /** @private */
  dropOldest() {
    this.heldSeconds -= this.pieces.shift().seconds;
    if (this.sent) this.sent -= 1;
    else if (this.isCarried) this.hasGap = true;
  }
}
