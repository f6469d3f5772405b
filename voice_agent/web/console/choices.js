import { isWebRtcOffered } from "./voice-agent-client.js";

const KEPT_AS = "voice-agent";

/** How the next call shall be: what the person chose, kept by the browser where it keeps anything. */
export class Choices {
  /**
   * @param {{wires: HTMLFieldSetElement, wireNote: HTMLElement, device: HTMLSelectElement, language: HTMLSelectElement,
   *   partials: HTMLInputElement, theme: HTMLButtonElement, summary: HTMLElement}} elements
   * @param {string} server where WebRTC is offered or not
   */
  constructor(elements, server) {
    Object.assign(this, elements);
    this.server = server;
    const kept = recall();
    this.partials.checked = kept.partials ?? true;
    this.setTheme(kept.theme);
    this.summarise();
    this.listDevices(kept.device);
    this.offerWires(kept.wire);
    for (const element of [this.wires, this.device, this.language, this.partials]) {
      element.addEventListener("change", () => {
        this.summarise();
        this.remember();
      });
    }
    this.theme.addEventListener("click", () => {
      this.setTheme(this.isDark ? "light" : "dark");
      this.remember();
    });
    navigator.mediaDevices?.addEventListener("devicechange", () => this.listDevices());
  }

  /** For {@link VoiceAgentClient#connect}. */
  get options() {
    return {
      transport: this.wire,
      deviceId: this.device.value,
      language: this.language.value,
      partials: this.partials.checked,
    };
  }

  /** @returns {"websocket" | "webrtc"} */
  get wire() {
    return this.wires.querySelector("input:checked").value;
  }

  /** A call is made as it was begun. @param {boolean} isFixed */
  set isFixed(isFixed) {
    for (const element of [this.wires, this.device, this.language, this.partials]) element.disabled = isFixed;
  }

  /** The names of devices are known only when a microphone was allowed: list them again then. */
  async listDevices(wanted = this.device.value) {
    const devices = (await navigator.mediaDevices?.enumerateDevices?.()) ?? [];
    const options = devices
      .filter(({ kind, deviceId }) => kind === "audioinput" && deviceId && deviceId !== "default")
      .map(({ deviceId, label }, at) => new Option(label || `Microphone ${at + 1}`, deviceId));
    this.device.replaceChildren(new Option("Default microphone", ""), ...options);
    this.device.value = options.some(({ value }) => value === wanted) ? wanted : "";
    this.summarise();
  }

  /** @private */
  async offerWires(wanted) {
    const isOffered = await isWebRtcOffered(this.server);
    this.wires.querySelector("input[value=webrtc]").disabled = !isOffered;
    this.wireNote.hidden = isOffered;
    if (isOffered && wanted === "webrtc") this.wires.querySelector("input[value=webrtc]").checked = true;
    this.summarise();
  }

  /** In few words, for where the choices themselves are out of sight. @private */
  summarise() {
    const wire = this.wires.querySelector("input:checked").nextElementSibling.textContent;
    const named = [this.device, this.language].map(({ selectedOptions }) => selectedOptions[0].text);
    this.summary.textContent = [wire, ...named].join(" · ");
    document.body.dataset.wire = this.wire;
  }

  /** @private */
  get isDark() {
    const { theme } = document.documentElement.dataset;
    return theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  }

  /** @private */
  setTheme(theme) {
    if (theme) document.documentElement.dataset.theme = theme;
    this.theme.setAttribute("aria-pressed", String(this.isDark));
  }

  /** @private */
  remember() {
    const { wire } = this;
    const theme = document.documentElement.dataset.theme ?? "";
    const kept = { wire, device: this.device.value, partials: this.partials.checked, theme };
    try {
      localStorage.setItem(KEPT_AS, JSON.stringify(kept));
    } catch {
      // Storage may be forbidden; then the choices last as long as the page.
    }
  }
}

function recall() {
  try {
    return JSON.parse(localStorage.getItem(KEPT_AS)) ?? {};
  } catch {
    return {};
  }
}
