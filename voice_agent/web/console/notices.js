const MAX_NOTICES = 3;

/** What a person should know and may dismiss; the container is a live region (`role="alert"`). */
export class Notices {
  /** @param {HTMLElement} container */
  constructor(container) {
    this.container = container;
  }

  /**
   * Show a text, unless it is there already; of too many the oldest goes.
   *
   * @param {string} text
   * @param {{isBad?: boolean, action?: {label: string, act: () => void}}} [options] `action` is offered as a button
   */
  tell(text, { isBad = false, action = null } = {}) {
    const { container } = this;
    if ([...container.children].some((shown) => shown.firstElementChild.textContent === text)) return;
    const notice = document.createElement("div");
    notice.className = isBad ? "notice is-bad" : "notice";
    const words = document.createElement("span");
    words.textContent = text;
    notice.append(words);
    if (action) notice.append(quietButton(action.label, action.act));
    notice.append(quietButton("Dismiss", () => notice.remove()));
    container.append(notice);
    while (container.children.length > MAX_NOTICES) container.firstElementChild.remove();
  }

  /** What this says holds no more. @param {string} text */
  withdraw(text) {
    for (const shown of [...this.container.children]) if (shown.firstElementChild.textContent === text) shown.remove();
  }

  clear() {
    this.container.replaceChildren();
  }
}

function quietButton(label, act) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "quiet";
  button.textContent = label;
  button.addEventListener("click", act);
  return button;
}
