/** The console page: what is pressed goes to the client, what the client tells is shown. */
import { Captions } from "./captions.js";
import { Choices } from "./choices.js";
import { KeyForm } from "./key-form.js";
import { Notices } from "./notices.js";
import { clock, saveTranscript } from "./transcript.js";
import { VoiceAgentClient } from "./voice-agent-client.js";
import { Waveform } from "./waveform.js";
import { EMPTY, OUTAGE, STATES, wordEnding, wordError, wordNotice, wordProblem, wordResumed } from "./wording.js";

const LEVEL_TOLD_MS = 500; // how often a screen reader may hear a new level
const COPIED_MS = 2000;

const byId = (id) => document.getElementById(id);
const title = document.title;
const client = new VoiceAgentClient();
const captions = new Captions({
  list: byId("captions"),
  scroll: byId("scroll"),
  empty: byId("empty"),
  spoken: byId("spoken"),
});
const notices = new Notices(byId("notices"));
const waveform = new Waveform(byId("waveform"));
const choices = new Choices(
  {
    wires: byId("wires"),
    wireNote: byId("wire-note"),
    device: byId("device"),
    language: byId("language"),
    partials: byId("partials"),
    theme: byId("theme"),
    summary: byId("summary"),
  },
  client.server,
);
const keyForm = new KeyForm(
  { form: byId("key-form"), field: byId("key"), kept: byId("key-kept"), forget: byId("forget-key") },
  client,
  () => byId("call").click(),
);
const downloads = [...document.querySelectorAll("[data-download]")];
let record = null; // the close record of the call that is shown
let isSaved = true;
let drainWords = "";
let beganAt = null; // a resumed call goes on with its clock
let timer = 0;
let levelToldAt = 0;

/* What the person does */

byId("call").addEventListener("click", async () => {
  notices.clear();
  putAway();
  showFigures(client.figures);
  try {
    await client.connect(choices.options);
    moveFocus(byId("hang-up"));
    await choices.listDevices();
  } catch (problem) {
    waveform.clear();
    if (problem.code !== "cancelled") notices.tell(wordProblem(problem), { isBad: true });
    if (!keyForm.helps(problem)) moveFocus(byId("call"));
  }
});

byId("hang-up").addEventListener("click", () => client.hangUp());

byId("mute").addEventListener("click", () => {
  client.mute(!client.isMuted);
  byId("mute").setAttribute("aria-pressed", String(client.isMuted));
  document.body.toggleAttribute("data-muted", client.isMuted);
  showStatus();
});

byId("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const field = byId("text");
  const text = field.value.trim();
  if (text && client.sendText(text)) field.value = "";
});

for (const button of downloads) {
  button.addEventListener("click", () => {
    saveTranscript(button.dataset.download, captions.finals, record);
    isSaved = client.state === "idle";
  });
}

byId("copy-session").addEventListener("click", async ({ currentTarget: button }) => {
  await navigator.clipboard.writeText(byId("figure-session").textContent);
  button.textContent = "Copied";
  setTimeout(() => (button.textContent = "Copy"), COPIED_MS);
});

/* What the client tells */

client.addEventListener("state", ({ detail: { state } }) => showState(state));
client.addEventListener("level", ({ detail }) => showLevel(detail));
client.addEventListener("figures", ({ detail }) => showFigures(detail));
client.addEventListener("problem", ({ detail }) => notices.tell(wordProblem(detail), { isBad: true }));
client.addEventListener("ready", ({ detail }) => {
  byId("figure-session").textContent = detail.session;
  byId("copy-session").hidden = false;
});
client.addEventListener("speech_started", ({ detail }) => {
  captions.speechStarted(detail.utterance);
  const at = client.timeOf(detail.start);
  if (at !== null) waveform.startSpeech(at);
});
client.addEventListener("speech_stopped", ({ detail }) => {
  const at = client.timeOf(detail.end);
  if (at !== null) waveform.stopSpeech(at);
});
client.addEventListener("partial", ({ detail }) => captions.partial(detail));
client.addEventListener("final", ({ detail }) => {
  captions.final(detail);
  isSaved = false;
  setDownloads();
});
client.addEventListener("notice", ({ detail }) => {
  if (detail.code === "no_words") captions.drop(detail.detail.utterance);
  const words = wordNotice(detail);
  if (words) notices.tell(words);
  if (detail.code === "draining") drainWords = words;
});
client.addEventListener("reconnecting", () => {
  captions.dropAllPartials(); // they are said anew by the next connection
  notices.tell(OUTAGE[client.transport], { isBad: true }); // once, however often it is tried
});
client.addEventListener("resumed", ({ detail }) => {
  withdrawOutage();
  notices.withdraw(drainWords); // it was another server's
  notices.tell(wordResumed(detail), { isBad: detail.lostSeconds >= 0.05 });
});
client.addEventListener("error", ({ detail }) => notices.tell(wordError(detail), { isBad: true }));
client.addEventListener("ended", ({ detail }) => {
  record = detail.record;
  captions.dropAllPartials();
  withdrawOutage();
  const { text, isBad } = wordEnding(detail.reason);
  if (isBad) notices.tell(text, { isBad });
  byId("status").textContent = text;
  moveFocus(byId("call"));
});

/* Showing */

function showState(state) {
  document.body.dataset.state = state;
  document.title = ["live", "reconnecting"].includes(state) ? `${STATES[state]} – ${title}` : title;
  showStatus();
  const isIdle = state === "idle";
  byId("call").hidden = !isIdle;
  byId("mute").hidden = isIdle;
  byId("hang-up").hidden = isIdle;
  byId("hang-up").disabled = state === "ending";
  byId("hang-up").lastElementChild.textContent = state === "connecting" ? "Cancel" : "Hang up";
  byId("mute").disabled = state === "ending";
  for (const control of byId("composer").elements) control.disabled = state !== "live";
  choices.isFixed = !isIdle;
  byId("empty").textContent = state === "live" ? EMPTY.live : EMPTY.idle;
  if (state === "connecting" || isIdle || state === "ending") clearInterval(timer);
  if (state === "connecting") {
    byId("figure-session").textContent = "–";
    byId("copy-session").hidden = true;
    delete document.body.dataset.heard;
    waveform.run();
    beganAt = null;
  } else if (state === "live" && beganAt === null) {
    document.body.dataset.heard = "";
    beganAt = performance.now();
    byId("timer").hidden = false;
    showTimer();
    timer = setInterval(showTimer, 250);
  } else if (isIdle) {
    waveform.halt();
    showLevel({ peak: 0, at: performance.now() });
  }
}

function withdrawOutage() {
  for (const text of Object.values(OUTAGE)) notices.withdraw(text);
}

function showStatus() {
  const { state, isMuted } = client;
  byId("status").textContent = state === "live" && isMuted ? STATES.muted : STATES[state];
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

/** Only when what had it is gone: nobody is torn away from what they are reading or writing. */
function moveFocus(element) {
  const holder = document.activeElement;
  if (!holder || holder === document.body || holder.closest("[hidden]") || holder.disabled) element.focus();
}

/* The transcript */

/** Begin an empty transcript; words of the call before that nobody saved can still be saved. */
function putAway() {
  if (!isSaved) {
    const [finals, its] = [captions.finals, record];
    notices.tell("Your last call’s transcript made room for this call.", {
      action: { label: "Save it", act: () => saveTranscript("txt", finals, its) },
    });
  }
  captions.clear();
  record = null;
  isSaved = true;
  setDownloads();
}

function setDownloads() {
  for (const button of downloads) button.disabled = captions.finals.length === 0;
}
