// The few pictures that buttons bear, drawn with one pen.

const SHAPES = {
  play: '<path d="M7 4.5v15l12-7.5z" fill="currentColor"/>',
  pause: '<path d="M7 5h3.5v14H7zM13.5 5H17v14h-3.5z" fill="currentColor" stroke="none"/>',
  loop: '<path d="M4 11V9.5A3.5 3.5 0 0 1 7.5 6H20m-3-3 3 3-3 3M20 13v1.5a3.5 3.5 0 0 1-3.5 3.5H4m3 3-3-3 3-3"/>',
  save: '<path d="M12 4v11m-4.5-4.5L12 15l4.5-4.5M5 19.5h14"/>',
  record: '<circle cx="12" cy="12" r="6" fill="currentColor" stroke="none"/>',
  wave: '<path d="M3 12h2m2-4v8m3-12v16m3-13v10m3-7v4m3-6v8m2-4h1"/>',
  spectrum: '<path d="M4 20V9m4 11V4m4 16v-8m4 8V7m4 13v-5"/>',
};

export function icon(name) {
  return `<svg viewBox="0 0 24 24" width="18" height="18" fill="none" stroke="currentColor"
    stroke-width="1.8" stroke-linecap="round" stroke-linejoin="round" aria-hidden="true"
    focusable="false">${SHAPES[name]}</svg>`;
}
