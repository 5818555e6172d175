// Small helpers for making elements.

const KNOWN = [
  "vocals", "drums", "bass", "other", "guitar", "piano", "instrumental", "original",
];

export function colorOf(name, index) {
  const word = name.toLowerCase();
  return KNOWN.find((known) => word.includes(known)) || `extra-${index % 4}`;
}

export function press(button, pressed) {
  button.setAttribute("aria-pressed", String(pressed));
}

export function element(tag, attributes = {}, text = "") {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.textContent = text;
  return made;
}
