/**
 * A call to a voice_agent server from a browser, over a WebSocket or over WebRTC.
 *
 * ```js
 * import { VoiceAgentClient } from "./voice-agent-client.js";
 *
 * const client = new VoiceAgentClient({ server: "https://voice.example.org/" });
 * client.addEventListener("partial", ({ detail }) => show(detail.utterance, detail.text));
 * client.addEventListener("final", ({ detail }) => settle(detail.utterance, detail.text));
 * client.addEventListener("problem", ({ detail }) => console.warn(detail.code));
 * button.onclick = () => client.connect({ transport: "websocket" });
 * ```
 *
 * Events are `CustomEvent`s with these details:
 * - each message of the server under its own type (`ready`, `speech_started`, `partial`, `final`, `speech_stopped`,
 *   `notice`, `pong`, `error`, `closed`; see docs/protocol.md), and all of them as `message`;
 * - `state`: `{state}`, one of `idle`, `connecting`, `live`, `ending`;
 * - `level`: `{peak, rms, at}` every 20 ms, 0..1 of full scale, `at` on the clock of `performance.now()`;
 * - `figures`: {@link Figures}, when one of them changed;
 * - `problem`: a `CallProblem` whose `code` tells what went wrong while the call goes on;
 * - `ended`: `{reason, record}`; `record` is the server's `closed` message, or null when none came.
 */
import { Access } from "./access.js";
import { Microphone } from "./microphone.js";
import { Playback } from "./playback.js";
import { CallProblem } from "./problems.js";
import { SpeechClock } from "./speech-clock.js";
import { WebRtcWire, isWebRtcOffered } from "./wire-webrtc.js";
import { WebSocketWire } from "./wire-websocket.js";

export { CallProblem, isWebRtcOffered };

const READY_SECONDS = 15;
const FINISH_SECONDS = 10;
const PING_SECONDS = 2;
const SILENT_SERVER_SECONDS = 8;

/**
 * @typedef {object} Figures
 * @property {number | null} finalLatencyMs from the end of the last utterance to its final, as heard here
 * @property {number | null} medianFinalLatencyMs the median over the call
 * @property {number | null} roundTripMs of the last ping
 * @property {number} droppedMs audio that was never heard: the network or the server could not keep up
 * @property {number | null} packetsLost as the server reports them; null over a WebSocket, which loses none
 */

/** One caller; makes one call at a time, and any number after one another. */
export class VoiceAgentClient extends EventTarget {
  /**
   * @param {object} [options]
   * @param {string | URL} [options.server] where the server is; by default where the page comes from
   * @param {import("./access.js").Key | null} [options.key] what to show where the server asks who calls
   * @param {(() => Promise<string>) | null} [options.getTicket] gives a ticket for each WebSocket call, so that the page
   *   needs no key; your own server gets it by `POST /v1/tickets`
   */
  constructor({ server = document.baseURI, key = null, getTicket = null } = {}) {
    super();
    this.server = new URL(server).href;
    /** @private */
    this.access = new Access(this.server, { key, getTicket });
    /** @type {"idle" | "connecting" | "live" | "ending"} */
    this.state = "idle";
    this.isMuted = false;
    /** What belongs to the call under way. @private */
    this.call = null;
    addEventListener("pagehide", () => this.call?.wire.close());
  }

  /** What is shown from the next call on. @param {import("./access.js").Key | null} key */
  set key(key) {
    this.access.key = key;
  }

  /** @returns {Figures} */
  get figures() {
    return { ...(this.call?.figures ?? this.lastFigures ?? emptyFigures()) };
  }

  /** Which microphone is open; empty without a call. @returns {string} */
  get deviceId() {
    return this.call?.microphone?.deviceId ?? "";
  }

  /**
   * Open the microphone, call the server, and resolve when it hears. Call this from a click.
   *
   * @param {object} [options]
   * @param {"websocket" | "webrtc"} [options.transport]
   * @param {string} [options.deviceId] of `navigator.mediaDevices.enumerateDevices()`; empty for the default
   * @param {string} [options.language] ISO 639-1
   * @param {boolean} [options.partials] whether words are wanted while they are spoken
   * @returns {Promise<object>} the server's `ready` message
   * @throws {CallProblem} with the code that says why there is no call
   */
  async connect({ transport = "websocket", deviceId = "", language = "en", partials = true } = {}) {
    if (this.state !== "idle") throw new CallProblem("already_calling");
    const call = { figures: emptyFigures(), latencies: [], spoken: new Set(), pings: new Map(), timers: [], isOver: false };
    call.clock = new SpeechClock({ isExact: transport === "websocket" });
    call.wire = new { websocket: WebSocketWire, webrtc: WebRtcWire }[transport]({
      onMessage: (message) => this.hear(call, message),
      onAudio: (pcm) => call.playback?.play(pcm),
      onClosed: () => this.end(call, call.record?.reason ?? "network_lost"),
    });
    call.ready = new Promise((resolve, reject) => Object.assign(call, { resolve, reject }));
    call.ready.catch(() => {});
    this.call = call;
    this.setState("connecting");
    try {
      const opened = Microphone.open({
        deviceId,
        onPiece: (piece) => this.capture(call, piece),
        onLost: () => this.emit("problem", new CallProblem("microphone_lost")),
      });
      // Hanging up while the browser asks for permission ends the wait; a microphone that opens late is let go.
      opened.then((microphone) => call.isOver && microphone.stop(), () => {});
      call.microphone = await Promise.race([opened, call.ready]);
      call.microphone.isMuted = this.isMuted;
      const { sampleRate, stream } = call.microphone;
      await Promise.race([
        call.wire.open({ server: this.server, access: this.access, sampleRate, stream, language, partials }),
        call.ready,
      ]);
      call.isSending = true;
      this.later(call, READY_SECONDS, () => call.reject(new CallProblem("no_answer")));
      return await call.ready;
    } catch (error) {
      this.release(call);
      throw error instanceof CallProblem ? error : new CallProblem("call_failed", String(error), { cause: error });
    }
  }

  /** Send silence instead of the microphone; the call's clock goes on. @param {boolean} isMuted */
  mute(isMuted) {
    this.isMuted = isMuted;
    if (this.call?.microphone) this.call.microphone.isMuted = isMuted;
  }

  /** Write instead of speaking. @param {string} text 1 to 4000 characters @returns {boolean} whether it was sent */
  sendText(text) {
    return this.state === "live" && this.call.wire.sendMessage({ type: "text", text });
  }

  /** Ask for the final of what was said so far. @returns {boolean} whether it was sent */
  flush() {
    return this.state === "live" && this.call.wire.sendMessage({ type: "flush" });
  }

  /** End the call: the microphone at once, the connection when the last words are recognised. */
  async hangUp() {
    const { call } = this;
    if (!call) return;
    if (this.state !== "live") {
      if (this.state === "connecting") call.reject(new CallProblem("cancelled"));
      return;
    }
    this.setState("ending");
    call.isSending = false;
    call.microphone.stop();
    const over = new Promise((resolve) => this.addEventListener("ended", resolve, { once: true }));
    if (!call.wire.sendMessage({ type: "stop" })) this.end(call, "network_lost");
    this.later(call, FINISH_SECONDS, () => this.end(call, "no_answer"));
    await over;
  }

  /** When the microphone heard this second of the call, on the clock of `performance.now()`; null if not known. */
  timeOf(positionSeconds) {
    return this.call?.clock.timeOf(positionSeconds) ?? null;
  }

  /** @private */
  capture(call, { pcm, peak, rms }) {
    const at = performance.now();
    this.emit("level", { peak, rms, at });
    if (!call.isSending) return;
    const seconds = pcm.length / call.microphone.sampleRate;
    if (call.wire.sendAudio(pcm)) {
      call.clock.sent(seconds, at);
    } else {
      call.figures.droppedMs += seconds * 1000;
      this.emit("figures", this.figures);
    }
  }

  /** @private */
  hear(call, message) {
    const at = performance.now();
    call.heardAt = at;
    call.isSilent = false;
    call.clock.told(message.position_ms / 1000, at);
    const before = JSON.stringify(call.figures);
    switch (message.type) {
      case "ready":
        this.begin(call, message);
        break;
      case "speech_started":
        call.spoken.add(message.utterance);
        break;
      case "final":
        this.measureFinal(call, message, at);
        break;
      case "pong":
        this.measureRoundTrip(call, message, at);
        break;
      case "notice":
        if (message.code === "overflow") call.figures.droppedMs += message.detail.dropped_ms;
        break;
      case "closed":
        call.record = message;
        break;
    }
    if (JSON.stringify(call.figures) !== before) this.emit("figures", this.figures);
    this.emit("message", message);
    this.emit(message.type, message);
    if (message.type === "closed") {
      if (call.resolve) call.reject(new CallProblem("call_refused", message.error_code ?? message.reason));
      this.end(call, message.reason);
    }
  }

  /** @private */
  begin(call, message) {
    if (call.isOver) return;
    const { microphone } = call;
    call.playback = new Playback(microphone.context, message.format);
    call.heardAt = performance.now();
    call.timers.push(setInterval(() => this.check(call), PING_SECONDS * 1000));
    this.setState("live");
    call.resolve(message);
    call.resolve = null;
    this.check(call);
  }

  /** @private */
  measureFinal(call, message, at) {
    const ended = call.spoken.delete(message.utterance) ? call.clock.timeOf(message.end) : null;
    if (ended === null) return; // it was typed
    call.latencies.push(Math.max(0, at - ended));
    const sorted = call.latencies.toSorted((a, b) => a - b);
    call.figures.finalLatencyMs = call.latencies.at(-1);
    call.figures.medianFinalLatencyMs = sorted[Math.floor(sorted.length / 2)];
  }

  /** @private */
  measureRoundTrip(call, message, at) {
    const sentAt = call.pings.get(message.id);
    if (sentAt === undefined) return;
    call.pings.delete(message.id);
    call.figures.roundTripMs = at - sentAt;
  }

  /** Ping, read the wire's own figures, and notice a server that says nothing any more. @private */
  async check(call) {
    const now = performance.now();
    if (now - call.heardAt > SILENT_SERVER_SECONDS * 1000 && !call.isSilent) {
      call.isSilent = true;
      this.emit("problem", new CallProblem("server_silent"));
    }
    call.pingId = (call.pingId ?? 0) + 1;
    const id = String(call.pingId);
    if (call.wire.sendMessage({ type: "ping", id })) call.pings.set(id, now);
    const { packetsLost } = await call.wire.statistics().catch(() => ({}));
    if (packetsLost !== undefined && packetsLost !== call.figures.packetsLost) {
      call.figures.packetsLost = packetsLost;
      this.emit("figures", this.figures);
    }
  }

  /** @private */
  end(call, reason) {
    if (call.isOver) return;
    if (call.resolve) {
      call.reject(new CallProblem(reason === "network_lost" ? "network_lost" : "call_refused"));
      return;
    }
    this.release(call);
    this.emit("ended", { reason, record: call.record ?? null });
  }

  /** Whatever a call holds is let go here, and only here. @private */
  release(call) {
    if (call.isOver) return;
    call.isOver = true;
    for (const timer of call.timers) clearInterval(timer); // ends time-outs as well
    call.playback?.clear();
    call.microphone?.stop();
    call.wire.close();
    this.lastFigures = { ...call.figures };
    this.call = null;
    this.setState("idle");
  }

  /** @private */
  later(call, seconds, act) {
    call.timers.push(setTimeout(act, seconds * 1000));
  }

  /** @private */
  setState(state) {
    this.state = state;
    this.emit("state", { state });
  }

  /** @private */
  emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

function emptyFigures() {
  return { finalLatencyMs: null, medianFinalLatencyMs: null, roundTripMs: null, droppedMs: 0, packetsLost: null };
}
