const KEPT_SECONDS = 30;
const PIXELS_PER_SECOND = 64;
const BAR_PIXELS = 3;
const BAR_STEP_PIXELS = 5;
const REDUCED_MOTION_MS = 1000;

/** The sound of the last seconds, scrolling to the left; what the server took for speech is shaded. */
export class Waveform {
  /** @param {HTMLCanvasElement} canvas */
  constructor(canvas) {
    this.canvas = canvas;
    this.bars = []; // {at: ms, peak}, one for each step of the drawing
    this.spans = []; // {from: ms, until: ms | null}
    this.stillness = matchMedia("(prefers-reduced-motion: reduce)");
    this.drawnAt = 0;
    new ResizeObserver(() => this.draw(this.now ?? performance.now())).observe(canvas);
  }

  /** @param {{peak: number, at: number}} level */
  add({ peak, at }) {
    const stepMs = (BAR_STEP_PIXELS / PIXELS_PER_SECOND) * 1000;
    const slot = Math.floor(at / stepMs) * stepMs;
    const last = this.bars.at(-1);
    if (last?.at === slot) last.peak = Math.max(last.peak, peak);
    else this.bars.push({ at: slot, peak });
    while (this.bars[0].at < at - KEPT_SECONDS * 1000) this.bars.shift();
    this.spans = this.spans.filter(({ until }) => until === null || until > at - KEPT_SECONDS * 1000);
  }

  /** Speech began at this moment. */
  startSpeech(at) {
    this.stopSpeech(at);
    this.spans.push({ from: at, until: null });
  }

  /** Speech ended at this moment. */
  stopSpeech(at) {
    const open = this.spans.find(({ until }) => until === null);
    if (open) open.until = Math.max(open.from, at);
  }

  /** Show nothing. */
  clear() {
    this.bars = [];
    this.spans = [];
    this.draw(performance.now());
  }

  /** Begin to scroll, with nothing to see yet. */
  run() {
    this.clear();
    const step = (now) => {
      this.frame = requestAnimationFrame(step);
      if (this.stillness.matches && now - this.drawnAt < REDUCED_MOTION_MS) return;
      this.draw(performance.now());
    };
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(step);
  }

  /** Stand still; the picture stays. */
  halt() {
    cancelAnimationFrame(this.frame);
    this.stopSpeech(performance.now());
  }

  /** @private */
  draw(now) {
    this.now = now;
    this.drawnAt = now;
    const { canvas } = this;
    const ratio = devicePixelRatio || 1;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    const style = getComputedStyle(canvas);
    const paint = canvas.getContext("2d");
    paint.setTransform(ratio, 0, 0, ratio, 0, 0);
    paint.clearRect(0, 0, width, height);
    const place = (at) => width - ((now - at) / 1000) * PIXELS_PER_SECOND;
    paint.fillStyle = style.getPropertyValue("--shade");
    for (const { from, until } of this.spans) {
      paint.fillRect(place(from), 0, (until === null ? width : place(until)) - place(from), height);
    }
    const [voice, other] = [style.getPropertyValue("--voice"), style.getPropertyValue("--other")];
    for (const { at, peak } of this.bars) {
      const left = place(at);
      if (left < -BAR_PIXELS) continue;
      const tall = Math.max(2, Math.sqrt(peak) * (height - 20));
      paint.fillStyle = this.isSpeech(at) ? voice : other;
      paint.beginPath();
      paint.roundRect(left, (height - tall) / 2, BAR_PIXELS, tall, BAR_PIXELS / 2);
      paint.fill();
    }
  }

  /** @private */
  isSpeech(at) {
    return this.spans.some(({ from, until }) => at >= from && (until === null || at < until));
  }
}
