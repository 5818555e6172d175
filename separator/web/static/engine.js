// Plays all tracks of a song in step, over one clock, with flat memory.
//
//   server ──sound?start&count──> chunk (all tracks, 16 bit) ──> one source per track
//                                                                  │ all start at one frame
//   context clock  ──┬───────────┬───────────┬──                   v
//   song           [ chunk 7 ] [ chunk 8 ] [ 7 again: loop ]     gain ──> sum ──> speakers
//
// Positions are samples of the song, times are frames of the context: both are integers, so that
// neighbouring chunks and all tracks meet to the sample.

const CHUNK_SECONDS = 4;
const AHEAD_SECONDS = 3;
const KEPT_CHUNKS = 8;
const FADE_SECONDS = 0.012;

export class Engine extends EventTarget {
  constructor(base, song) {
    super();
    this.base = base;
    this.song = song;
    this.rate = song.sampleRate;
    this.chunkSamples = CHUNK_SECONDS * this.rate;
    this.levels = song.tracks.map(() => ({ volume: 1, muted: false, solo: false }));
    this.audible = song.tracks.map((_, index) => index > 0);
    this.playing = false;
    this.loop = null; // {from, to} in samples
    this.start = 0; // where playing begins next, in samples
    this.pieces = []; // what is scheduled: {from, to, frame}
    this.sources = new Set();
    this.chunks = new Map();
    this.run = 0; // counts restarts, so that late answers of the server are dropped
  }

  // The sample that is heard now.
  get position() {
    if (!this.playing) return this.start;
    const frame = this.context.currentTime * this.rate;
    let position = this.start;
    for (const piece of this.pieces) {
      if (frame < piece.frame) break;
      position = Math.min(piece.to, piece.from + Math.floor(frame - piece.frame));
    }
    return position;
  }

  async play() {
    if (this.playing) return;
    this.open();
    this.playing = true;
    if (this.start >= this.song.samples) this.start = 0;
    await this.context.resume();
    this.restart(this.start);
    this.timer = setInterval(() => this.pump(), 150);
    this.changed();
  }

  pause() {
    if (!this.playing) return;
    this.start = this.position;
    this.stop();
    this.changed();
  }

  toggle() {
    return this.playing ? this.pause() : this.play();
  }

  seek(sample) {
    const target = Math.max(0, Math.min(this.song.samples - 1, Math.round(sample)));
    if (this.playing) this.restart(target);
    this.start = target;
    this.changed();
  }

  setLoop(range) {
    const here = this.position;
    this.loop = range && range.to - range.from >= this.rate / 20 ? range : null;
    if (this.loop && (here < this.loop.from || here >= this.loop.to)) this.seek(this.loop.from);
    else if (this.playing) this.restart(here);
    this.changed();
  }

  // Say which tracks may be heard; solo, mute and volume apply to those.
  setAudible(audible) {
    this.audible = audible;
    this.balance();
  }

  setLevel(index, change) {
    Object.assign(this.levels[index], change);
    this.balance();
  }

  // What each track is multiplied by.
  get gains() {
    const solo = this.levels.some((level, index) => level.solo && this.audible[index]);
    return this.levels.map((level, index) => {
      const heard = this.audible[index] && (solo ? level.solo : !level.muted);
      return heard ? level.volume : 0;
    });
  }

  // The level that is heard now, root mean square of full scale.
  get loudness() {
    if (!this.meter) return 0;
    const values = new Float32Array(this.meter.fftSize);
    this.meter.getFloatTimeDomainData(values);
    return Math.sqrt(values.reduce((sum, value) => sum + value * value, 0) / values.length);
  }

  close() {
    this.stop();
    this.run += 1;
    this.chunks.clear();
    this.context?.close();
    this.context = null;
  }

  open() {
    if (this.context) return;
    this.context = new AudioContext({ sampleRate: this.rate, latencyHint: "interactive" });
    this.meter = this.context.createAnalyser();
    this.meter.connect(this.context.destination);
    this.faders = this.song.tracks.map(() => {
      const fader = this.context.createGain();
      fader.connect(this.meter);
      return fader;
    });
    this.balance(true);
  }

  balance(atOnce = false) {
    if (this.context) {
      const now = this.context.currentTime;
      this.gains.forEach((gain, index) => {
        const parameter = this.faders[index].gain;
        if (atOnce) parameter.value = gain;
        else parameter.setTargetAtTime(gain, now, FADE_SECONDS);
      });
    }
    this.changed();
  }

  stop() {
    this.playing = false;
    clearInterval(this.timer);
    this.silence();
  }

  silence() {
    this.run += 1;
    for (const source of this.sources) source.stop();
    this.sources.clear();
    this.pieces = [];
  }

  restart(sample) {
    this.silence();
    this.start = sample;
    this.next = sample;
    this.frame = 0;
    this.pump();
  }

  // Schedule what will be heard in the next seconds.
  async pump() {
    const run = this.run;
    if (!this.playing || this.pumping === run) return;
    this.pumping = run;
    try {
      while (this.playing && this.frame < (this.context.currentTime + AHEAD_SECONDS) * this.rate) {
        if (this.next >= this.end()) {
          if (!this.loop) break;
          this.next = this.loop.from;
        }
        const index = Math.floor(this.next / this.chunkSamples);
        const chunk = await this.chunk(index);
        if (run !== this.run) return;
        this.schedule(chunk, index * this.chunkSamples);
      }
      this.fetchNext();
    } catch (error) {
      if (run === this.run) {
        this.pause();
        this.dispatchEvent(new CustomEvent("trouble", { detail: error.message }));
      }
    } finally {
      if (this.pumping === run) this.pumping = null;
    }
    if (this.playing && this.next >= this.song.samples && this.position >= this.song.samples) {
      this.stop();
      this.start = 0;
      this.changed();
    }
  }

  end() {
    return this.loop && this.next <= this.loop.to ? this.loop.to : this.song.samples;
  }

  schedule(chunk, first) {
    const soonest = Math.ceil((this.context.currentTime + 0.04) * this.rate);
    this.frame = Math.max(this.frame, soonest); // late chunks delay all tracks alike
    const to = Math.min(first + this.chunkSamples, this.end());
    chunk.forEach((buffer, index) => {
      const source = this.context.createBufferSource();
      source.buffer = buffer;
      source.connect(this.faders[index]);
      const [offset, length] = [this.next - first, to - this.next];
      source.start(this.frame / this.rate, offset / this.rate, length / this.rate);
      source.onended = () => this.sources.delete(source);
      this.sources.add(source);
    });
    this.pieces.push({ from: this.next, to, frame: this.frame });
    const now = this.context.currentTime * this.rate;
    while (this.pieces.length > 1 && this.pieces[1].frame < now) this.pieces.shift();
    this.frame += to - this.next;
    this.next = to;
  }

  fetchNext() {
    const index = Math.floor(this.next / this.chunkSamples);
    if (this.playing && this.next < this.song.samples) this.chunk(index).catch(() => {});
  }

  // The buffers of one chunk, a promise; the last few are kept.
  chunk(index) {
    let chunk = this.chunks.get(index);
    if (!chunk) {
      chunk = this.load(index);
      chunk.catch(() => this.chunks.delete(index));
    }
    this.chunks.delete(index);
    this.chunks.set(index, chunk); // the newest comes last
    if (this.chunks.size > KEPT_CHUNKS) this.chunks.delete(this.chunks.keys().next().value);
    return chunk;
  }

  async load(index) {
    const start = index * this.chunkSamples;
    const count = Math.min(this.chunkSamples, this.song.samples - start);
    const answer = await fetch(`${this.base}/sound?start=${start}&count=${count}`);
    if (!answer.ok) throw new Error(await reason(answer));
    const values = new Int16Array(await answer.arrayBuffer());
    const channels = this.song.channels;
    return this.song.tracks.map((_, track) => {
      const buffer = this.context.createBuffer(channels, count, this.rate);
      for (let channel = 0; channel < channels; channel += 1) {
        const samples = buffer.getChannelData(channel);
        let from = track * count * channels + channel;
        for (let i = 0; i < count; i += 1, from += channels) samples[i] = values[from] / 32768;
      }
      return buffer;
    });
  }

  changed() {
    this.dispatchEvent(new Event("change"));
  }
}

export async function reason(answer) {
  try {
    return (await answer.json()).detail;
  } catch {
    return `The server answered ${answer.status}.`;
  }
}
