const QUIET_SECONDS = 0.5; // so far behind what was heard may speech still begin that was not told yet
const LEAD_SECONDS = 1; // so much more than seems to be needed is kept: the server drops by position what it has

/** Close codes of a connection that is lost (RFC 6455, section 7.4.1, and the IANA registry): the others mean to end the call. */
const LOST_CLOSE_CODES = new Set([1001, 1006, 1011, 1012]);

/** @param {number} code @returns {boolean} whether another connection may go on with the call */
export function isLoss(code) {
  return LOST_CLOSE_CODES.has(code);
}

/**
 * The session, the token of the moment, and the messages that were seen.
 *
 * A resumed session's `ready` has a higher `seq` than the missed messages that follow it, so it does not count as seen
 * before they came: the connection may be lost among them.
 */
export class ResumePoint {
  constructor() {
    this.session = null;
    this.token = null;
    this.windowMs = 0;
    this.lastSeq = 0;
    this.readySeq = null;
  }

  /** Whether the server lets this session be resumed. */
  get isOffered() {
    return this.token !== null && this.windowMs > 0;
  }

  /** @param {object} ready of the first connection or a later one */
  takeReady(ready) {
    this.session = ready.session;
    this.token = ready.resume?.token ?? null;
    this.windowMs = (ready.resume?.window_seconds ?? 0) * 1000;
    if (ready.resumed) this.readySeq = ready.seq;
    else this.lastSeq = ready.seq;
  }

  /** @param {object} message any later one @returns {boolean} whether it is new */
  take({ seq }) {
    if (this.readySeq !== null) {
      if (seq <= this.lastSeq) return false;
      if (seq >= this.readySeq) this.readySeq = null;
    }
    this.lastSeq = Math.max(this.lastSeq, seq);
    return true;
  }

  /** What the server wants to know. @param {number} startSeconds where the audio begins that comes next */
  request(startSeconds) {
    const { session, token, lastSeq } = this;
    return { session, token, last_seq: lastSeq, audio_ms: Math.max(0, Math.round(startSeconds * 1000)) };
  }
}

/** Up to where the server needs no audio again, as far as its messages tell. */
export class SettledPosition {
  constructor() {
    this.seconds = 0;
    this.open = new Set();
    this.isKept = true;
  }

  /** @param {object} message */
  take(message) {
    switch (message.type) {
      case "speech_started":
        this.open.add(message.utterance);
        break;
      case "final":
        // One that the server could not keep settles nothing, until a later one was kept.
        this.isKept = message.stored !== false;
        this.close(message.utterance);
        this.settle(message.end);
        break;
      case "notice":
        if (message.code === "no_words") this.close(message.detail.utterance);
        break;
    }
    if (!this.open.size) this.settle(message.position_ms / 1000 - QUIET_SECONDS);
  }

  /** Forget what was being said: another connection tells it anew. */
  beginAgain() {
    this.open.clear();
  }

  /** Utterances end in order; one that failed has neither final nor notice. @private */
  close(utterance) {
    for (const number of [...this.open]) if (number <= utterance) this.open.delete(number);
  }

  /** @private */
  settle(seconds) {
    if (this.isKept) this.seconds = Math.max(this.seconds, seconds - LEAD_SECONDS);
  }
}
