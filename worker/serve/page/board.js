// All coins.

import { fill, h } from "./dom.js";
import { indexBar, mix, sparkline, zscore, tone } from "./marks.js";
import { ACTIONS, coinNames, count, signed, word, windowName } from "./words.js";

const BAND = 2; // standard deviations of the coin's own week
const LEAST = 5; // messages: fewer make no alarm

const COLUMNS = [
  ["coin", "symbol"], ["index", "index"], ["zscore", "zscore_index"], ["actions", null],
  ["volume", "volume"], ["zscore", "zscore_volume"], ["trend", null],
];

export class Board {
  constructor({ onSort }) {
    this.search = "";
    this.sort = "volume";
    this.answer = null;
    this.onSort = onSort;
    this.field = h("input", { type: "search", id: "search", oninput: () => { this.search = this.field.value; this.fillRows(); } });
    this.body = h("tbody");
    this.head = h("tr");
    this.title = h("h1");
    this.alerts = h("section", { class: "alerts", "aria-live": "polite" });
    this.legend = h("div", { class: "legend" });
    this.table = h("table", { class: "board" }, h("thead", {}, this.head), this.body);
    this.note = h("div", { class: "empty" });
    this.node = h("div", {},
      this.alerts,
      h("section", { class: "panel" }, h("div", { class: "panel-head" }, this.title, this.legend, this.field), this.table, this.note));
  }

  /** Labels, after the language has changed too. */
  label(window) {
    this.title.textContent = `${word("board")} · ${windowName(window)}`;
    this.field.placeholder = word("search");
    this.field.setAttribute("aria-label", word("search"));
    fill(this.legend, ACTIONS.map((name) => h("span", {}, h("i", { class: `fill-${name}` }), word(name))));
    fill(this.head, COLUMNS.map(([name, sort], n) => h("th", { scope: "col", class: `c${n}`, "aria-sort": sort === this.sort ? (sort === "symbol" ? "ascending" : "descending") : null },
      sort ? h("button", { type: "button", class: sort === this.sort ? "on" : "", title: `${word("sort_by")}: ${word(name)}`, onclick: () => this.sortBy(sort, window, n) }, word(name)) : word(name))));
  }

  sortBy(sort, window, n) {
    this.sort = sort;
    this.label(window);
    this.head.children[n].firstElementChild.focus(); // its button is a new one
    this.onSort();
  }

  /** The symbol of a coin by one of its names; undefined where the board has none of this name. */
  symbolOf(name) {
    const wanted = name.toLowerCase();
    return this.answer?.coins.find((coin) => coin.symbol !== "MARKET" && [coin.symbol, coin.korean, coin.english].some((known) => known.toLowerCase() === wanted))?.symbol;
  }

  show(answer) {
    this.answer = answer;
    this.fillAlerts();
    this.fillRows();
  }

  fillRows() {
    if (!this.answer) return;
    const wanted = this.search.trim().toLowerCase();
    const said = this.answer.coins.filter((coin) => coin.freshness !== null);
    const rows = said.filter((coin) => !wanted || [coin.symbol, coin.korean, coin.english].some((name) => name.toLowerCase().includes(wanted)));
    const focused = document.activeElement?.closest?.("tr")?.dataset.symbol;
    fill(this.body, rows.map((coin) => this.row(coin)));
    if (focused) this.body.querySelector(`tr[data-symbol="${CSS.escape(focused)}"] a`)?.focus();
    this.table.hidden = rows.length === 0;
    if (rows.length) fill(this.note);
    else if (said.length) fill(this.note, h("p", {}, word("no_match")));
    else fill(this.note, h("h2", {}, word("empty_board")), h("p", {}, word("empty_board_do")));
  }

  row(coin) {
    const m = coin.metrics;
    const [first, second] = coinNames(coin);
    const link = h("a", { href: `#/coin/${encodeURIComponent(coin.symbol)}` },
      h("b", {}, first), h("small", {}, coin.symbol === "MARKET" ? second : `${coin.symbol} · ${second}`));
    const cells = [link, indexBar(m.sentiment_index), zscore(m.zscore_index), mix(m.action, ACTIONS),
      h("b", { class: "number" }, count(m.messages)), zscore(m.zscore_volume, "volume"), sparkline(coin.spark)];
    return h("tr", { "data-symbol": coin.symbol, class: `${coin.symbol === "MARKET" ? "market" : ""} ${m.messages ? "" : "quiet"}`, onclick: (event) => { if (!event.target.closest("a")) link.click(); } },
      cells.map((cell, n) => h("td", { class: `c${n}` }, cell)));
  }

  fillAlerts() {
    const found = [];
    let known = false;
    for (const coin of this.answer.coins) {
      const m = coin.metrics;
      for (const [name, z] of [["alert_index", m.zscore_index], ["alert_volume", m.zscore_volume]]) {
        known ||= z !== null;
        if (z !== null && Math.abs(z) >= BAND && m.messages >= LEAST) found.push([coin, name, z]);
      }
    }
    found.sort((a, b) => Math.abs(b[2]) - Math.abs(a[2]));
    const calm = this.answer.window === "7d" ? "alerts_week" : known || !this.answer.coins.some((coin) => coin.freshness !== null) ? "no_alerts" : "alerts_warming";
    const text = JSON.stringify([word("alerts"), calm, found.slice(0, 8).map(([coin, name, z]) => [coin.symbol, name, z.toFixed(1)])]);
    if (text === this.told) return; // a live region that is rewritten is read aloud again
    this.told = text;
    fill(this.alerts, h("h2", {}, word("alerts")), found.length
      ? found.slice(0, 8).map(([coin, name, z]) => h("a", { class: `alert ${name === "alert_volume" ? "volume" : tone(z)}`, href: `#/coin/${encodeURIComponent(coin.symbol)}` },
        h("b", {}, coinNames(coin)[0]), ` ${word(name)} `, h("span", {}, `${signed(z, 1)}σ`)))
      : h("p", {}, word(calm)));
  }
}
