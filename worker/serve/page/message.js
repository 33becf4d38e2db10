// One signal with its text; the text is a stranger's and only ever a text node.

import { h } from "./dom.js";
import { badge } from "./marks.js";
import { clock, plain, word } from "./words.js";

export function message(signal) {
  const coins = signal.coins.map((symbol) => h("a", { class: "chip", href: `#/coin/${encodeURIComponent(symbol)}` }, symbol));
  const score = (name) => h("span", { class: "score", title: word(name) }, `${word(name)} ${plain(signal[name])}`);
  return h("li", { class: `message edge-${signal.sentiment_strength}` },
    h("div", { class: "message-head" }, coins, badge(signal.sentiment_strength), badge(signal.action_signal),
      h("time", { dateTime: signal.published_at }, clock(signal.published_at))),
    h("p", { class: "message-text" }, signal.text ?? word("hidden_text")),
    h("div", { class: "message-foot" }, h("span", { class: "source" }, signal.source),
      signal.emotions.map((name) => h("span", { class: `emotion ink-${name}` }, word(name))),
      score("certainty"), score("relevance"), signal.toxicity >= 0.3 ? score("toxicity") : null));
}
