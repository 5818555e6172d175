// <stem-player src="stems/TOKEN">: a song with its stems, to listen to and to take away.
//
//   layout.js             what is there
//   keys.js, gestures.js  what hands do  ──>  player  ──>  engine.js    what is heard
//                                                   └───>  pictures.js  what is seen of it

import { chart } from "./chart.js";
import { clock } from "./drawing.js";
import { element, press } from "./elements.js";
import { Engine, reason } from "./engine.js";
import { listenToLane } from "./gestures.js";
import { icon } from "./icons.js";
import { onKey } from "./keys.js";
import { layout } from "./layout.js";
import { Pictures } from "./pictures.js";

export class StemPlayer extends HTMLElement {
  async connectedCallback() {
    this.base = this.getAttribute("src");
    const root = this.shadowRoot || this.attachShadow({ mode: "open" });
    root.innerHTML = `<link rel="stylesheet" href="${new URL("player.css", import.meta.url)}">
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
    this.pictures?.close();
    cancelAnimationFrame(this.animation);
    document.removeEventListener("keydown", this.onKey);
  }

  open(song) {
    if (!this.isConnected) return;
    const root = this.shadowRoot;
    this.song = song;
    this.seconds = song.samples / song.sampleRate;
    this.groups = [...new Set(song.tracks.slice(1).map((track) => track.group))];
    this.shown = this.groups[0]; // the group whose rows are seen
    this.original = false;
    this.selected = 1;
    this.find = (selector) => root.querySelector(selector);
    this.all = (selector) => [...root.querySelectorAll(selector)];
    this.find(".wait").replaceWith(layout(song, this.base, this.groups));
    this.engine = new Engine(this.base, song);
    this.pictures = new Pictures(root, song, this.base);
    this.listen();
    this.hear(this.shown);
    this.tick();
    if (innerWidth <= 720) this.scrollIntoView(); // there it appears below all else
  }

  // --- what can be done --------------------------------------------------------------------

  listen() {
    const { engine } = this;
    this.find(".play").onclick = () => engine.toggle();
    this.find(".mix").onclick = (event) => {
      if (engine.gains.some((gain) => gain > 0)) return;
      event.preventDefault();
      this.complain("Nothing is heard: unmute a stem, or raise its volume.");
    };
    this.find(".repeat").onclick = () => this.toggleLoop();
    for (const field of this.all(".from, .to")) field.onchange = () => this.readLoop();
    for (const button of this.all("[data-view]")) {
      button.onclick = () => this.show(button.dataset.view);
    }
    for (const button of this.all(".hear button")) button.onclick = () => this.hear(button.group);
    for (const button of this.all(".reveal")) button.onclick = () => this.reveal(button);
    const position = this.find(".position");
    position.oninput = () => engine.seek(position.value * this.song.sampleRate);
    for (const row of this.all(".row")) this.listenToRow(row);
    this.onKey = (event) => onKey(this, event);
    document.addEventListener("keydown", this.onKey);
    engine.addEventListener("change", () => this.refresh());
    engine.addEventListener("trouble", (event) => this.complain(event.detail));
  }

  listenToRow(row) {
    const index = Number(row.dataset.index);
    row.onpointerdown = () => this.select(index);
    row.onfocusin = () => this.select(index);
    listenToLane(row.querySelector(".lane"), this.song.samples, {
      mark: (range) => this.mark(range),
      loop: (range) => this.engine.setLoop(range),
      seek: (sample) => this.engine.seek(sample),
    });
    if (index === 0) return;
    row.querySelector(".solo").onclick = () => this.toggle(index, "solo");
    row.querySelector(".mute").onclick = () => this.toggle(index, "muted");
    const volume = row.querySelector(".volume");
    volume.oninput = () => this.level(index, { volume: Number(volume.value) });
    volume.ondblclick = () => this.level(index, { volume: 1 });
  }

  complain(text) {
    this.find(".trouble").textContent = text;
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
    this.refresh();
    this.pictures.draw();
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
    const room = Math.max(0, to - song.sampleRate); // at the very end, the last second
    engine.setLoop(engine.loop ? null : { from: Math.min(from, room), to });
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
    this.pictures.show(view);
    this.refresh();
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
    for (const button of this.all("[data-view]")) {
      press(button, button.dataset.view === this.pictures.view);
    }
    engine.gains.forEach((gain, index) => this.refreshRow(index, gain));
    this.refreshLoop();
    this.complain("");
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
    const percent = Math.round(100 * level.volume);
    volume.title = `Volume: ${percent} %; double-click for 100 %`;
    volume.setAttribute("aria-valuetext", `${percent} percent`);
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
