/**
 * @typedef {object} Figures
 * @property {number | null} finalLatencyMs from the end of the last utterance to its final, as heard here
 * @property {number | null} medianFinalLatencyMs the median over the call
 * @property {number | null} roundTripMs of the last ping
 * @property {number} droppedMs audio that was never heard: the network or the server could not keep up, or was away for long
 * @property {number | null} packetsLost as the server reports them; null over a WebSocket, which loses none
 */

/** One call, measured. */
export class CallFigures {
  constructor() {
    /** @type {Figures} */
    this.values = { finalLatencyMs: null, medianFinalLatencyMs: null, roundTripMs: null, droppedMs: 0, packetsLost: null };
    this.latencies = [];
    this.spoken = new Set(); // utterances; the others are typed
    this.pings = new Map(); // id → when, for pongs that come
    this.pingId = 0;
  }

  /** @param {object} message of the server @param {number} at when it came @param {(seconds: number) => number | null} timeOf a second of the call */
  hear(message, at, timeOf) {
    switch (message.type) {
      case "speech_started":
        this.spoken.add(message.utterance);
        break;
      case "final":
        if (this.spoken.delete(message.utterance)) this.addLatency(at, timeOf(message.end));
        break;
      case "pong":
        this.measureRoundTrip(message.id, at);
        break;
      case "notice":
        if (message.code === "overflow") this.values.droppedMs += message.detail.dropped_ms;
        break;
    }
  }

  /** @param {number} now @returns {string} the id of a ping that is sent now */
  ping(now) {
    this.pingId += 1;
    const id = String(this.pingId);
    this.pings.set(id, now);
    return id;
  }

  /** What was sent over a connection that is lost is not answered. */
  forgetPings() {
    this.pings.clear();
  }

  /** @private */
  addLatency(at, ended) {
    if (ended === null) return;
    this.latencies.push(Math.max(0, at - ended));
    const sorted = this.latencies.toSorted((a, b) => a - b);
    this.values.finalLatencyMs = this.latencies.at(-1);
    this.values.medianFinalLatencyMs = sorted[Math.floor(sorted.length / 2)];
  }

  /** @private */
  measureRoundTrip(id, at) {
    const sentAt = this.pings.get(id);
    if (sentAt === undefined) return;
    this.pings.delete(id);
    this.values.roundTripMs = at - sentAt;
  }
}
