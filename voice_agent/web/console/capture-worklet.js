/**
 * The microphone's audio, cut into pieces of 20 ms: runs on the browser's audio thread.
 *
 * Posts `{pcm: Int16Array, peak: number, rms: number}`; `peak` and `rms` are 0..1 of full scale. `pcm.buffer` is handed
 * over, not copied. Input is mono; a microphone that was unplugged reads as silence, so that the clock goes on.
 */
const PIECES_PER_SECOND = 50;
const QUANTUM = 128; // Web Audio API, section 1.1: what a processor is given at a time

class CaptureProcessor extends AudioWorkletProcessor {
  constructor() {
    super();
    this.size = Math.floor(sampleRate / PIECES_PER_SECOND);
    this.begin();
  }

  begin() {
    this.pcm = new Int16Array(this.size);
    this.filled = 0;
    this.peak = 0;
    this.squares = 0;
  }

  process(inputs) {
    const channel = inputs[0]?.[0];
    const count = channel ? channel.length : QUANTUM;
    for (let at = 0; at < count; at += 1) {
      const value = channel ? Math.max(-1, Math.min(1, channel[at])) : 0;
      this.pcm[this.filled] = Math.round(value * (value < 0 ? 32768 : 32767));
      this.filled += 1;
      this.peak = Math.max(this.peak, Math.abs(value));
      this.squares += value * value;
      if (this.filled === this.size) this.post();
    }
    return true;
  }

  post() {
    const { pcm, peak } = this;
    const rms = Math.sqrt(this.squares / this.size);
    this.port.postMessage({ pcm, peak, rms }, [pcm.buffer]);
    this.begin();
  }
}

registerProcessor("voice-agent-capture", CaptureProcessor);
