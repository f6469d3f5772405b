const KEPT_AS = "voice-agent-key";
const ASKING = ["key_needed", "key_refused"];

/**
 * The field for a key, there when the server asks for one.
 *
 * A key that was given is kept until the tab is closed, and no longer: `sessionStorage` belongs to one tab, and nothing
 * of it is written where another person at this browser would find it.
 */
export class KeyForm {
  /**
   * @param {{form: HTMLFormElement, field: HTMLInputElement, kept: HTMLElement, forget: HTMLButtonElement}} elements
   * @param {import("./voice-agent-client.js").VoiceAgentClient} client gets the key
   * @param {() => void} retry begins the call again
   */
  constructor(elements, client, retry) {
    Object.assign(this, elements);
    this.client = client;
    this.take(recall());
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      const key = this.field.value.trim();
      if (!key) return;
      this.field.value = "";
      this.form.hidden = true;
      this.take(key);
      retry();
    });
    this.forget.addEventListener("click", () => this.take(""));
  }

  /** Show the field where that is what helps. @param {{code: string}} problem @returns {boolean} whether it does */
  helps({ code }) {
    if (!ASKING.includes(code)) return false;
    this.take("");
    this.form.hidden = false;
    this.field.focus();
    return true;
  }

  /** @private */
  take(key) {
    this.client.key = key || null;
    this.kept.hidden = !key;
    try {
      if (key) sessionStorage.setItem(KEPT_AS, key);
      else sessionStorage.removeItem(KEPT_AS);
    } catch {
      // Storage may be forbidden; then the key lasts as long as the page.
    }
  }
}

function recall() {
  try {
    return sessionStorage.getItem(KEPT_AS) ?? "";
  } catch {
    return "";
  }
}
