import { send } from "./access.js";
import { CallProblem } from "./problems.js";

const RESUME_HEADER = "Voice-Agent-Resume";
const SDP = "application/sdp";
const SDP_FRAGMENT = "application/trickle-ice-sdpfrag";
const SET_UP_SECONDS = 15;
const MAX_WAITING_BYTES = 64 * 1024;

/** Whether the server takes WebRTC calls. @param {string} server @returns {Promise<boolean>} */
export async function isWebRtcOffered(server) {
  if (!globalThis.RTCPeerConnection) return false;
  try {
    return (await fetch(new URL("v1/webrtc", server), { method: "OPTIONS" })).ok;
  } catch {
    return false;
  }
}

/**
 * A call over WebRTC, signalled as RFC 9725 has it: audio on a track, JSON on the data channel `events`.
 *
 * The offer is posted before it is applied, so that the ICE servers of the answer's `Link` headers are known when
 * candidates are gathered (RFC 9725, section 4.6); the candidates follow in PATCH requests.
 */
export class WebRtcWire {
  /** @param {import("./wire-websocket.js").WireHooks} hooks */
  constructor(hooks) {
    this.hooks = hooks;
    this.isClosed = false;
    this.isOpen = false;
    this.candidates = [];
    this.patching = Promise.resolve();
  }

  /**
   * @param {{server: string, access: import("./access.js").Access, stream: MediaStream, language: string, partials: boolean, resume?: object}} options
   * @throws {CallProblem} with the code that says why there is no call
   */
  async open({ server, access, stream, language, partials, resume }) {
    const peer = new RTCPeerConnection({ bundlePolicy: "max-bundle" });
    this.peer = peer;
    for (const track of stream.getAudioTracks()) peer.addTrack(track, stream);
    this.channel = peer.createDataChannel("events", { ordered: true });
    peer.ontrack = ({ track }) => this.play(track);
    peer.onicecandidate = ({ candidate }) => this.addCandidate(candidate);
    this.offer = await peer.createOffer();
    const url = new URL("v1/webrtc", server);
    url.search = new URLSearchParams({ language, partials: String(partials) }).toString();
    // The same for whatever follows, also from a page that is being left and can't wait for another one.
    this.headers = await access.headers();
    const answer = await this.post(url, server, access, resume);
    const iceServers = parseIceServers(answer.headers.get("Link"));
    if (iceServers.length) peer.setConfiguration({ iceServers, bundlePolicy: "max-bundle" });
    await peer.setLocalDescription(this.offer);
    await peer.setRemoteDescription({ type: "answer", sdp: await answer.text() });
    await this.channelOpened();
  }

  async post(url, server, access, resume) {
    // In a header, never in the address: servers and proxies log addresses, and the token is a secret.
    const goesOn = resume ? { [RESUME_HEADER]: JSON.stringify(resume) } : {};
    const headers = { "Content-Type": SDP, ...this.headers, ...goesOn };
    const answer = await send(url, { method: "POST", headers, body: this.offer.sdp });
    if ([404, 405].includes(answer.status) && !resume) throw new CallProblem("webrtc_not_offered");
    if (answer.status !== 201) throw await access.problemOf(answer);
    this.resource = new URL(answer.headers.get("Location") ?? "", new URL("v1/webrtc", server));
    this.etag = answer.headers.get("ETag");
    if (this.isClosed) {
      this.deleteResource();
      throw new CallProblem("cancelled");
    }
    return answer;
  }

  /** Resolves when the data channel is open; media and channel share one transport, so media flows by then. */
  channelOpened() {
    const { channel, peer } = this;
    return new Promise((resolve, reject) => {
      const fail = () => reject(new CallProblem("no_media_path"));
      const timer = setTimeout(fail, SET_UP_SECONDS * 1000);
      channel.onopen = () => {
        clearTimeout(timer);
        this.isOpen = true;
        resolve();
      };
      channel.onmessage = ({ data }) => this.hooks.onMessage(JSON.parse(data));
      channel.onclose = () => this.report();
      peer.onconnectionstatechange = () => {
        if (!["failed", "closed"].includes(peer.connectionState)) return;
        clearTimeout(timer);
        fail();
        this.report();
      };
    });
  }

  /** Tell once that an open call is over. */
  report() {
    if (!this.isOpen) return;
    this.isOpen = false;
    this.hooks.onClosed({ code: 1006 });
  }

  play(track) {
    this.audio ??= new Audio();
    this.audio.srcObject = new MediaStream([track]);
    this.audio.play().catch(() => {});
  }

  /** Candidates that come while a PATCH is under way go together in the next one. */
  addCandidate(candidate) {
    this.candidates.push(candidate ? `a=${candidate.candidate}` : "a=end-of-candidates");
    this.patching = this.patching.then(() => this.patch());
  }

  async patch() {
    const lines = this.candidates.splice(0);
    if (!lines.length || this.isClosed || !this.resource) return;
    const value = (name) => new RegExp(`^a=${name}:(.*)$`, "m").exec(this.offer.sdp)?.[1].trim();
    const fragment = [
      `a=ice-ufrag:${value("ice-ufrag")}`,
      `a=ice-pwd:${value("ice-pwd")}`,
      "m=audio 9 UDP/TLS/RTP/SAVPF 0",
      `a=mid:${value("mid")}`,
      ...lines.filter((line) => line !== "a="),
      "",
    ].join("\r\n");
    const headers = { ...this.headers, "Content-Type": SDP_FRAGMENT, ...(this.etag ? { "If-Match": this.etag } : {}) };
    // A server that does without (it may learn our address from our own checks) is no reason to end the call.
    await fetch(this.resource, { method: "PATCH", headers, body: fragment }).catch(() => {});
  }

  /** Whether the browser finds nobody at the other end, for now. */
  get isFailing() {
    return ["disconnected", "failed"].includes(this.peer?.connectionState);
  }

  sendMessage(message) {
    if (this.channel?.readyState !== "open" || this.channel.bufferedAmount > MAX_WAITING_BYTES) return false;
    this.channel.send(JSON.stringify(message));
    return true;
  }

  /** The track carries the audio; there is nothing to send piece by piece. */
  sendAudio() {
    return true;
  }

  /** @returns {Promise<{packetsLost?: number, roundTripMs?: number}>} as the far end reports them */
  async statistics() {
    const figures = {};
    for (const entry of (await this.peer.getStats()).values()) {
      if (entry.type === "remote-inbound-rtp") figures.packetsLost = entry.packetsLost;
      if (entry.type === "candidate-pair" && entry.nominated && entry.currentRoundTripTime !== undefined) {
        figures.roundTripMs = entry.currentRoundTripTime * 1000;
      }
    }
    return figures;
  }

  close() {
    if (this.isClosed) return;
    this.deleteResource();
    this.abandon();
  }

  /** Let go of a connection that is lost, without a goodbye: the call goes on elsewhere. */
  abandon() {
    this.isClosed = true;
    this.audio?.pause();
    this.report();
    this.peer?.close();
  }

  deleteResource() {
    // "keepalive" lets the request outlive a page that is being left.
    if (!this.resource) return;
    fetch(this.resource, { method: "DELETE", headers: this.headers, keepalive: true }).catch(() => {});
  }
}

/**
 * `Link: <turn:host?transport=udp>; rel="ice-server"; username="u"; credential="c"; credential-type="password"`
 * (RFC 9725, section 4.6). @param {string | null} header @returns {RTCIceServer[]}
 */
export function parseIceServers(header) {
  const servers = [];
  for (const [, url, parameters] of (header ?? "").matchAll(/<([^>]*)>((?:\s*;\s*[\w-]+\s*=\s*(?:"(?:[^"\\]|\\.)*"|[^\s",;]+))*)/g)) {
    const fields = {};
    for (const [, name, quoted, bare] of parameters.matchAll(/([\w-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s",;]+))/g)) {
      fields[name.toLowerCase()] = quoted === undefined ? bare : quoted.replace(/\\(.)/g, "$1");
    }
    if (!(fields.rel ?? "").split(/\s+/).includes("ice-server")) continue;
    servers.push({ urls: url, ...(fields.username ? { username: fields.username, credential: fields.credential } : {}) });
  }
  return servers;
}
