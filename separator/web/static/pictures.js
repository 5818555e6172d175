// The pictures of the player's tracks, drawn again when its size or the page's theme changes.

import { clock, drawSpectrogram, drawWaveform, ticks } from "./drawing.js";

export class Pictures {
  constructor(root, song, base) {
    Object.assign(this, { root, song, base });
    this.view = "waveform"; // or "spectrogram"
    this.spectrograms = new Map();
    this.resize = new ResizeObserver(() => this.draw());
    this.resize.observe(root.querySelector(".timeline"));
    this.theme = new MutationObserver(() => this.draw());
    this.theme.observe(document.body, { attributeFilter: ["class"] });
    this.dark = matchMedia("(prefers-color-scheme: dark)");
    this.onDark = () => this.draw();
    this.dark.addEventListener("change", this.onDark);
  }

  close() {
    this.resize.disconnect();
    this.theme.disconnect();
    this.dark.removeEventListener("change", this.onDark);
  }

  show(view) {
    this.view = view;
    this.draw();
  }

  draw() {
    this.drawRuler();
    this.root.querySelector(".timeline").classList.toggle("spectra", this.view === "spectrogram");
    for (const row of this.root.querySelectorAll(".row:not([hidden])")) {
      this.drawRow(row, Number(row.dataset.index));
    }
  }

  drawRow(row, index) {
    const lane = row.querySelector(".lane");
    const color = getComputedStyle(row).getPropertyValue("--paint") || "#888";
    const { name, peaks } = this.song.tracks[index];
    const waves = this.view === "waveform";
    lane.setAttribute("aria-label", `${waves ? "Waveform" : "Spectrogram"} of ${name}`);
    if (waves) drawWaveform(lane, peaks, color);
    else this.drawSpectrum(lane, index, color);
  }

  async drawSpectrum(lane, index, color) {
    if (!this.spectrograms.has(index)) {
      const answer = await fetch(`${this.base}/spectrogram/${index}`);
      if (!answer.ok) return;
      this.spectrograms.set(index, new Uint8Array(await answer.arrayBuffer()));
    }
    if (this.view !== "spectrogram") return;
    drawSpectrogram(lane, this.spectrograms.get(index), this.song.bands, color);
  }

  drawRuler() {
    const canvas = this.root.querySelector(".ruler canvas");
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    const seconds = this.song.samples / this.song.sampleRate;
    Object.assign(canvas, { width: width * ratio, height: height * ratio });
    const pen = canvas.getContext("2d");
    const style = getComputedStyle(canvas);
    pen.scale(ratio, ratio);
    pen.font = `11px ${style.fontFamily}`;
    pen.fillStyle = style.color;
    for (const second of ticks(seconds, width)) {
      const x = (second / seconds) * width;
      pen.fillRect(Math.min(width - 1, Math.round(x)), height - 5, 1, 5);
      if (x < width - 32) pen.fillText(clock(second, second % 1 ? 1 : 0), x + 4, 11);
    }
  }
}
