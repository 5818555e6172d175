// <song-recorder for="#song">: records from the microphone and hands the file to an upload.
//
// What browsers do to speech (echo cancellation, noise suppression, automatic gain) spoils music,
// so all of it is switched off.

import { icon } from "./icons.js";
import { hand } from "./upload.js";

const SOUND = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
const KINDS = [
  ["audio/webm;codecs=opus", "webm"],
  ["audio/mp4", "m4a"],
  ["audio/ogg;codecs=opus", "ogg"],
];
const BITS_PER_SECOND = 256_000;

export class SongRecorder extends HTMLElement {
  connectedCallback() {
    this.root = this.shadowRoot || this.attachShadow({ mode: "open" });
    this.root.innerHTML = `<link rel="stylesheet" href="${new URL("recorder.css", import.meta.url)}">
      <button type="button" aria-pressed="false">${icon("record")}<span>Record</span></button>
      <output aria-live="off"></output><p role="alert"></p>`;
    this.button = this.root.querySelector("button");
    this.button.onclick = () => (this.recorder ? this.recorder.stop() : this.record());
  }

  disconnectedCallback() {
    this.recorder?.stop();
  }

  say(text) {
    this.root.querySelector("p").textContent = text;
  }

  async record() {
    if (this.asking) return; // the browser asks for permission, and once is enough
    this.say("");
    if (!navigator.mediaDevices) {
      this.say("Browsers record only on pages of this computer, or over https.");
      return;
    }
    this.asking = true;
    try {
      const stream = await navigator.mediaDevices.getUserMedia({ audio: SOUND });
      if (this.isConnected) this.start(stream);
      else release(stream);
    } catch (error) {
      const refused = error.name === "NotAllowedError";
      this.say(refused ? "The browser was not allowed to record." : "No microphone was found.");
    } finally {
      this.asking = false;
    }
  }

  start(stream) {
    const [type, suffix] = KINDS.find(([kind]) => MediaRecorder.isTypeSupported(kind));
    const options = { mimeType: type, audioBitsPerSecond: BITS_PER_SECOND };
    const [recorder, pieces, began] = [new MediaRecorder(stream, options), [], Date.now()];
    recorder.ondataavailable = (event) => pieces.push(event.data);
    recorder.onstop = () => {
      clearInterval(this.timer);
      release(stream);
      this.recorder = null;
      this.show(false);
      if (this.isConnected) this.hand(new File(pieces, `Recording.${suffix}`, { type }));
    };
    this.recorder = recorder;
    this.show(true);
    const tick = () => {
      const seconds = Math.floor((Date.now() - began) / 1000);
      const rest = String(seconds % 60).padStart(2, "0");
      this.root.querySelector("output").textContent = `${Math.floor(seconds / 60)}:${rest}`;
    };
    tick();
    this.timer = setInterval(tick, 250);
    recorder.start(1000);
  }

  show(recording) {
    this.button.setAttribute("aria-pressed", String(recording));
    this.button.querySelector("span").textContent = recording ? "Stop" : "Record";
    if (!recording) this.root.querySelector("output").textContent = "";
  }

  async hand(file) {
    const upload = document.querySelector(this.getAttribute("for"));
    if (!(await hand(upload, [file]))) this.say("Take the song away first, then record again.");
  }
}

// Switch the microphone off.
function release(stream) {
  for (const track of stream.getTracks()) track.stop();
}

if (!customElements.get("song-recorder")) customElements.define("song-recorder", SongRecorder);
