const LEAD_SECONDS = 0.06; // covers the jitter of one message; a longer lead is heard as slowness

/** What the server says, as it comes over a WebSocket: pieces of `pcm_s16le`, played without gaps. */
export class Playback {
  /** @param {AudioContext} context @param {{sample_rate: number, channels: number}} format of the call */
  constructor(context, format) {
    this.context = context;
    this.format = format;
    this.nextAt = 0;
    this.sources = new Set();
  }

  /** @param {ArrayBuffer} pcm little-endian int16, interleaved */
  play(pcm) {
    const { sample_rate: sampleRate, channels } = this.format;
    const view = new DataView(pcm);
    const count = Math.floor(pcm.byteLength / 2 / channels);
    if (!count) return;
    const buffer = this.context.createBuffer(channels, count, sampleRate);
    for (let channel = 0; channel < channels; channel += 1) {
      const samples = buffer.getChannelData(channel);
      for (let at = 0; at < count; at += 1) samples[at] = view.getInt16((at * channels + channel) * 2, true) / 32768;
    }
    const source = new AudioBufferSourceNode(this.context, { buffer });
    source.connect(this.context.destination);
    source.onended = () => this.sources.delete(source);
    this.sources.add(source);
    const now = this.context.currentTime;
    this.nextAt = this.nextAt < now ? now + LEAD_SECONDS : this.nextAt;
    source.start(this.nextAt);
    this.nextAt += buffer.duration;
  }

  /** Be silent at once. */
  clear() {
    for (const source of this.sources) source.stop();
    this.sources.clear();
    this.nextAt = 0;
  }
}
