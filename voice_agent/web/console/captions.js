import { clock } from "./transcript.js";

const UNSURE_BELOW = 0.7;
const NEAR_END_PIXELS = 48;
const AGENT = "Agent";

/** The transcript on the page: partials change in place, finals settle. */
export class Captions {
  /**
   * @param {{list: HTMLElement, scroll: HTMLElement, empty: HTMLElement, spoken: HTMLElement}} elements
   *   `spoken` is the live region: it gets finals only, for a screen reader can't follow words that change
   */
  constructor({ list, scroll, empty, spoken }) {
    Object.assign(this, { list, scroll, empty, spoken });
    this.clear();
  }

  clear() {
    this.items = new Map(); // utterance → list item
    this.finals = [];
    this.utterancesHeard = new Set(); // the others were typed
    this.list.replaceChildren();
    this.spoken.replaceChildren();
    this.empty.hidden = false;
  }

  /** What is said in this utterance was heard, not typed. @param {number} utterance */
  speechStarted(utterance) {
    this.utterancesHeard.add(utterance);
  }

  /** @param {object} message a `partial` */
  partial(message) {
    this.keepEndInSight(() => {
      const item = this.itemFor(message);
      item.classList.add("is-partial");
      const stable = element("span", "stable", message.stable);
      item.querySelector(".words").replaceChildren(stable, message.text.slice(message.stable.length));
    });
  }

  /** @param {object} message a `final` */
  final(message) {
    const isAgent = isOfAgent(message);
    this.finals.push(message);
    this.keepEndInSight(() => {
      const item = this.itemFor(message);
      item.classList.remove("is-partial");
      item.querySelector(".words").textContent = message.text;
      const details = element("p", "details");
      if (isAgent) {
        details.append(element("span", "", AGENT));
      } else if (!this.utterancesHeard.has(message.utterance) && message.end <= message.start) {
        details.append(element("span", "", "typed"));
      } else {
        details.append(element("span", "", `${message.start.toFixed(1)} – ${message.end.toFixed(1)} s`));
        const sure = element("span", "", `${Math.round(message.confidence * 100)} % sure`);
        sure.classList.toggle("is-unsure", message.confidence < UNSURE_BELOW);
        details.append(sure);
      }
      item.querySelector(".details")?.remove();
      item.append(details);
    });
    this.spoken.append(element("p", "", isAgent ? `${AGENT}: ${message.text}` : message.text));
  }

  /** The utterance held no words, or the call is over and no final will come. */
  drop(utterance) {
    const item = this.items.get(utterance);
    if (!item?.classList.contains("is-partial")) return;
    item.remove();
    this.items.delete(utterance);
    this.empty.hidden = this.items.size > 0;
  }

  dropAllPartials() {
    for (const utterance of [...this.items.keys()]) this.drop(utterance);
  }

  /** @private */
  itemFor(message) {
    const { utterance, start } = message;
    let item = this.items.get(utterance);
    if (!item) {
      item = element("li", "caption");
      const time = element("time", "", clock(start));
      time.dateTime = `PT${start}S`;
      item.append(time, element("p", "words"));
      item.classList.toggle("is-agent", isOfAgent(message));
      this.items.set(utterance, item);
      this.list.append(item);
      this.empty.hidden = true;
    }
    return item;
  }

  /** Who reads further up is not torn away. @private */
  keepEndInSight(change) {
    const { scroll } = this;
    const isAtEnd = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < NEAR_END_PIXELS;
    change();
    if (isAtEnd) scroll.scrollTop = scroll.scrollHeight;
  }
}

function isOfAgent({ speaker }) {
  return Boolean(speaker) && speaker !== "caller";
}

function element(name, className, text = "") {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.textContent = text;
  return made;
}
