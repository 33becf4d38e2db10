// The monthly index of negative traffic narratives.

import { get } from "./api.js";
import { narrativeChart } from "./charts.js";
import { fill, h } from "./dom.js";
import { released } from "./press.js";
import { count, percent, signed, word } from "./words.js";

const ROWS = 24; // months of the table; the chart has all
const SEOUL_MS = 9 * 3600000; // ahead of UTC, in summer too

/** The months, oldest first; none where the traffic pipeline has counted nothing. */
export async function narrativeMonths() {
  return (await get("narrative")).months;
}

/** A month's name, marked while it runs in Korea. */
function monthName(month) {
  const running = new Date(Date.now() + SEOUL_MS).toISOString().slice(0, 7);
  return month === running ? `${month} (${word("so_far")})` : month;
}

export class NarrativeView {
  constructor() {
    this.symbol = null;
    this.title = h("h1");
    this.note = h("p", { class: "note" });
    this.numbers = h("dl", { class: "numbers" });
    this.canvas = h("div", { class: "chart" });
    this.table = h("table", { class: "months" });
    this.node = h("div", { class: "coin" },
      h("section", { class: "panel" }, h("div", { class: "coin-head" }, this.title), this.note, this.numbers),
      h("section", { class: "panel" }, this.canvas),
      h("section", { class: "panel" }, this.table));
  }

  async load() {
    const round = (this.round = (this.round ?? 0) + 1);
    const months = await narrativeMonths();
    await released();
    if (round !== this.round || JSON.stringify(months) === JSON.stringify(this.shown)) return;
    this.shown = months;
    this.redraw();
  }

  /** With what is known: new months, another language or theme. */
  redraw() {
    if (!this.shown) return;
    const months = this.shown;
    this.clear();
    this.title.textContent = word("narrative");
    this.note.textContent = word("narrative_note");
    const last = months.findLast((month) => month.articles > 0);
    fill(this.numbers, last ? [
      ["month", monthName(last.month)], ["share", percent(last.share)],
      ["interval", `${percent(last.share_low)} – ${percent(last.share_high)}`],
      ["articles", count(last.articles)], ["standardised", last.standardised === null ? "–" : `${signed(last.standardised, 1)}σ`],
    ].map(([name, value]) => h("div", {}, h("dt", {}, word(name)), h("dd", {}, h("b", {}, value)))) : []);
    if (!last) {
      fill(this.canvas, h("div", { class: "empty" }, h("h2", {}, word("empty_narrative")), h("p", {}, word("empty_narrative_do"))));
      fill(this.table);
      return;
    }
    fill(this.canvas);
    this.chart = narrativeChart(this.canvas, months, monthName);
    const columns = ["month", "articles", "negatives", "share", "interval", "standardised"];
    fill(this.table,
      h("thead", {}, h("tr", {}, columns.map((name) => h("th", { scope: "col" }, word(name))))),
      h("tbody", {}, months.slice(-ROWS).reverse().map((month) => h("tr", {},
        [monthName(month.month), count(month.articles), count(month.negatives), percent(month.share),
          month.share === null ? "–" : `${percent(month.share_low)} – ${percent(month.share_high)}`,
          month.standardised === null ? "–" : signed(month.standardised, 1)].map((value) => h("td", {}, value))))));
  }

  clear() {
    this.chart?.destroy();
    this.chart = null;
  }
}
