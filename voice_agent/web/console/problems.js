/** What can keep a call from beginning, or break it; programs branch on `code`, `docs/console.md` lists all. */
export class CallProblem extends Error {
  /**
   * @param {string} code stable, for programs
   * @param {string} [message] for people who debug
   * @param {{cause?: unknown}} [options]
   */
  constructor(code, message = code, options = undefined) {
    super(message, options);
    this.name = "CallProblem";
    this.code = code;
  }
}
