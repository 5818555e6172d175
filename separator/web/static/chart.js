// Bars of SDR in dB, once a blind comparison is revealed: one row for a stem and a group.

import { colorOf, element } from "./elements.js";

export function chart(scores) {
  const most = Math.max(1, ...Object.values(scores).flatMap((values) => Object.values(values)));
  const table = element("table", { class: "chart" });
  table.append(element("caption", {}, "Signal to distortion ratio in dB: more is closer"));
  for (const [stem, values] of Object.entries(scores)) {
    for (const [number, [group, value]] of Object.entries(values).entries()) {
      const line = table.insertRow();
      line.append(element("th", { scope: "row" }, `${stem}, ${group}`));
      const bar = element("div", { class: "mark" });
      bar.style.width = `${Math.max(0.5, (100 * Math.max(0, value)) / most)}%`;
      bar.style.background = `var(--stem-${colorOf(stem, 1)})`;
      bar.style.opacity = number ? 0.6 : 1;
      line.insertCell().append(bar);
      line.insertCell().textContent = value.toFixed(2);
    }
  }
  return table;
}
