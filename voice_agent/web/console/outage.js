const FIRST_WAIT_MS = 500;
const MAX_WAIT_MS = 8000;
const STEADY_MS = 10_000; // a connection that held for so long ends an outage; one that breaks sooner belongs to it

/** Problems of an attempt to resume that the next one would have again. */
const HOPELESS = new Set(["resume_refused", "key_refused", "key_needed", "key_forbidden", "origin_refused"]);

/** @param {string} code of a problem @returns {boolean} whether there is no use in trying again */
export function isHopeless(code) {
  return HOPELESS.has(code);
}

/**
 * Exponential backoff with full jitter: each wait is drawn evenly between nothing and twice the last bound, so that the
 * callers of a server that died don't come back in waves.
 */
export class Backoff {
  /** @param {() => number} [chance] 0..1 */
  constructor(chance = Math.random) {
    this.chance = chance;
    this.attempts = 0;
  }

  /** @returns {number} the next wait, in ms */
  next() {
    const bound = Math.min(MAX_WAIT_MS, FIRST_WAIT_MS * 2 ** this.attempts);
    this.attempts += 1;
    return this.chance() * bound;
  }

  reset() {
    this.attempts = 0;
  }
}

/** When a call may come back, and for how long it has been away. */
export class Outage {
  constructor() {
    this.backoff = new Backoff();
    this.lostAt = null;
    this.readyAt = Infinity;
    this.wake = () => {};
  }

  get attempts() {
    return this.backoff.attempts;
  }

  get awaySeconds() {
    return (performance.now() - this.lostAt) / 1000;
  }

  /** A connection stands. */
  connected() {
    this.readyAt = performance.now();
  }

  /** The connection is lost, or an attempt has failed. @param {number} windowMs @returns {number | null} ms to wait; null: it is over */
  nextWait(windowMs) {
    const now = performance.now();
    if (this.lostAt === null || now - this.readyAt >= STEADY_MS) {
      this.lostAt = now;
      this.backoff.reset();
    }
    this.readyAt = Infinity;
    const waitMs = this.backoff.next();
    return now + waitMs < this.lostAt + windowMs ? waitMs : null;
  }

  /** Resolves after so long, or when `wake` is called. @param {number} ms */
  pause(ms) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}
