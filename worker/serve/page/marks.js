// Small marks of the board: diverging bar, mix, sparkline, labels.

import { h, svg } from "./dom.js";
import { signed, word } from "./words.js";

/** A bar that grows from the middle, -1 to 1. */
export function indexBar(value) {
  const bar = h("i", { class: value < 0 ? "neg" : "pos" });
  bar.style.width = `${Math.min(1, Math.abs(value ?? 0)) * 50}%`;
  const text = signed(value);
  return h("div", { class: "index" },
    h("span", { class: "diverging", "aria-hidden": "true" }, bar),
    h("b", { class: tone(value) }, text));
}

/** Shares side by side. */
export function mix(counts, names) {
  const total = names.reduce((sum, name) => sum + counts[name], 0);
  const parts = names.filter((name) => counts[name] > 0).map((name) => {
    const part = h("i", { class: `fill-${name}` });
    part.style.flexGrow = counts[name];
    return part;
  });
  const title = names.map((name) => `${word(name)} ${total ? Math.round((100 * counts[name]) / total) : 0}%`).join(", ");
  return h("span", { class: "mix", role: "img", title, "aria-label": title }, parts);
}

/** Bars of volume, coloured by the index of their time. */
export function sparkline(spark) {
  const most = Math.max(1, ...spark.messages);
  const picture = svg("svg", { class: "spark", viewBox: `0 0 ${spark.messages.length * 4} 24`, preserveAspectRatio: "none", "aria-hidden": "true" });
  spark.messages.forEach((messages, n) => {
    if (!messages) return;
    const height = Math.max(1.5, (messages / most) * 24);
    const index = spark.sentiment_index[n];
    picture.append(svg("rect", { x: n * 4, y: 24 - height, width: 3, height, class: Math.abs(index ?? 0) < 0.05 ? "even" : tone(index) }));
  });
  return picture;
}

/** A z-score, marked where it leaves the band. */
export function zscore(value, colour = tone(value)) {
  const out = value !== null && Math.abs(value) >= 2;
  return h("span", { class: out ? `z out ${colour}` : "z" }, value === null ? "–" : `${signed(value, 1)}σ`);
}

export function tone(value) {
  if (value === null || value === undefined || value === 0) return "none";
  return value < 0 ? "neg" : "pos";
}

/** A label as a small badge. */
export function badge(name) {
  return h("span", { class: `badge ${name}` }, word(name));
}
