/** A transcript as a file: from finals (the protocol's `final` messages) to text, and to the person's disk. */

const LINE_CHARACTERS = 42; // what broadcasters allow
const CUE_LINES = 2;
const KEPT_FOR_SAVING_MS = 10_000;

/** @param {"txt" | "srt" | "json"} kind @param {object[]} finals @param {object | null} record the `closed` message */
export function saveTranscript(kind, finals, record) {
  const [text, type] = {
    txt: () => [toText(finals), "text/plain;charset=utf-8"],
    srt: () => [toSrt(finals), "application/x-subrip"],
    json: () => [toJson(finals, record), "application/json"],
  }[kind]();
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = document.createElement("a");
  link.href = url;
  link.download = `transcript.${kind}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), KEPT_FOR_SAVING_MS);
}

/** @param {object[]} finals @returns {string} one line an utterance, with its time */
export function toText(finals) {
  return finals.map((final) => `[${clock(final.start)}] ${oneLine(final.text)}\n`).join("");
}

/** @param {object[]} finals @param {object | null} record the `closed` message @returns {string} */
export function toJson(finals, record) {
  return `${JSON.stringify({ protocol: 1, finals, closed: record }, null, 2)}\n`;
}

/**
 * SubRip: cues of at most two lines of 42 characters, in order and without overlap. A final that needs several cues
 * shares its time out by the number of characters.
 *
 * @param {object[]} finals @returns {string}
 */
export function toSrt(finals) {
  const cues = [];
  let freeFromMs = 0;
  for (const final of finals) {
    const lines = wrap(oneLine(final.text));
    const total = lines.join("").length;
    let before = 0;
    for (let at = 0; at < lines.length; at += CUE_LINES) {
      const group = lines.slice(at, at + CUE_LINES);
      const moment = (share) => Math.round((final.start + ((final.end - final.start) * share) / total) * 1000);
      const startMs = Math.max(moment(before), freeFromMs);
      before += group.join("").length;
      freeFromMs = Math.max(moment(before), startMs + 1);
      const body = group.join("\n").replaceAll("-->", "->");
      cues.push(`${cues.length + 1}\n${srtClock(startMs)} --> ${srtClock(freeFromMs)}\n${body}\n`);
    }
  }
  return cues.join("\n");
}

/** @param {number} seconds @returns {string} `m:ss`, or `h:mm:ss` */
export function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const tail = `${String(rest).padStart(2, "0")}`;
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${tail}` : `${minutes}:${tail}`;
}

function srtClock(totalMs) {
  const part = (value, width = 2) => String(value).padStart(width, "0");
  const seconds = Math.floor(totalMs / 1000);
  return `${part(Math.floor(seconds / 3600))}:${part(Math.floor(seconds / 60) % 60)}:${part(seconds % 60)},${part(totalMs % 1000, 3)}`;
}

function wrap(text) {
  const lines = [];
  for (const word of text.split(" ").filter(Boolean)) {
    const line = lines.at(-1);
    if (line !== undefined && line.length + 1 + word.length <= LINE_CHARACTERS) lines[lines.length - 1] = `${line} ${word}`;
    else lines.push(word);
  }
  return lines;
}

/** Control characters and line breaks become spaces: a blank line would end the cue. */
function oneLine(text) {
  return text.replace(/[\u0000-\u001f\u007f-\u009f\s]+/g, " ").trim();
}
