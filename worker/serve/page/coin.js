// One coin over time.

import { ApiError, get } from "./api.js";
import { indexChart, scoreChart, stackChart } from "./charts.js";
import { fill, h, renew } from "./dom.js";
import { indexBar, mix, zscore } from "./marks.js";
import { message } from "./message.js";
import { released } from "./press.js";
import { ACTIONS, coinNames, count, duration, EMOTIONS, percent, plain, signed, windowName, word } from "./words.js";

const METRICS = ["sentiment_index", "messages", "action", "emotion", "certainty", "relevance", "toxicity"];

const WANTED = 40; // points of a chart
const LEAST_MS = 10 * 60000;
const LEAST_POINTS = 3;

export class CoinView {
  constructor(symbol) {
    this.symbol = symbol;
    this.charts = [];
    this.head = h("div", { class: "coin-head" });
    this.back = back();
    this.numbers = h("dl", { class: "numbers" });
    this.panels = ["index_chart", "action_chart", "emotion_chart", "score_chart"].map((name) => {
      const title = h("h2");
      const canvas = h("div", { class: "chart" });
      return { name, title, canvas, node: h("section", { class: "panel" }, h("div", { class: "panel-head" }, title), canvas) };
    });
    this.list = h("ul", { class: "messages" });
    this.listTitle = h("h2");
    this.parts = [
      h("section", { class: "panel" }, this.head, this.numbers),
      this.panels[0].node, h("div", { class: "pair" }, this.panels[1].node, this.panels[2].node), this.panels[3].node,
      h("section", { class: "panel" }, h("div", { class: "panel-head" }, this.listTitle), this.list),
    ];
    this.node = h("div", { class: "coin" }, this.parts);
  }

  /** Read and draw; a newer call takes the place of this one. */
  async load(window) {
    const round = (this.round = (this.round ?? 0) + 1);
    const path = `coins/${encodeURIComponent(this.symbol)}`;
    let answers;
    try {
      answers = await Promise.all([
        get(path), history(path, window),
        get("signals/recent", { coin: this.symbol === "MARKET" ? "" : this.symbol, limit: 30 }),
      ]);
    } catch (error) {
      // 422 is a name that no coin can have: all else in these requests is ours.
      if (!(error instanceof ApiError) || ![404, 422].includes(error.status)) throw error;
      if (round === this.round) fill(this.node, h("section", { class: "panel empty" }, h("h2", {}, `${word("not_found")}: ${this.symbol}`), back()));
      return;
    }
    await released();
    if (round === this.round) this.show(window, ...answers);
  }

  show(window, coin, series, recent) {
    this.shown = [window, coin, series, recent];
    if (this.parts[0].parentNode !== this.node) fill(this.node, this.parts); // there was no such coin before
    const m = coin.windows[window];
    const [first, second] = coinNames(coin);
    this.back.textContent = back().textContent;
    renew(this.head, [this.back, h("h1", {}, first, h("small", {}, `${coin.symbol} · ${second}`)),
      h("span", { class: "fresh" }, `${word("freshness")} ${coin.freshness === null ? "–" : `${duration(coin.freshness)} ${word("late_ago")}`} · ${windowName(window)}`)]);
    const numbers = [
      ["index", indexBar(m.sentiment_index), zscore(m.zscore_index)],
      ["volume", h("b", {}, count(m.messages)), zscore(m.zscore_volume, "volume")],
      ["authors", h("b", {}, count(m.unique_authors))],
      ["balance", h("b", {}, signed(m.action_balance)), mix(m.action, ACTIONS)],
      ["certainty", h("b", {}, plain(m.certainty))],
      ["relevance", h("b", {}, plain(m.relevance))],
      ["toxicity", h("b", {}, plain(m.toxicity))],
      ["dispersion", h("b", {}, plain(m.dispersion))],
      ["dominance", h("b", {}, percent(m.dominance))],
    ];
    fill(this.numbers, numbers.map(([name, ...values]) => h("div", { class: `n-${name}` }, h("dt", {}, word(name)), h("dd", {}, values))));
    this.draw(series);
    this.listTitle.textContent = word("messages");
    fill(this.list, recent.signals.length ? recent.signals.map(message) : h("li", { class: "empty" }, word("empty_messages")));
  }

  draw(series) {
    // A chart is not drawn anew under the reader's pointer; the next round does it. A finger leaves :hover behind.
    const pointed = matchMedia("(hover: hover)").matches && this.node.querySelector(".chart:hover");
    if (this.charts.length && this.drawn === series.window && pointed) return;
    this.drawn = series.window;
    this.clear();
    const points = series.values.messages.filter((value) => value > 0).length;
    const silent = points < LEAST_POINTS;
    const draw = [
      (node) => indexChart(node, series), (node) => stackChart(node, series, "action", ACTIONS),
      (node) => stackChart(node, series, "emotion", EMOTIONS), (node) => scoreChart(node, series),
    ];
    this.panels.forEach(({ name, title, canvas }, n) => {
      title.textContent = word(name);
      fill(canvas, silent ? h("p", { class: "empty" }, word(points ? "young_series" : "no_series")) : null);
      if (!silent) this.charts.push(draw[n](canvas));
    });
  }

  /** Again with what is known: another language or theme. */
  redraw() {
    this.drawn = null;
    if (this.shown) this.show(...this.shown);
  }

  clear() {
    for (const chart of this.charts) chart.destroy();
    this.charts = [];
  }
}

/** The series; of a coin that is spoken of since a short time, that time alone and finer. */
async function history(path, window) {
  const whole = await get(`${path}/series`, { metric: METRICS, window });
  const first = whole.values.messages.findIndex((value) => value > 0);
  if (first < 1 || whole.times.length - first >= WANTED) return whole;
  // By the server's clock: one of a browser that was days behind asked for minutes that are not kept.
  const from = Math.min(Date.parse(whole.times[first - 1]), Date.parse(whole.times.at(-1)) - LEAST_MS);
  return get(`${path}/series`, { metric: METRICS, window, from: new Date(from).toISOString() });
}

function back() {
  return h("a", { class: "back", href: "#/" }, `← ${word("back")}`);
}
