// <stem-player src="/stems/TOKEN">: a song with its stems, to listen to and to take away.

import { clock, drawSpectrogram, drawWaveform, ticks } from "./drawing.js";
import { chart, colorOf, element, press } from "./elements.js";
import { Engine, reason } from "./engine.js";
import { icon } from "./icons.js";

export class StemPlayer extends HTMLElement {
  async connectedCallback() {
    this.base = this.getAttribute("src");
    const root = this.shadowRoot || this.attachShadow({ mode: "open" });
    root.innerHTML = `<link rel="stylesheet" href="/stems-static/player.css">
      <p class="wait" role="status">Loading the player …</p>`;
    try {
      const answer = await fetch(`${this.base}/player.json`);
      if (!answer.ok) throw new Error(await reason(answer));
      this.open(await answer.json());
    } catch (error) {
      root.querySelector(".wait").textContent = error.message;
    }
  }

  disconnectedCallback() {
    this.engine?.close();
    this.engine = null;
    cancelAnimationFrame(this.animation);
    this.resize?.disconnect();
    document.removeEventListener("keydown", this.onKey);
    matchMedia("(prefers-color-scheme: dark)").removeEventListener("change", this.onTheme);
    this.theme?.disconnect();
  }

  open(song) {
    if (!this.isConnected) return;
    this.song = song;
    this.seconds = song.samples / song.sampleRate;
    this.view = "waveform";
    this.groups = [...new Set(song.tracks.slice(1).map((track) => track.group))];
    this.shown = this.groups[0]; // the group whose rows are seen
    this.original = false;
    this.selected = 1;
    this.spectrograms = new Map();
    this.engine = new Engine(this.base, song);
    this.build();
    this.listen();
    this.draw();
    this.refresh();
    this.tick();
    if (innerWidth <= 720) this.scrollIntoView(); // there it appears below all else
  }

  // --- what is there -----------------------------------------------------------------------

  build() {
    const { song, shadowRoot: root } = this;
    root.querySelector(".wait").remove();
    const player = element("section", { class: "player", "aria-label": `Player: ${song.title}` });
    player.append(this.header(), this.transport(), this.timeline(), this.footer());
    root.append(player);
    this.find = (selector) => root.querySelector(selector);
    this.all = (selector) => [...root.querySelectorAll(selector)];
  }

  header() {
    const header = element("header");
    header.append(element("h2", {}, this.song.title));
    const facts = [clock(this.seconds), `${this.song.sampleRate / 1000} kHz`, this.song.model];
    header.append(element("p", { class: "facts" }, facts.filter(Boolean).join(" · ")));
    for (const note of this.song.notes) header.append(element("p", { class: "note" }, note));
    return header;
  }

  transport() {
    const bar = element("div", { class: "bar" });
    bar.innerHTML = `
      <button class="play" title="Play (space)">${icon("play")}</button>
      <output class="time" aria-label="Position"></output>
      <div class="switch hear" role="group" aria-label="What to hear"></div>
      <div class="loop">
        <button class="repeat" aria-pressed="false" title="Loop a range (l)">
          ${icon("loop")}<span>Loop</span></button>
        <span class="range" hidden>
          <input class="from" aria-label="Loop from" inputmode="decimal" size="6">
          <span aria-hidden="true">–</span>
          <input class="to" aria-label="Loop to" inputmode="decimal" size="6">
        </span>
      </div>
      <div class="switch views" role="group" aria-label="Picture">
        <button data-view="waveform" aria-pressed="true" title="Waveforms">
          ${icon("wave")}<span class="hidden">Waveforms</span></button>
        <button data-view="spectrogram" aria-pressed="false" title="Spectrograms">
          ${icon("spectrum")}<span class="hidden">Spectrograms</span></button>
      </div>`;
    const versions = [...this.groups.map((group) => [group, group || "Stems"]), [null, "Original"]];
    for (const [group, label] of versions) {
      const button = element("button", { title: `Hear: ${label} (o)` }, label);
      button.onclick = () => this.hear(group);
      button.group = group;
      bar.querySelector(".hear").append(button);
    }
    return bar;
  }

  timeline() {
    const box = element("div", { class: "timeline" });
    const ruler = element("div", { class: "ruler" });
    ruler.innerHTML = `<canvas aria-hidden="true"></canvas>
      <input class="position" type="range" min="0" step="any" aria-label="Position in the song">`;
    ruler.querySelector("input").max = this.seconds;
    box.append(ruler);
    this.song.tracks.forEach((track, index) => box.append(this.row(track, index)));
    const overlay = element("div", { class: "overlay", "aria-hidden": "true" });
    overlay.innerHTML = '<div class="selection" hidden></div><div class="playhead"></div>';
    box.append(overlay);
    return box;
  }

  row(track, index) {
    const { name } = track;
    const row = element("div", { class: "row", role: "group", "aria-label": name });
    row.dataset.index = index;
    row.style.setProperty("--stem", `var(--stem-${colorOf(name, index)})`);
    const controls = index === 0 ? "" : `
      <button class="solo" aria-pressed="false" aria-label="Solo ${name}" title="Solo (s)">S</button>
      <button class="mute" aria-pressed="false" aria-label="Mute ${name}" title="Mute (m)">M</button>
      <input class="volume" type="range" min="0" max="1.5" step="0.01" value="1"
        aria-label="Volume of ${name}" title="Volume; double-click for 100 %">`;
    row.innerHTML = `<div class="head">
        <span class="name"></span>${controls}
        <a class="save" download href="${this.base}/track/${index}"
          aria-label="Download ${name}" title="Download ${name}">${icon("save")}</a>
      </div><canvas class="lane" role="img" aria-label="Waveform of ${name}"></canvas>`;
    const label = row.querySelector(".name");
    label.title = name;
    const digit = `${this.song.tracks.slice(1, index + 1).filter((t) => t.group === track.group).length} `;
    if (index) label.append(element("span", { class: "number", "aria-hidden": "true" }, digit));
    label.append(name);
    return row;
  }

  footer() {
    const footer = element("footer");
    footer.innerHTML = `
      <a class="button mix" download href="#">${icon("save")}This mix</a>
      <a class="button" download href="${this.base}/stems.zip">${icon("save")}All stems (zip)</a>
      <details><summary>Keys</summary><dl>
        <dt>space</dt><dd>play, pause</dd><dt>1 – 9</dt><dd>choose a stem</dd>
        <dt>s</dt><dd>solo</dd><dt>m</dt><dd>mute</dd><dt>↑ ↓</dt><dd>volume</dd>
        <dt>← →</dt><dd>5 seconds</dd><dt>o</dt><dd>original or stems</dd>
        <dt>l</dt><dd>loop</dd><dt>[ ]</dt><dd>loop begins, ends here</dd></dl></details>
      <p class="trouble" role="alert"></p>
      <div class="truth" aria-live="polite"></div>`;
    if (this.song.blind) {
      const reveal = element("button", { class: "button reveal" }, "Which is which?");
      reveal.onclick = () => this.reveal(reveal);
      footer.prepend(reveal);
    }
    return footer;
  }

  // --- what can be done --------------------------------------------------------------------

  listen() {
    const { engine } = this;
    this.find(".play").onclick = () => engine.toggle();
    this.find(".repeat").onclick = () => this.toggleLoop();
    for (const field of this.all(".from, .to")) field.onchange = () => this.readLoop();
    for (const button of this.all("[data-view]")) {
      button.onclick = () => this.show(button.dataset.view);
    }
    const position = this.find(".position");
    position.oninput = () => engine.seek(position.value * this.song.sampleRate);
    for (const row of this.all(".row")) this.listenToRow(row);
    this.onKey = (event) => this.key(event);
    document.addEventListener("keydown", this.onKey);
    engine.addEventListener("change", () => this.refresh());
    engine.addEventListener("trouble", (event) => {
      this.find(".trouble").textContent = event.detail;
    });
    this.resize = new ResizeObserver(() => this.draw());
    this.resize.observe(this.find(".timeline"));
    this.theme = new MutationObserver(() => this.draw());
    this.theme.observe(document.body, { attributeFilter: ["class"] });
    this.onTheme = () => this.draw();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", this.onTheme);
  }

  listenToRow(row) {
    const index = Number(row.dataset.index);
    row.onpointerdown = () => this.select(index);
    row.onfocusin = () => this.select(index);
    this.drag(row.querySelector(".lane"));
    if (index === 0) return;
    row.querySelector(".solo").onclick = () => this.toggle(index, "solo");
    row.querySelector(".mute").onclick = () => this.toggle(index, "muted");
    const volume = row.querySelector(".volume");
    volume.oninput = () => this.level(index, { volume: Number(volume.value) });
    volume.ondblclick = () => this.level(index, { volume: 1 });
  }

  // A click on a lane seeks; a drag chooses what is looped.
  drag(lane) {
    const at = (event) => {
      const box = lane.getBoundingClientRect();
      const share = Math.max(0, Math.min(1, (event.clientX - box.left) / box.width));
      return Math.round(share * this.song.samples);
    };
    lane.onpointerdown = (down) => {
      const [from, x] = [at(down), down.clientX];
      let range = null;
      const mouse = down.pointerType === "mouse"; // a finger scrolls the page
      if (mouse) lane.setPointerCapture(down.pointerId);
      lane.onpointermove = (move) => {
        if (!mouse || Math.abs(move.clientX - x) < 4) return;
        const to = at(move);
        range = { from: Math.min(from, to), to: Math.max(from, to) };
        this.mark(range);
      };
      lane.onpointerup = () => {
        lane.onpointermove = lane.onpointerup = null;
        if (range) this.engine.setLoop(range);
        else this.engine.seek(from);
      };
    };
  }

  select(index) {
    if (index > 0) this.selected = index;
    for (const row of this.all(".row")) {
      row.classList.toggle("selected", Number(row.dataset.index) === this.selected);
    }
  }

  toggle(index, what) {
    if (this.original) this.hear(this.shown);
    this.level(index, { [what]: !this.engine.levels[index][what] });
  }

  // Change a stem in all groups alike, so that switching between them changes nothing else.
  level(index, change) {
    const { name } = this.song.tracks[index];
    this.song.tracks.forEach((track, each) => {
      if (each && track.name === name) this.engine.setLevel(each, change);
    });
  }

  // Hear the stems of a group, or, for null, the original.
  hear(group) {
    const place = this.rows.indexOf(this.selected);
    this.original = group === null;
    if (!this.original) this.shown = group;
    this.engine.setAudible(
      this.song.tracks.map((track, i) => (this.original ? i === 0 : i > 0 && track.group === group)),
    );
    this.selected = this.rows[place] ?? this.rows[0];
    this.draw();
    this.refresh();
  }

  hearNext() {
    const all = [...this.groups, null];
    const now = all.indexOf(this.original ? null : this.shown);
    this.hear(all[(now + 1) % all.length]);
  }

  // The tracks whose rows are seen, the original left out.
  get rows() {
    const numbers = this.song.tracks.map((_, index) => index);
    return numbers.filter((index) => index && this.song.tracks[index].group === this.shown);
  }

  // Tell the names behind the letters, and how close each came where references were given.
  async reveal(button) {
    const answer = await fetch(`${this.base}/truth`);
    if (!answer.ok) return;
    const { names, scores } = await answer.json();
    const box = this.find(".truth");
    box.replaceChildren();
    for (const [group, name] of Object.entries(names)) {
      box.append(element("p", {}, `${group} is ${name}.`));
    }
    if (Object.keys(scores).length) box.append(chart(scores));
    button.remove();
  }

  toggleLoop() {
    const { engine, song } = this;
    const from = engine.position;
    const to = Math.min(song.samples, from + 8 * song.sampleRate);
    engine.setLoop(engine.loop ? null : { from: Math.min(from, to - song.sampleRate), to });
  }

  readLoop() {
    const [from, to] = [".from", ".to"].map((name) => this.samples(this.find(name).value));
    if (from !== null && to !== null) this.engine.setLoop({ from, to });
    this.refresh();
  }

  samples(text) {
    const parts = text.split(":").map(Number);
    if (parts.some(Number.isNaN) || !text.trim()) return null;
    const seconds = parts.reduce((sum, part) => 60 * sum + part, 0);
    return Math.max(0, Math.min(this.song.samples, Math.round(seconds * this.song.sampleRate)));
  }

  show(view) {
    this.view = view;
    this.draw();
    this.refresh();
  }

  key(event) {
    const target = event.composedPath()[0];
    const inside = event.composedPath().includes(this);
    const anywhere = document.activeElement === document.body;
    if (!(inside || anywhere) || event.ctrlKey || event.metaKey || event.altKey) return;
    if (!this.offsetParent || target.matches?.("input:not([type=range]), summary")) return;
    if (event.key === " " && target.matches?.("button, a")) return;
    if (event.key.startsWith("Arrow") && target.matches?.("input")) return;
    const action = this.action(event.key);
    if (!action) return;
    event.preventDefault();
    action();
  }

  action(key) {
    const { engine, selected, song } = this;
    const louder = (step) => {
      const volume = Math.max(0, Math.min(1.5, engine.levels[selected].volume + step));
      this.level(selected, { volume });
    };
    const skip = (seconds) => engine.seek(engine.position + seconds * song.sampleRate);
    const loop = (change) => {
      engine.setLoop({ ...(engine.loop || { from: 0, to: song.samples }), ...change });
    };
    const row = this.rows[Number(key) - 1];
    if (/^[1-9]$/.test(key) && row) return () => this.select(row);
    return {
      " ": () => engine.toggle(),
      s: () => this.toggle(selected, "solo"),
      m: () => this.toggle(selected, "muted"),
      o: () => this.hearNext(),
      l: () => this.toggleLoop(),
      "[": () => loop({ from: engine.position }),
      "]": () => loop({ to: engine.position }),
      ArrowLeft: () => skip(-5),
      ArrowRight: () => skip(5),
      ArrowUp: () => louder(0.05),
      ArrowDown: () => louder(-0.05),
    }[key];
  }

  // --- what is seen ------------------------------------------------------------------------

  refresh() {
    const { engine } = this;
    if (!engine) return;
    const play = this.find(".play");
    play.innerHTML = icon(engine.playing ? "pause" : "play");
    play.setAttribute("aria-label", engine.playing ? "Pause" : "Play");
    for (const button of this.all(".hear button")) {
      press(button, this.original ? button.group === null : button.group === this.shown);
    }
    for (const row of this.all(".row")) {
      const { group } = this.song.tracks[row.dataset.index];
      row.hidden = row.dataset.index !== "0" && group !== this.shown;
    }
    press(this.find(".repeat"), Boolean(engine.loop));
    for (const button of this.all("[data-view]")) press(button, button.dataset.view === this.view);
    engine.gains.forEach((gain, index) => this.refreshRow(index, gain));
    this.refreshLoop();
    const mix = engine.gains.map((gain, i) => (gain > 0 ? `${i}=${gain.toFixed(3)}` : ""));
    this.find(".mix").href = `${this.base}/mix.wav?${mix.filter(Boolean).join("&")}`;
    this.select(this.selected);
  }

  refreshRow(index, gain) {
    const row = this.find(`.row[data-index="${index}"]`);
    row.classList.toggle("quiet", gain === 0);
    if (index === 0) return;
    const level = this.engine.levels[index];
    press(row.querySelector(".solo"), level.solo);
    press(row.querySelector(".mute"), level.muted);
    const volume = row.querySelector(".volume");
    volume.value = level.volume;
    volume.style.setProperty("--share", `${(100 * level.volume) / 1.5}%`);
    volume.setAttribute("aria-valuetext", `${Math.round(100 * level.volume)} percent`);
  }

  refreshLoop() {
    const { loop } = this.engine;
    this.find(".range").hidden = !loop;
    this.mark(loop);
    if (!loop) return;
    this.find(".from").value = clock(loop.from / this.song.sampleRate, 1);
    this.find(".to").value = clock(loop.to / this.song.sampleRate, 1);
  }

  mark(range) {
    const selection = this.find(".selection");
    selection.hidden = !range;
    if (!range) return;
    selection.style.left = `${(100 * range.from) / this.song.samples}%`;
    selection.style.width = `${(100 * (range.to - range.from)) / this.song.samples}%`;
  }

  draw() {
    this.drawRuler();
    this.find(".timeline").classList.toggle("spectra", this.view === "spectrogram");
    const label = this.view === "waveform" ? "Waveform" : "Spectrogram";
    for (const row of this.all(".row")) {
      const index = Number(row.dataset.index);
      const lane = row.querySelector(".lane");
      if (row.hidden) continue;
      const color = getComputedStyle(row).getPropertyValue("--paint") || "#888";
      lane.setAttribute("aria-label", `${label} of ${this.song.tracks[index].name}`);
      if (this.view === "waveform") drawWaveform(lane, this.song.tracks[index].peaks, color);
      else this.drawSpectrum(lane, index, color);
    }
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
    const canvas = this.find(".ruler canvas");
    const ratio = window.devicePixelRatio || 1;
    const width = canvas.clientWidth;
    Object.assign(canvas, { width: width * ratio, height: canvas.clientHeight * ratio });
    const pen = canvas.getContext("2d");
    const style = getComputedStyle(canvas);
    pen.scale(ratio, ratio);
    pen.font = `11px ${style.fontFamily}`;
    pen.fillStyle = style.color;
    for (const second of ticks(this.seconds, width)) {
      const x = (second / this.seconds) * width;
      pen.fillRect(Math.min(width - 1, Math.round(x)), canvas.clientHeight - 5, 1, 5);
      if (x < width - 32) pen.fillText(clock(second, second % 1 ? 1 : 0), x + 4, 11);
    }
  }

  tick() {
    const seconds = this.engine.position / this.song.sampleRate;
    const text = `${clock(seconds, 1)} / ${clock(this.seconds)}`;
    const time = this.find(".time");
    if (time.textContent !== text) {
      time.textContent = text;
      const position = this.find(".position");
      position.value = seconds;
      position.setAttribute("aria-valuetext", `${clock(seconds)} of ${clock(this.seconds)}`);
      this.find(".playhead").style.left = `${(100 * seconds) / this.seconds}%`;
    }
    this.animation = requestAnimationFrame(() => this.tick());
  }
}

if (!customElements.get("stem-player")) customElements.define("stem-player", StemPlayer);
