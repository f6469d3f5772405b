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
 * - `state`: `{state}`, one of `idle`, `connecting`, `live`, `reconnecting`, `ending`;
 * - `reconnecting`: `{attempt, waitMs, reason}`: the connection is lost, the next attempt to resume the call begins in `waitMs`;
 * - `resumed`: `{attempts, awaySeconds, lostSeconds}`: the call goes on; of its sound, `lostSeconds` were never heard;
 * - `level`: `{peak, rms, at}` every 20 ms, 0..1 of full scale, `at` on the clock of `performance.now()`;
 * - `figures`: `Figures` (call-figures.js), when one of them changed;
 * - `problem`: a `CallProblem` whose `code` tells what went wrong while the call goes on;
 * - `ended`: `{reason, record}`; `record` is the server's `closed` message, or null when none came.
 */
import { Access, resumeProblem } from "./access.js";
import { CallFigures } from "./call-figures.js";
import { Microphone } from "./microphone.js";
import { Outage, isHopeless } from "./outage.js";
import { OutgoingAudio } from "./outgoing-audio.js";
import { Playback } from "./playback.js";
import { CallProblem } from "./problems.js";
import { ResumePoint, isLoss } from "./resume-point.js";
import { WebRtcWire, isWebRtcOffered } from "./wire-webrtc.js";
import { WebSocketWire } from "./wire-websocket.js";

export { CallProblem, isWebRtcOffered };

const READY_SECONDS = 15;
const FINISH_SECONDS = 10;
const PING_SECONDS = 2;
const SILENT_SERVER_SECONDS = 8;
const LOST_SERVER_SECONDS = 12;
const FAILING_WIRE_SECONDS = 5; // when the wire itself says that nothing comes
const WEBRTC_ATTEMPTS = 2; // then the other wire is tried, which passes where UDP does not
const WIRES = { websocket: WebSocketWire, webrtc: WebRtcWire };

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
    /** @type {"idle" | "connecting" | "live" | "reconnecting" | "ending"} */
    this.state = "idle";
    this.isMuted = false;
    /** What belongs to the call under way. @private */
    this.call = null;
    // A page that is left takes its call along: another page, or this one reloaded, begins a new one.
    addEventListener("pagehide", () => this.call && this.leave(this.call));
    addEventListener("online", () => this.call?.outage.wake());
  }

  /** What is shown from the next call on. @param {import("./access.js").Key | null} key */
  set key(key) {
    this.access.key = key;
  }

  /** @returns {import("./call-figures.js").Figures} */
  get figures() {
    return { ...(this.call?.figures ?? this.lastFigures ?? new CallFigures()).values };
  }

  /** Which wire carries the call, or carried the last one; it may change when a call is resumed. */
  get transport() {
    return this.call?.transport ?? this.lastTransport;
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
    const outgoing = new OutgoingAudio({ isTrack: transport === "webrtc" });
    const call = { language, partials, outgoing, figures: new CallFigures(), timers: [], isOver: false };
    Object.assign(call, { point: new ResumePoint(), outage: new Outage(), isResumable: false });
    this.takeWire(call, transport);
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
      call.isSending = outgoing.isTrack; // a track is heard as soon as it can be
      await Promise.race([this.openWire(call), call.ready]);
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
    if (this.state === "reconnecting") this.end(call, "hangup"); // there is nobody to say it to
    if (this.state === "connecting") call.reject(new CallProblem("cancelled"));
    if (this.state !== "live") return;
    this.setState("ending");
    call.isSending = false;
    call.microphone.stop();
    if (call.transport === "websocket") call.outgoing.finish(call.wire);
    const over = new Promise((resolve) => this.addEventListener("ended", resolve, { once: true }));
    if (!call.wire.sendMessage({ type: "stop" })) this.end(call, "network_lost");
    this.later(call, FINISH_SECONDS, () => this.end(call, "no_answer"));
    await over;
  }

  /** When the microphone heard this second of the call, on the clock of `performance.now()`; null if not known. */
  timeOf(positionSeconds) {
    return this.call?.outgoing.clock.timeOf(positionSeconds) ?? null;
  }

  /** @private */
  capture(call, { pcm, peak, rms }) {
    const at = performance.now();
    this.emit("level", { peak, rms, at });
    if (!call.isSending) return;
    const { outgoing } = call;
    const isCarried = this.state !== "reconnecting";
    outgoing.capture(pcm, pcm.length / call.microphone.sampleRate, at, isCarried);
    if (outgoing.isTrack || !isCarried) return;
    if (outgoing.ring.hasGap && call.isResumable) return void this.lose(call, "network_slow");
    const dropped = outgoing.pump(call.wire);
    if (dropped) call.figures.values.droppedMs += dropped * 1000;
    if (dropped) this.emit("figures", this.figures);
  }

  /** @private */
  hear(call, message) {
    const at = performance.now();
    call.heardAt = at;
    call.isSilent = false;
    if (message.type !== "ready" && !call.point.take(message)) return; // it was told on an earlier connection
    call.outgoing.told(message, at);
    const before = JSON.stringify(call.figures.values);
    call.figures.hear(message, at, (seconds) => call.outgoing.clock.timeOf(seconds));
    switch (message.type) {
      case "ready":
        if (this.state === "reconnecting") this.goOn(call, message);
        else this.begin(call, message);
        break;
      case "error":
        call.refusal = message.code.startsWith("resume_") ? resumeProblem(message.code) : null;
        break;
      case "closed":
        call.record = message;
        break;
    }
    if (JSON.stringify(call.figures.values) !== before) this.emit("figures", this.figures);
    this.emit("message", message);
    this.emit(message.type, message);
    if (message.type === "closed") this.close(call, message);
  }

  /** The server said that this is the end of the call, or of the connection. @private */
  close(call, { reason, error_code: code, resumable }) {
    if (call.attempt) return call.attempt.reject(new CallProblem(call.refusal ?? "call_refused", code ?? reason));
    if (call.resolve) call.reject(new CallProblem("call_refused", code ?? reason));
    else if (resumable && this.state === "live" && call.isResumable) return this.lose(call, reason);
    this.end(call, reason);
  }

  /** The wire is closed, by whomever. @private */
  wireClosed(call, code) {
    if (call.isOver) return;
    if (call.attempt) return call.attempt.reject(new CallProblem("network_lost"));
    if (this.state === "live" && call.isResumable && isLoss(code)) return this.lose(call, "network_lost");
    this.end(call, call.record?.reason ?? "network_lost");
  }

  /** @private */
  begin(call, message) {
    if (call.isOver) return;
    this.greet(call, message);
    call.timers.push(setInterval(() => this.check(call), PING_SECONDS * 1000));
    this.setState("live");
    call.resolve(message);
    call.resolve = null;
    this.check(call);
  }

  /** What each connection's `ready` begins. @private */
  greet(call, ready) {
    call.point.takeReady(ready);
    call.isResumable = call.point.isOffered;
    call.outgoing.begin(ready, call.isResumable);
    call.playback = new Playback(call.microphone.context, ready.format);
    call.outage.connected();
    call.heardAt = performance.now();
    call.record = null;
  }

  /** The connection is lost: come back, as long as the server keeps the session. @private */
  async lose(call, reason) {
    this.setState("reconnecting");
    this.forsake(call);
    for (;;) {
      const waitMs = call.outage.nextWait(call.point.windowMs);
      if (waitMs === null) return this.end(call, call.record?.reason ?? "network_lost");
      this.emit("reconnecting", { attempt: call.outage.attempts, waitMs, reason });
      await call.outage.pause(waitMs);
      if (call.isOver) return;
      try {
        return await this.comeBack(call);
      } catch (problem) {
        if (call.isOver) return;
        this.forsake(call);
        reason = problem.code ?? "call_failed";
        if (isHopeless(reason)) return this.end(call, reason);
      }
    }
  }

  /** One attempt. @throws {CallProblem} @private */
  async comeBack(call) {
    const answered = new Promise((resolve, reject) => (call.attempt = { resolve, reject }));
    answered.catch(() => {});
    call.refusal = null;
    if (call.outage.attempts > WEBRTC_ATTEMPTS) call.avoidsWebRtc = true;
    this.takeWire(call, call.avoidsWebRtc ? "websocket" : call.transport);
    const beginsAt = call.outgoing.rewind({ isTrack: call.transport === "webrtc" });
    const timer = setTimeout(() => call.attempt?.reject(new CallProblem("no_answer")), READY_SECONDS * 1000);
    try {
      await Promise.race([this.openWire(call, call.point.request(beginsAt)), answered]);
      await answered;
    } finally {
      clearTimeout(timer);
      call.attempt = null;
    }
  }

  /** The call is resumed. @private */
  goOn(call, ready) {
    if (!ready.resumed) return this.refuse(call);
    const { attempts, awaySeconds } = call.outage;
    this.greet(call, ready);
    const lostSeconds = call.outgoing.goOn(ready, { isTrack: call.transport === "webrtc" });
    call.figures.values.droppedMs += lostSeconds * 1000;
    const { attempt } = call;
    call.attempt = null;
    attempt.resolve();
    this.setState("live");
    this.emit("resumed", { attempts, awaySeconds, lostSeconds });
  }

  /** Another session is none of ours; a server that can't resume over WebRTC may over a WebSocket. @private */
  refuse(call) {
    call.attempt.reject(new CallProblem(call.transport === "webrtc" ? "webrtc_not_offered" : "resume_refused"));
    call.wire.close();
    call.avoidsWebRtc = true;
  }

  /** Let go of a connection that is lost. @private */
  forsake(call) {
    const { wire } = call;
    call.wire = null;
    call.playback?.clear();
    call.figures.forgetPings();
    call.outgoing.ring.park();
    wire?.abandon();
  }

  /** @private */
  takeWire(call, transport) {
    const wire = new WIRES[transport]({
      onMessage: (message) => call.wire === wire && this.hear(call, message),
      onAudio: (pcm) => call.wire === wire && call.playback?.play(pcm),
      onClosed: ({ code }) => call.wire === wire && this.wireClosed(call, code),
    });
    Object.assign(call, { wire, transport });
  }

  /** @private */
  openWire(call, resume) {
    const { language, partials, microphone: { sampleRate, stream } } = call;
    return call.wire.open({ server: this.server, access: this.access, sampleRate, stream, language, partials, resume });
  }

  /** Ping, read the wire's own figures, and notice a server that says nothing any more. @private */
  async check(call) {
    const now = performance.now();
    if (!call.wire || this.state === "reconnecting") return;
    const silentSeconds = (now - call.heardAt) / 1000;
    const patience = call.wire.isFailing ? FAILING_WIRE_SECONDS : LOST_SERVER_SECONDS;
    if (silentSeconds > patience && this.state === "live" && call.isResumable) return this.lose(call, "server_silent");
    if (silentSeconds > SILENT_SERVER_SECONDS && !call.isSilent) {
      call.isSilent = true;
      this.emit("problem", new CallProblem("server_silent"));
    }
    call.wire.sendMessage({ type: "ping", id: call.figures.ping(now) });
    const { packetsLost } = await call.wire.statistics().catch(() => ({}));
    if (packetsLost !== undefined && packetsLost !== call.figures.values.packetsLost) {
      call.figures.values.packetsLost = packetsLost;
      this.emit("figures", this.figures);
    }
  }

  /** @private */
  end(call, reason) {
    if (call.isOver) return;
    if (call.resolve) return call.reject(new CallProblem(reason === "network_lost" ? reason : "call_refused"));
    this.release(call);
    this.emit("ended", { reason, record: call.record ?? null });
  }

  /** The page is being left. @private */
  leave(call) {
    call.wire?.close();
    if (call.resolve) call.reject(new CallProblem("cancelled"));
    else this.end(call, "hangup");
  }

  /** Whatever a call holds is let go here, and only here. @private */
  release(call) {
    if (call.isOver) return;
    call.isOver = true;
    for (const timer of call.timers) clearInterval(timer); // ends time-outs as well
    call.playback?.clear();
    call.microphone?.stop();
    call.wire?.close();
    call.outage.wake();
    call.attempt?.reject(new CallProblem("cancelled"));
    this.lastFigures = call.figures;
    this.lastTransport = call.transport;
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
