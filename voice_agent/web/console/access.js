import { CallProblem } from "./problems.js";

const TICKET_PROTOCOL = "voice-agent.ticket.";
const RESUME_PROTOCOL = "voice-agent.resume.";
const PROTOCOL = "voice-agent.v1";

/** Refusals of the server, by the code of its problem document (docs/errors.md), as problems of a call. */
const REFUSALS = {
  draining: "server_draining",
  forbidden: "key_forbidden",
  forbidden_origin: "origin_refused",
  full: "server_full",
  rate_limited: "too_many_calls",
  too_many_calls: "too_many_calls",
  too_many_failures: "too_many_failures",
};

/** The one answer to a wish to resume that may be another one in a moment. */
const NOT_NOW = "resume_unavailable";

/** @param {string} code of an error that answers a wish to resume @returns {string} of the problem */
export function resumeProblem(code) {
  return code === NOT_NOW ? "server_unreachable" : "resume_refused";
}

/**
 * How a client shows who it is (docs/access.md).
 *
 * A browser can't set headers on a WebSocket: there a ticket is shown, which is good for one call. It is asked for with
 * the key, or comes from `getTicket`: then this page never holds a key.
 */
export class Access {
  /** @param {string} server @param {{key?: Key | null, getTicket?: (() => Promise<string>) | null}} [options] */
  constructor(server, { key = null, getTicket = null } = {}) {
    this.server = server;
    this.key = key;
    this.getTicket = getTicket;
  }

  /** For requests; empty without a key. @returns {Promise<Record<string, string>>} */
  async headers() {
    const key = typeof this.key === "function" ? await this.key() : this.key;
    return key ? { Authorization: `Bearer ${key}` } : {};
  }

  /** For a WebSocket that is opened next; empty without a key or a session to `resume`. @param {string} [resumes] @returns {Promise<string[]>} @throws {CallProblem} */
  async protocols(resumes) {
    const ticket = this.getTicket ? await this.getTicket() : await this.askForTicket();
    const shown = ticket ? [TICKET_PROTOCOL + ticket] : [];
    // The server has room for a session's next connection where it still has the former one.
    if (resumes) shown.push(RESUME_PROTOCOL + resumes);
    return shown.length ? [PROTOCOL, ...shown] : [];
  }

  /** @private */
  async askForTicket() {
    const headers = await this.headers();
    if (!headers.Authorization) return null;
    const answer = await send(new URL("v1/tickets", this.server), { method: "POST", headers });
    if (!answer.ok) throw await this.problemOf(answer);
    return (await answer.json()).ticket;
  }

  /** A browser is not told why a handshake failed: ask the same address without one. @returns {Promise<CallProblem>} */
  async explainRefusal() {
    try {
      const answer = await send(new URL("v1/ws", this.server), { headers: await this.headers(), cache: "no-store" });
      if (answer.status !== 426) return await this.problemOf(answer);
      const state = await (await send(new URL("readyz", this.server), { cache: "no-store" })).json();
      if (state.draining) return new CallProblem("server_draining");
      if (state.full) return new CallProblem("server_full");
    } catch {
      return new CallProblem("server_unreachable");
    }
    return new CallProblem("call_refused");
  }

  /** @param {Response} answer an error @returns {Promise<CallProblem>} */
  async problemOf(answer) {
    const { code, detail } = await answer.json().catch(() => ({}));
    const words = detail ?? `the server answered ${answer.status}`;
    if (answer.status === 401) return new CallProblem(this.key ? "key_refused" : "key_needed", words);
    if (code?.startsWith("resume_")) return new CallProblem(resumeProblem(code), words);
    return new CallProblem(REFUSALS[code] ?? "call_refused", words);
  }
}

/** @throws {CallProblem} server_unreachable */
export async function send(url, options) {
  try {
    return await fetch(url, options);
  } catch (error) {
    throw new CallProblem("server_unreachable", String(error), { cause: error });
  }
}

/** @typedef {string | (() => string | Promise<string>)} Key an API key or a token, or what gives the one of the moment */
