// What the player consists of, before anything happens: a bar, a timeline of rows, downloads.

import { clock } from "./drawing.js";
import { colorOf, element } from "./elements.js";
import { icon } from "./icons.js";

// The whole player of a song. `base` is its address, `groups` the separations to choose from.
export function layout(song, base, groups) {
  const player = element("section", { class: "player", "aria-label": `Player: ${song.title}` });
  player.append(header(song), transport(groups), timeline(song, base), footer(song, base));
  return player;
}

function header(song) {
  const head = element("header");
  head.append(element("h2", {}, song.title));
  const length = clock(song.samples / song.sampleRate);
  const facts = [length, `${song.sampleRate / 1000} kHz`, song.model];
  head.append(element("p", { class: "facts" }, facts.filter(Boolean).join(" · ")));
  for (const note of song.notes) head.append(element("p", { class: "note" }, note));
  return head;
}

function transport(groups) {
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
  const versions = [...groups.map((group) => [group, group || "Stems"]), [null, "Original"]];
  for (const [group, label] of versions) {
    const button = element("button", { title: `Hear: ${label} (o)` }, label);
    button.group = group;
    bar.querySelector(".hear").append(button);
  }
  return bar;
}

function timeline(song, base) {
  const box = element("div", { class: "timeline" });
  const ruler = element("div", { class: "ruler" });
  ruler.innerHTML = `<canvas aria-hidden="true"></canvas>
    <input class="position" type="range" min="0" step="any" aria-label="Position in the song">`;
  ruler.querySelector("input").max = song.samples / song.sampleRate;
  box.append(ruler, ...song.tracks.map((_, index) => row(song, base, index)));
  const overlay = element("div", { class: "overlay", "aria-hidden": "true" });
  overlay.innerHTML = '<div class="selection" hidden></div><div class="playhead"></div>';
  box.append(overlay);
  return box;
}

function row(song, base, index) {
  const { name, group } = song.tracks[index];
  const line = element("div", { class: "row", role: "group", "aria-label": name });
  line.dataset.index = index;
  line.style.setProperty("--stem", `var(--stem-${colorOf(name, index)})`);
  const controls = index === 0 ? "" : `
    <button class="solo" aria-pressed="false" title="Solo (s)">S</button>
    <button class="mute" aria-pressed="false" title="Mute (m)">M</button>
    <input class="volume" type="range" min="0" max="1.5" step="0.01" value="1"
      title="Volume; double-click for 100 %">`;
  line.innerHTML = `<div class="head">
      <span class="name"></span>${controls}
      <a class="save" download href="${base}/track/${index}">${icon("save")}</a>
    </div><canvas class="lane" role="img"></canvas>`;
  label(line, name);
  const title = line.querySelector(".name");
  title.title = name;
  const digit = song.tracks.slice(1, index + 1).filter((track) => track.group === group).length;
  if (index) title.append(element("span", { class: "number", "aria-hidden": "true" }, `${digit} `));
  title.append(name);
  return line;
}

// Say to which stem each control of a row belongs; the name may be anything, so it is never HTML.
function label(line, name) {
  const words = { solo: "Solo", mute: "Mute", volume: "Volume of", save: "Download" };
  for (const [control, word] of Object.entries(words)) {
    line.querySelector(`.${control}`)?.setAttribute("aria-label", `${word} ${name}`);
  }
  line.querySelector(".save").title = `Download ${name}`;
}

function footer(song, base) {
  const foot = element("footer");
  foot.innerHTML = `
    <a class="button mix" download href="#">${icon("save")}This mix</a>
    <a class="button" download href="${base}/stems.zip">${icon("save")}All stems (zip)</a>
    <details><summary>Keys</summary><dl>
      <dt>space</dt><dd>play, pause</dd><dt>1 – 9</dt><dd>choose a stem</dd>
      <dt>s</dt><dd>solo</dd><dt>m</dt><dd>mute</dd><dt>↑ ↓</dt><dd>volume</dd>
      <dt>← →</dt><dd>5 seconds</dd><dt>o</dt><dd>original or stems</dd>
      <dt>l</dt><dd>loop</dd><dt>[ ]</dt><dd>loop begins, ends here</dd></dl></details>
    <p class="trouble" role="alert"></p>
    <div class="truth" aria-live="polite"></div>`;
  if (song.blind) foot.prepend(element("button", { class: "button reveal" }, "Which is which?"));
  return foot;
}
