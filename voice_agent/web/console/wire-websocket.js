import { CallProblem } from "./problems.js";

const MAX_WAITING_SECONDS = 3;
const BYTES_PER_SAMPLE = 2;

/**
 * @typedef {object} WireHooks
 * @property {(message: object) => void} onMessage a protocol message, parsed
 * @property {(pcm: ArrayBuffer) => void} onAudio audio to be played, in the call's format
 * @property {(close: {code: number, problem?: CallProblem}) => void} onClosed once, after `open` has succeeded
 */

/** A call over a WebSocket: JSON in text messages, `pcm_s16le` mono in binary ones. */
export class WebSocketWire {
  /** @param {WireHooks} hooks */
  constructor(hooks) {
    this.hooks = hooks;
    this.socket = null;
    this.isClosed = false;
  }

  /**
   * @param {{server: string, access: import("./access.js").Access, sampleRate: number, language: string, partials: boolean, resume?: object}} options
   * @throws {import("./problems.js").CallProblem} with the code that says why there is no call
   */
  async open({ server, access, sampleRate, language, partials, resume }) {
    const url = new URL("v1/ws", server);
    url.protocol = url.protocol.replace("http", "ws");
    const protocols = await access.protocols(resume?.session);
    if (this.isClosed) return; // hung up meanwhile
    const socket = new WebSocket(url, protocols);
    this.socket = socket;
    socket.binaryType = "arraybuffer";
    this.maxWaitingBytes = MAX_WAITING_SECONDS * sampleRate * BYTES_PER_SAMPLE;
    const refused = await new Promise((resolve) => {
      socket.onopen = () => resolve(false);
      socket.onclose = () => resolve(true);
    });
    if (this.isClosed) throw new CallProblem("cancelled");
    if (refused) throw await access.explainRefusal();
    socket.onmessage = ({ data }) => {
      if (typeof data === "string") this.hooks.onMessage(JSON.parse(data));
      else this.hooks.onAudio(data);
    };
    socket.onclose = ({ code }) => this.hooks.onClosed({ code });
    const format = { encoding: "pcm_s16le", sample_rate: sampleRate, channels: 1 };
    this.sendMessage({ type: "start", ...format, language, partials, ...(resume ? { resume } : {}) });
  }

  /** TCP does not tell. */
  get isFailing() {
    return false;
  }

  /** @param {object} message @returns {boolean} whether it could be sent */
  sendMessage(message) {
    if (this.socket?.readyState !== WebSocket.OPEN) return false;
    this.socket.send(JSON.stringify(message));
    return true;
  }

  /**
   * @param {Int16Array} pcm
   * @returns {boolean} false when the network takes nothing any more and the piece was dropped
   */
  sendAudio(pcm) {
    if (this.socket?.readyState !== WebSocket.OPEN) return false;
    if (this.socket.bufferedAmount > this.maxWaitingBytes) return false;
    this.socket.send(pcm);
    return true;
  }

  /** What the wire itself can tell; a WebSocket loses nothing and tells nothing. */
  async statistics() {
    return {};
  }

  close() {
    this.isClosed = true;
    this.socket?.close(1000);
  }

  /** Let go of a connection that is lost; the call goes on elsewhere. */
  abandon() {
    this.close();
  }
}
