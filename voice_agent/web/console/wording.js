/** What happened, in words for people. Texts say what to do next. */

/** How it is, by the client's state. */
export const STATES = {
  idle: "Ready",
  connecting: "Connecting…",
  live: "On a call",
  reconnecting: "Reconnecting…",
  muted: "On a call, muted",
  ending: "Finishing…",
};

/** What stands in the place of a transcript that is empty. */
export const EMPTY = { idle: "Nothing has been said yet.", live: "Listening. Speak, and your words appear here." };

const PROBLEMS = {
  permission_denied: "The browser may not use the microphone. Allow it in the address bar’s site settings, then call again.",
  no_microphone: "No microphone was found. Connect one, then call again.",
  microphone_busy: "The microphone can’t be opened. Close other programs that use it, then call again.",
  microphone_lost: "The microphone was disconnected. Hang up, choose another one, and call again.",
  insecure_page: "Browsers give the microphone to secure pages only. Open this page over https, or on localhost.",
  unsupported_browser: "This browser can’t capture audio for a call. Use a current Chrome, Edge, Firefox or Safari.",
  server_full: "All lines are busy. Try again in a moment.",
  server_draining: "The server is about to restart and takes no new calls. Try again in a minute.",
  server_unreachable: "The server can’t be reached. Check the network, or whether the server is running.",
  resume_refused: "The connection was lost, and the server could not take the call up again. What was recognised until then is kept below.",
  server_silent: "The server has not answered for a while. The network may be slow.",
  network_lost: "The connection was lost. What was recognised until then is kept below.",
  no_answer: "The server did not answer in time. Try again.",
  no_media_path: "No way was found for the audio to travel by WebRTC. Choose WebSocket instead.",
  webrtc_not_offered: "This server takes no WebRTC calls. Choose WebSocket instead.",
  key_needed: "This server takes calls only with a key. Enter yours, or ask whoever runs the server for one.",
  key_refused: "The server does not know this key, or it is no longer good. Check it, or ask whoever runs the server.",
  key_forbidden: "This key may not make calls. Ask whoever runs the server for one that may.",
  origin_refused: "This server takes no calls from pages of this site. Whoever runs it can allow the site.",
  too_many_calls: "Too many calls in a short time, or at once. Wait a moment, then call again.",
  too_many_failures: "Too many wrong keys came from here. Wait some minutes, then call again.",
  call_refused: "The server did not take the call.",
  call_failed: "The call could not be set up.",
};

/** Error codes of the protocol (docs/errors.md) that a person at this page can meet. */
const ERRORS = {
  recognition_failed: "One utterance could not be recognised. The call goes on.",
  internal_error: "The server had a fault and ended the call. Its log has the reason.",
  max_duration: "The call has lasted as long as a call may.",
  idle_timeout: "Nothing was heard for a long time.",
  audio_rate_exceeded: "Audio came faster than it can be spoken, so the server ended the call.",
  transcript_too_large: "The transcript has become as long as one may be.",
  rate_exceeded: "Too much was sent at once, so the server ended the call.",
  start_timeout: "The server waited for the call to begin, and gave up.",
};

/** Limits of a running call (docs/limits.md) that a person at this page comes near to. */
const LIMITS = {
  idle: (left) => `Nothing has been heard for a while. The call ends in ${left} seconds unless you say something.`,
  duration: (left) => `The call ends in ${left} seconds: it has nearly lasted as long as a call may.`,
  transcript: () => "The transcript is nearly as long as one may be. Finish soon, or call again.",
  audio: () => "Audio comes faster than it can be heard.",
  messages: () => "Messages come faster than they can be read.",
};

/** What a person reads while the connection is away. */
export const OUTAGE = {
  websocket: "The connection was lost. Speak on if you like: the last 30 seconds are kept, and heard when it is back.",
  webrtc: "The connection was lost. Wait a moment: what you say now may not be heard.",
};

/** @param {{lostSeconds: number}} resumed of the event @returns {string} */
export function wordResumed({ lostSeconds }) {
  if (lostSeconds < 0.05) return "The connection is back. Nothing was lost.";
  return `The connection is back. ${lostSeconds.toFixed(1)} s of what was said were not heard.`;
}

const ENDINGS = {
  stopped: "Call ended.",
  hangup: "Call ended.",
  idle_timeout: "The call ended because nothing was heard for a long time.",
  max_duration: "The call ended because it reached the longest time a call may last.",
  ended_by_operator: "Somebody who runs the server ended this call.",
  drain: "The server restarted and ended the call. Everything said until then is below.",
  caller_error: "The server ended the call.",
  internal_error: "The server had a fault and ended the call.",
  cancelled: "The server ended the call.",
  taken_over: "The call goes on in another place.",
};

/** @param {{code: string, message: string}} problem a CallProblem */
export function wordProblem({ code, message }) {
  return PROBLEMS[code] ?? `Something went wrong (${message}).`;
}

/** @param {{code: string, message: string}} error an `error` message of the server */
export function wordError({ code, message }) {
  return ERRORS[code] ?? `The server reports: ${message}.`;
}

/** @param {object} notice a `notice` message of the server @returns {string | null} null when it needs no words */
export function wordNotice({ code, message, detail }) {
  switch (code) {
    case "no_words":
      return null; // the caption that went away tells it
    case "draining":
      return `The server is about to restart. Finish within ${Math.round(detail.grace_seconds)} seconds.`;
    case "limit_near":
      return LIMITS[detail.limit]?.(Math.round(detail.allowed - detail.used)) ?? message;
    case "overflow":
      return `${(detail.dropped_ms / 1000).toFixed(1)} s of audio came too fast to be heard and were left out.`;
    default:
      return message;
  }
}

/** @param {string} reason of `ended` @returns {{text: string, isBad: boolean}} */
export function wordEnding(reason) {
  const text = ENDINGS[reason] ?? PROBLEMS[reason] ?? "Call ended.";
  return { text, isBad: !["stopped", "hangup"].includes(reason) };
}
