// Live signals with filters.

import { fill, h, renew } from "./dom.js";
import { message } from "./message.js";
import { ACTIONS, SENTIMENTS, word } from "./words.js";

const KEPT = 80;

/** An id is one message of its source; two rooms may have the same. */
const identity = (signal) => `${signal.source}\n${signal.id}`;

/** The newest of several lists, each signal once. */
function newest(...lists) {
  const signals = new Map(lists.flat().map((signal) => [identity(signal), signal]));
  return [...signals.values()].sort((a, b) => Date.parse(b.processed_at) - Date.parse(a.processed_at)).slice(0, KEPT);
}

export class Feed {
  constructor(node, { onFilter, symbolOf }) {
    this.node = node;
    this.symbolOf = symbolOf;
    this.signals = [];
    this.held = [];
    this.paused = false;
    this.coin = h("input", { type: "text", id: "filter-coin", size: 8, autocomplete: "off", spellcheck: false });
    this.sentiment = h("select", { id: "filter-sentiment" });
    this.action = h("select", { id: "filter-action" });
    this.certainty = h("input", { type: "range", id: "filter-certainty", min: 0, max: 1, step: 0.05, defaultValue: 0 });
    this.relevance = h("input", { type: "range", id: "filter-relevance", min: 0, max: 1, step: 0.05, defaultValue: 0 });
    this.pauseButton = h("button", { type: "button", id: "pause", onclick: () => this.pause(!this.paused) });
    this.resetButton = h("button", { type: "reset" });
    this.title = h("h1");
    this.outputs = [h("output"), h("output")];
    this.labels = [h("span"), h("span")];
    this.list = h("ul", { class: "messages" });
    this.note = h("p", { class: "empty" });
    const changed = () => {
      clearTimeout(this.timer);
      this.showValues();
      this.timer = setTimeout(() => { this.signals = []; this.held = []; this.render(); this.checkCoin(); onFilter(); }, 250);
    };
    const form = h("form", { class: "filters", oninput: changed, onsubmit: (event) => event.preventDefault(), onreset: () => setTimeout(changed) },
      h("div", { class: "filter-row" }, this.coin, this.sentiment, this.action),
      h("div", { class: "filter-row" },
        h("label", {}, this.labels[0], this.outputs[0], this.certainty),
        h("label", {}, this.labels[1], this.outputs[1], this.relevance),
        this.resetButton));
    fill(node, h("div", { class: "panel-head" }, this.title, this.pauseButton), form, this.list, this.note);
  }

  label() {
    this.title.textContent = word("feed");
    this.coin.placeholder = word("all_coins");
    this.coin.setAttribute("aria-label", word("coin"));
    options(this.sentiment, "all_sentiments", SENTIMENTS);
    options(this.action, "all_actions", ACTIONS);
    this.labels[0].textContent = word("min_certainty");
    this.labels[1].textContent = word("min_relevance");
    this.resetButton.textContent = word("reset");
    this.showValues();
    this.render();
  }

  showValues() {
    this.outputs[0].textContent = `≥ ${Number(this.certainty.value).toFixed(2)}`;
    this.outputs[1].textContent = `≥ ${Number(this.relevance.value).toFixed(2)}`;
  }

  /** Say so where the field names no coin, and all are shown. */
  checkCoin() {
    this.coin.setCustomValidity(this.coin.value.trim() && !this.query().coin ? word("not_found") : "");
    if (document.activeElement === this.coin) this.coin.reportValidity();
  }

  /** The filter as the API takes it; a coin by its symbol, or by a name that the board knows. */
  query() {
    const name = this.coin.value.trim();
    const coin = (name && this.symbolOf(name)) || name.toUpperCase();
    return {
      coin: /^[0-9A-Z._-]{1,32}$/i.test(coin) ? coin : "",
      sentiment: this.sentiment.value,
      action: this.action.value,
      min_certainty: Number(this.certainty.value) || "",
      min_relevance: Number(this.relevance.value) || "",
    };
  }

  /** Whether the filter lets a signal through, as the API would: the stream has them all. */
  passes(signal) {
    const wanted = this.query();
    return (!wanted.coin || signal.coins.includes(wanted.coin))
      && (!wanted.sentiment || signal.sentiment_strength === wanted.sentiment)
      && (!wanted.action || signal.action_signal === wanted.action)
      && signal.certainty >= wanted.min_certainty && signal.relevance >= wanted.min_relevance;
  }

  /** What came before, and what was missed while there was no connection. */
  start(signals) {
    if (this.paused && this.signals.length) {
      const shown = new Set(this.signals.map(identity));
      this.held = newest(this.held, signals.filter((signal) => !shown.has(identity(signal))));
    } else {
      this.signals = newest(this.signals, signals);
    }
    this.render();
  }

  add(signal) {
    if (this.paused) {
      this.held.unshift(signal);
      this.held.length = Math.min(this.held.length, KEPT);
      this.showPause();
      return;
    }
    if (this.signals.some((known) => identity(known) === identity(signal))) return;
    this.signals.unshift(signal);
    this.signals.length = Math.min(this.signals.length, KEPT);
    if (!this.drawing) { // a burst is drawn once a frame
      this.drawing = true;
      requestAnimationFrame(() => { this.drawing = false; this.render(); });
    }
  }

  pause(paused) {
    this.paused = paused;
    if (!paused) {
      this.signals = newest(this.held, this.signals);
      this.held = [];
    }
    this.render();
  }

  showPause() {
    this.pauseButton.textContent = this.paused ? `${word("resume")}${this.held.length ? ` · ${this.held.length}` : ""}` : word("pause");
    this.pauseButton.setAttribute("aria-pressed", String(this.paused));
  }

  render() {
    this.showPause();
    const nodes = new Map([...this.list.children].map((node) => [node.dataset.key, node]));
    renew(this.list, this.signals.map((signal) => {
      const key = `${document.documentElement.lang} ${identity(signal)}`;
      const node = nodes.get(key) ?? message(signal);
      node.dataset.key = key;
      return node;
    }));
    fill(this.note, this.signals.length ? null : word("empty_feed"));
  }
}

function options(select, all, names) {
  const chosen = select.value;
  fill(select, h("option", { value: "" }, word(all)), names.map((name) => h("option", { value: name }, word(name))));
  select.value = chosen;
  select.setAttribute("aria-label", word(all));
}
