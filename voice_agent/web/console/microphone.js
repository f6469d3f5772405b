import { CallProblem } from "./problems.js";

const MAX_SAMPLE_RATE = 48000; // the protocol's limit
const WORKLET_URL = new URL("./capture-worklet.js", import.meta.url);

/** DOMException names of getUserMedia (Media Capture and Streams, section 10.2), as problems of a call. */
const PROBLEMS = {
  NotAllowedError: "permission_denied",
  SecurityError: "permission_denied",
  NotFoundError: "no_microphone",
  OverconstrainedError: "no_microphone",
  NotReadableError: "microphone_busy",
  AbortError: "microphone_busy",
};

/**
 * @typedef {object} Piece 20 ms of the microphone
 * @property {Int16Array} pcm mono samples at `sampleRate`
 * @property {number} peak loudest sample, 0..1
 * @property {number} rms root mean square, 0..1
 */

/** The microphone of one call: an open device, cut into pieces of 20 ms at the device's own rate. */
export class Microphone {
  /**
   * Ask for the microphone and begin to listen; must follow a click, or browsers won't play or capture audio.
   *
   * @param {{deviceId?: string, onPiece: (piece: Piece) => void, onLost: () => void}} options
   * @returns {Promise<Microphone>}
   * @throws {CallProblem} insecure_page, unsupported_browser, server_unreachable, permission_denied, no_microphone, microphone_busy
   */
  static async open({ deviceId, onPiece, onLost }) {
    if (!globalThis.isSecureContext) throw new CallProblem("insecure_page");
    if (!navigator.mediaDevices?.getUserMedia || !globalThis.AudioWorkletNode) {
      throw new CallProblem("unsupported_browser");
    }
    const stream = await requestStream(deviceId);
    let context;
    try {
      context = new AudioContext({ latencyHint: "interactive" });
      if (context.sampleRate > MAX_SAMPLE_RATE) {
        await context.close();
        context = new AudioContext({ latencyHint: "interactive", sampleRate: MAX_SAMPLE_RATE });
      }
      await context.audioWorklet.addModule(WORKLET_URL);
      await context.resume();
    } catch (error) {
      stopTracks(stream);
      await context?.close().catch(() => {});
      // addModule tells with this name that the file could not be fetched.
      const code = error.name === "AbortError" ? "server_unreachable" : "unsupported_browser";
      throw new CallProblem(code, String(error), { cause: error });
    }
    return new Microphone(stream, context, onPiece, onLost);
  }

  /** @private */
  constructor(stream, context, onPiece, onLost) {
    /** For a peer connection to send. @type {MediaStream} */
    this.stream = stream;
    /** Also plays what the server says. @type {AudioContext} */
    this.context = context;
    this.sampleRate = context.sampleRate;
    const source = context.createMediaStreamSource(stream);
    this.node = new AudioWorkletNode(context, "voice-agent-capture", {
      channelCount: 1,
      channelCountMode: "explicit",
      channelInterpretation: "speakers",
    });
    this.node.port.onmessage = ({ data }) => onPiece(data);
    // The node writes no output; a node that leads nowhere would not be run by every browser.
    source.connect(this.node).connect(context.destination);
    stream.getAudioTracks()[0].addEventListener("ended", onLost);
  }

  /** A muted track gives silence at the source, on either wire. */
  set isMuted(muted) {
    for (const track of this.stream.getAudioTracks()) track.enabled = !muted;
  }

  /** Which device the browser opened. */
  get deviceId() {
    return this.stream.getAudioTracks()[0]?.getSettings().deviceId ?? "";
  }

  /** Let go of the device; the browser's recording mark goes out. */
  stop() {
    this.node.port.onmessage = null;
    stopTracks(this.stream);
    this.context.close().catch(() => {});
  }
}

async function requestStream(deviceId) {
  const audio = {
    channelCount: { ideal: 1 },
    echoCancellation: true,
    autoGainControl: true,
    // The recogniser knows noise; what a suppressor leaves of quiet consonants it does not.
    noiseSuppression: false,
    ...(deviceId ? { deviceId: { exact: deviceId } } : {}),
  };
  try {
    return await navigator.mediaDevices.getUserMedia({ audio });
  } catch (error) {
    throw new CallProblem(PROBLEMS[error.name] ?? "microphone_busy", String(error), { cause: error });
  }
}

function stopTracks(stream) {
  for (const track of stream.getTracks()) track.stop();
}
