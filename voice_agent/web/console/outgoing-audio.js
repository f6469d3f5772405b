import { AudioRing } from "./audio-ring.js";
import { SettledPosition } from "./resume-point.js";
import { SpeechClock } from "./speech-clock.js";

const WAITING_SHARE = 0.5; // how much of what may wait at the server is used when late audio is sent
const WAITING_MS = 10_000; // what is assumed of a server that does not say
const LATE_PIECES = 10; // sent at a time, every 20 ms; ten times the speed of sound
const ASK_PROGRESS_MS = 100;

/**
 * What the microphone heard, on its way to the wire of the moment, and kept until the server needs it no more.
 *
 * A WebSocket is given piece by piece. Over WebRTC the browser sends the track itself; the pieces are kept all the same,
 * placed by what the server tells of its clock, in case a WebSocket has to take over.
 */
export class OutgoingAudio {
  /** @param {{isTrack: boolean}} options whether the browser sends it itself */
  constructor({ isTrack }) {
    this.isTrack = isTrack;
    this.ring = new AudioRing();
    this.clock = new SpeechClock({ isExact: !isTrack });
    this.settled = new SettledPosition();
    /** Whether it is kept for another connection; until the server says so, it is. */
    this.isKept = true;
    this.heardSeconds = 0;
    this.beginsAt = 0;
    this.askedAt = 0;
    this.aheadSeconds = Infinity; // until the server says
    this.ring.rewind();
  }

  /** The microphone heard a piece. @param {boolean} isCarried whether a connection is there */
  capture(pcm, seconds, at, isCarried) {
    const { ring, clock } = this;
    ring.push(pcm, seconds);
    clock.sent(seconds, at);
    if (this.isTrack) {
      ring.endSeconds = clock.positionAt(at) ?? ring.endSeconds;
      if (isCarried) ring.tookAll();
      ring.settle(0); // what was heard before the call began
    }
  }

  /**
   * Send what waits, no faster than the server hears it: what was kept through an outage comes all at once.
   *
   * @param {{sendAudio: (pcm: Int16Array) => boolean, sendMessage: (message: object) => boolean}} wire
   * @returns {number} seconds that were dropped, because nothing takes them and nothing is kept
   */
  pump(wire) {
    const { ring } = this;
    let dropped = 0;
    for (let count = 0, piece = ring.next(); piece && count < LATE_PIECES; count += 1, piece = ring.next()) {
      if (this.isKept && piece.end > this.heardSeconds + this.aheadSeconds) {
        this.askProgress(wire);
        break;
      }
      if (!wire.sendAudio(piece.pcm)) {
        if (this.isKept) break;
        dropped += piece.seconds;
      }
      ring.took();
    }
    ring.settle(this.isKept ? this.settled.seconds : ring.endSeconds);
    return dropped;
  }

  /** Send all that waits, for nothing will follow. */
  finish(wire) {
    for (let piece = this.ring.next(); piece && wire.sendAudio(piece.pcm); piece = this.ring.next()) this.ring.took();
  }

  /** @param {object} message of the server, new or not */
  told(message, at) {
    const seconds = message.position_ms / 1000;
    this.settled.take(message);
    this.heardSeconds = Math.max(this.heardSeconds, seconds);
    this.clock.told(seconds, at);
    if (this.isTrack) this.ring.settle(this.isKept ? this.settled.seconds : this.ring.endSeconds);
  }

  /** A connection began. @param {object} ready the server's message @param {boolean} isKept */
  begin(ready, isKept) {
    this.isKept = isKept;
    this.aheadSeconds = ((ready.limits?.max_waiting_audio_ms ?? WAITING_MS) / 1000) * WAITING_SHARE;
  }

  /** Another connection is to carry it. @returns {number} where in the call's audio it begins, in seconds */
  rewind({ isTrack }) {
    const begins = this.ring.rewind();
    // A track can only carry what is said from now on.
    this.beginsAt = isTrack ? (this.clock.positionAt(performance.now()) ?? this.ring.endSeconds) : begins;
    return this.beginsAt;
  }

  /** That connection stands. @returns {number} seconds of sound that were lost with the one before */
  goOn(ready, { isTrack }) {
    const heardSeconds = ready.heard_ms / 1000;
    if (isTrack || this.isTrack) this.clock = new SpeechClock({ isExact: !isTrack, sentSeconds: this.ring.endSeconds });
    this.isTrack = isTrack;
    this.heardSeconds = Math.max(heardSeconds, this.beginsAt);
    this.settled.beginAgain();
    // What the server had settled and told so is not lost, although it may not have kept how far that was.
    return Math.max(0, this.beginsAt - Math.max(heardSeconds, this.settled.seconds));
  }

  /** @private */
  askProgress(wire) {
    const now = performance.now();
    if (now < this.askedAt + ASK_PROGRESS_MS) return;
    this.askedAt = now;
    wire.sendMessage({ type: "ping" });
  }
}
