// What a pointer does on the picture of a track: a click seeks, a drag chooses what is looped.

// `mark` is told the range while it is drawn, `loop` when it is done, `seek` a single place; all
// in samples of a song that has so many.
export function listenToLane(lane, samples, { mark, loop, seek }) {
  const at = (event) => {
    const box = lane.getBoundingClientRect();
    const share = Math.max(0, Math.min(1, (event.clientX - box.left) / box.width));
    return Math.round(share * samples);
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
      mark(range);
    };
    lane.onpointerup = () => {
      lane.onpointermove = lane.onpointerup = null;
      if (range) loop(range);
      else seek(from);
    };
  };
}
