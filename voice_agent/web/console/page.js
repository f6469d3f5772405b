/** The console page: what is pressed goes to the client, what the client tells is shown. */
import { Captions } from "./captions.js";
import { clock, toJson, toSrt, toText } from "./transcript.js";
import { VoiceAgentClient, isWebRtcOffered } from "./voice-agent-client.js";
import { Waveform } from "./waveform.js";
import { wordEnding, wordError, wordNotice, wordProblem } from "./wording.js";

const STATES = { idle: "Ready", connecting: "Connecting…", live: "On a call", ending: "Finishing…" };
const LEVEL_TOLD_MS = 500; // how often a screen reader may hear a new level
const MAX_NOTICES = 3;

const byId = (id) => document.getElementById(id);
const client = new VoiceAgentClient();
const captions = new Captions({
  list: byId("captions"),
  scroll: byId("scroll"),
  empty: byId("empty"),
  spoken: byId("spoken"),
});
const waveform = new Waveform(byId("waveform"));
const downloads = [...document.querySelectorAll("[data-download]")];
let spokenUtterances = new Set();
let record = null;
let beganAt = 0;
let timer = 0;
let levelToldAt = 0;

/* What the person does */

byId("call").addEventListener("click", async () => {
  captions.clear();
  byId("notices").replaceChildren();
  spokenUtterances = new Set();
  record = null;
  showFigures(client.figures);
  setDownloads();
  try {
    await client.connect({
      transport: document.querySelector("input[name=wire]:checked").value,
      deviceId: byId("device").value,
      language: byId("language").value,
      partials: byId("partials").checked,
    });
    byId("hang-up").focus();
    await listDevices();
  } catch (problem) {
    if (problem.code !== "cancelled") notify(wordProblem(problem), { isBad: true });
    byId("call").focus();
  }
});

byId("hang-up").addEventListener("click", () => client.hangUp());

byId("mute").addEventListener("click", () => {
  client.mute(!client.isMuted);
  showMuted();
});

byId("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const field = byId("text");
  const text = field.value.trim();
  if (text && client.sendText(text)) field.value = "";
});

byId("theme").addEventListener("click", () => setTheme(isDark() ? "light" : "dark"));

for (const button of downloads) button.addEventListener("click", () => download(button.dataset.download));

for (const id of ["device", "partials"]) byId(id).addEventListener("change", remember);
byId("wires").addEventListener("change", remember);
navigator.mediaDevices?.addEventListener("devicechange", listDevices);

/* What the client tells */

client.addEventListener("state", ({ detail: { state } }) => showState(state));
client.addEventListener("level", ({ detail }) => showLevel(detail));
client.addEventListener("figures", ({ detail }) => showFigures(detail));
client.addEventListener("problem", ({ detail }) => notify(wordProblem(detail), { isBad: true }));
client.addEventListener("ready", ({ detail }) => {
  byId("figure-session").textContent = detail.session;
});
client.addEventListener("speech_started", ({ detail }) => {
  spokenUtterances.add(detail.utterance);
  const at = client.timeOf(detail.start);
  if (at !== null) waveform.startSpeech(at);
});
client.addEventListener("speech_stopped", ({ detail }) => {
  const at = client.timeOf(detail.end);
  if (at !== null) waveform.stopSpeech(at);
});
client.addEventListener("partial", ({ detail }) => captions.partial(detail));
client.addEventListener("final", ({ detail }) => {
  captions.final(detail, !spokenUtterances.has(detail.utterance));
  setDownloads();
});
client.addEventListener("notice", ({ detail }) => {
  if (detail.code === "no_words") captions.drop(detail.detail.utterance);
  const words = wordNotice(detail);
  if (words) notify(words);
});
client.addEventListener("error", ({ detail }) => notify(wordError(detail), { isBad: true }));
client.addEventListener("ended", ({ detail }) => {
  record = detail.record;
  captions.dropAllPartials();
  const { text, isBad } = wordEnding(detail.reason);
  if (isBad) notify(text, { isBad });
  byId("status").textContent = text;
  byId("call").focus();
});

/* Showing */

function showState(state) {
  document.body.dataset.state = state;
  byId("status").textContent = STATES[state];
  const isIdle = state === "idle";
  byId("call").hidden = !isIdle;
  byId("mute").hidden = isIdle;
  byId("hang-up").hidden = isIdle;
  byId("hang-up").disabled = state === "ending";
  byId("hang-up").lastElementChild.textContent = state === "connecting" ? "Cancel" : "Hang up";
  byId("mute").disabled = state === "ending";
  for (const control of byId("composer").elements) control.disabled = state !== "live";
  for (const id of ["device", "language", "partials", "wires"]) byId(id).disabled = !isIdle;
  clearInterval(timer);
  if (state === "connecting") {
    byId("figure-session").textContent = "–";
    waveform.run();
    document.body.dataset.heard = "";
  } else if (state === "live") {
    beganAt = performance.now();
    byId("timer").hidden = false;
    showTimer();
    timer = setInterval(showTimer, 250);
  } else if (isIdle) {
    waveform.halt();
    showLevel({ peak: 0, at: performance.now() });
  }
}

function showTimer() {
  byId("timer").textContent = clock((performance.now() - beganAt) / 1000);
}

function showLevel(level) {
  // Decibels over a 50 dB range: as loud as it sounds, not as high as the samples are.
  const share = Math.max(0, Math.min(1, 1 + (20 * Math.log10(level.peak || 1e-9)) / 50));
  byId("level").firstElementChild.style.transform = `scaleX(${share.toFixed(3)})`;
  if (client.state !== "idle") waveform.add(level);
  if (level.at - levelToldAt > LEVEL_TOLD_MS || client.state === "idle") {
    levelToldAt = level.at;
    byId("level").setAttribute("aria-valuenow", String(Math.round(share * 100)));
  }
}

function showMuted() {
  const { isMuted } = client;
  byId("mute").setAttribute("aria-pressed", String(isMuted));
  byId("mute").lastElementChild.textContent = isMuted ? "Muted" : "Mute";
  document.body.toggleAttribute("data-muted", isMuted);
}

function showFigures({ finalLatencyMs, medianFinalLatencyMs, roundTripMs, droppedMs, packetsLost }) {
  byId("figure-latency").textContent = milliseconds(finalLatencyMs);
  byId("figure-median").textContent = milliseconds(medianFinalLatencyMs);
  byId("figure-round-trip").textContent = milliseconds(roundTripMs);
  byId("figure-dropped").textContent = milliseconds(droppedMs);
  byId("figure-packets").textContent = packetsLost ?? "–";
}

function milliseconds(value) {
  return value === null ? "–" : `${value < 10 && value > 0 ? value.toFixed(1) : Math.round(value)} ms`;
}

function notify(text, { isBad = false } = {}) {
  const notices = byId("notices");
  if ([...notices.children].some((shown) => shown.firstElementChild.textContent === text)) return;
  const notice = document.createElement("div");
  notice.className = isBad ? "notice is-bad" : "notice";
  const words = document.createElement("span");
  words.textContent = text;
  const dismiss = document.createElement("button");
  dismiss.type = "button";
  dismiss.className = "quiet";
  dismiss.textContent = "Dismiss";
  dismiss.addEventListener("click", () => notice.remove());
  notice.append(words, dismiss);
  notices.append(notice);
  while (notices.children.length > MAX_NOTICES) notices.firstElementChild.remove();
}

/* Downloads */

function setDownloads() {
  for (const button of downloads) button.disabled = captions.finals.length === 0;
}

function download(kind) {
  const files = {
    txt: () => [toText(captions.finals), "text/plain;charset=utf-8"],
    srt: () => [toSrt(captions.finals), "application/x-subrip"],
    json: () => [toJson(captions.finals, record), "application/json"],
  };
  const [text, type] = files[kind]();
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = document.createElement("a");
  link.href = url;
  link.download = `transcript.${kind}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/* Choices, kept by the browser where it keeps anything */

function remember() {
  const choices = {
    wire: document.querySelector("input[name=wire]:checked").value,
    device: byId("device").value,
    partials: byId("partials").checked,
    theme: document.documentElement.dataset.theme ?? "",
  };
  try {
    localStorage.setItem("voice-agent", JSON.stringify(choices));
  } catch {
    // Storage may be forbidden; then the choices last as long as the page.
  }
}

function recall() {
  try {
    return JSON.parse(localStorage.getItem("voice-agent")) ?? {};
  } catch {
    return {};
  }
}

async function listDevices(chosen = byId("device").value) {
  const devices = (await navigator.mediaDevices?.enumerateDevices?.()) ?? [];
  const options = devices
    .filter(({ kind, deviceId }) => kind === "audioinput" && deviceId && deviceId !== "default")
    .map(({ deviceId, label }, at) => new Option(label || `Microphone ${at + 1}`, deviceId));
  const select = byId("device");
  const wanted = typeof chosen === "string" ? chosen : select.value;
  select.replaceChildren(new Option("Default microphone", ""), ...options);
  select.value = options.some(({ value }) => value === wanted) ? wanted : "";
}

function isDark() {
  const { theme } = document.documentElement.dataset;
  return theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function setTheme(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
  byId("theme").setAttribute("aria-pressed", String(isDark()));
  if (theme) remember();
}

async function offerWires(chosen) {
  const isOffered = await isWebRtcOffered(client.server);
  document.querySelector("input[value=webrtc]").disabled = !isOffered;
  byId("wire-note").hidden = isOffered;
  if (isOffered && chosen) document.querySelector(`input[name=wire][value=${chosen}]`).checked = true;
}

const choices = recall();
byId("partials").checked = choices.partials ?? true;
setTheme(choices.theme);
listDevices(choices.device);
offerWires(["websocket", "webrtc"].includes(choices.wire) ? choices.wire : "");
