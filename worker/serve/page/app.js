// The page: one stream, one board, one coin at a time.

import { ApiError, get, hasToken, setToken, Stream } from "./api.js";
import { Board } from "./board.js";
import { CoinView } from "./coin.js";
import { fill, h } from "./dom.js";
import { Feed } from "./feed.js";
import { narrativeMonths, NarrativeView } from "./narrative.js";
import { currentLanguage, setLanguage, WINDOWS, windowName, word } from "./words.js";

const element = (id) => document.getElementById(id);
const kept = (name, otherwise) => localStorage.getItem(`kbert.${name}`) ?? otherwise;
const keep = (name, value) => localStorage.setItem(`kbert.${name}`, value);

let window_ = WINDOWS.includes(kept("window")) ? kept("window") : "1h";
let coin = null; // a CoinView or the NarrativeView; the board where null
let changed = true; // something came since the board was read
let lastRead = 0;
let reading = false;
let round = 0; // of readings: a late answer to an older one is dropped
let feedRound = 0;
let state = "connecting";
let problem = null; // why the stream was lost
const failed = { view: null, feed: null }; // status of a read that failed, 0 where nothing answered; null after a good one
const BANNERS = { 429: "busy_banner", 503: "redis_banner" }; // of a read, by its status

const board = new Board({ onSort: () => readAnew() });
const feed = new Feed(element("feed"), { onFilter: () => { stream.open(feed.query()); fillFeed(); }, symbolOf: (name) => board.symbolOf(name) });
const stream = new Stream({
  onEvent(kind, data) {
    changed = true;
    if (kind === "signal") feed.add(data);
  },
  onState(now, why) {
    const returned = state === "lost" && now === "live";
    if (now !== "connecting" || state !== "lost") state = now; // a try is no news while the banner stands
    problem = now === "lost" ? why : now === "live" ? null : problem;
    showState();
    if (returned) { refresh(); fillFeed(); offerNarrative(); }
  },
});

function showState() {
  const status = element("status");
  status.className = `status ${state}`;
  status.lastElementChild.textContent = word(state);
  const why = state === "lost" ? problem : failed.view ?? failed.feed;
  const asks = why === 401;
  element("token").hidden = !asks;
  const text = asks ? (hasToken() ? word("token_wrong") : "") : state === "lost" ? word(why === 1013 ? "slow_banner" : "lost_banner") : why === null ? "" : word(BANNERS[why] ?? "stale_banner");
  element("banner").hidden = !text;
  element("banner").textContent = text;
}

function noteRead(of, status) {
  if (failed[of] === status) return;
  failed[of] = status;
  showState();
}

async function refresh() {
  if (reading) return;
  reading = true;
  const mine = (round += 1);
  lastRead = Date.now();
  changed = false;
  try {
    if (coin) await coin.load(window_);
    else {
      const answer = await get("coins", { window: window_, sort: board.sort });
      if (mine === round) board.show(answer);
    }
    if (mine !== round) return;
    noteRead("view", null);
    if (failed.feed !== null) fillFeed();
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    if (mine === round) noteRead("view", error.status);
  } finally {
    if (mine === round) reading = false;
  }
}

/** Read without waiting for what is being read: another view, window, sort or token. */
function readAnew() {
  reading = false;
  refresh();
}

async function fillFeed() {
  const mine = (feedRound += 1);
  try {
    const { signals } = await get("signals/recent", { ...feed.query(), limit: 80 });
    if (mine !== feedRound) return;
    feed.start(signals);
    noteRead("feed", null);
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    if (mine === feedRound) noteRead("feed", error.status);
  }
}

/** The link to the traffic index stands where that pipeline has counted articles. */
async function offerNarrative() {
  try {
    element("narrative").hidden = (await narrativeMonths()).length === 0;
  } catch (error) {
    if (!(error instanceof ApiError)) throw error; // the stream tells what is wrong
  }
}

// News at most every 1.5 s (a coin's charts every 5 s); without any, windows still roll on.
setInterval(() => {
  if (document.hidden || state === "lost") return;
  const age = Date.now() - lastRead;
  const pace = coin ? 5000 : feed.query().coin ? 3000 : 1500;
  if ((age >= pace && (changed || feed.query().coin)) || age >= 10000) refresh();
}, 500);

/** The coin of an address; null, and so the board, where it names none or is cut off within a letter. */
function coinOf(hash) {
  const match = /^#\/coin\/(.+)$/.exec(hash);
  try {
    return match ? decodeURIComponent(match[1]) : null;
  } catch (error) {
    if (!(error instanceof URIError)) throw error;
    return null;
  }
}

function route() {
  const symbol = coinOf(location.hash);
  coin?.clear();
  coin = symbol ? new CoinView(symbol) : location.hash === "#/narrative" ? new NarrativeView() : null;
  fill(element("view"), coin ? coin.node : board.node);
  element("windows").hidden = coin instanceof NarrativeView;
  document.title = symbol ? `${symbol} · kbert-stream` : "kbert-stream";
  scrollTo(0, 0);
  readAnew();
}

function showWindows() {
  const legend = element("windows").firstElementChild;
  fill(element("windows"), legend, WINDOWS.map((name) => h("label", {},
    h("input", { type: "radio", name: "window", value: name, checked: name === window_, onchange: () => { window_ = name; keep("window", name); board.label(name); readAnew(); } }),
    h("span", {}, windowName(name)))));
}

function label() {
  for (const node of document.querySelectorAll("[data-word]")) node.textContent = word(node.dataset.word);
  element("language").textContent = word("language");
  element("language").title = word("language_title");
  const dark = document.documentElement.dataset.theme === "dark";
  element("theme").textContent = dark ? "☀" : "☾";
  element("theme").title = word(dark ? "theme_light" : "theme_dark");
  element("theme").setAttribute("aria-label", element("theme").title);
  element("language").setAttribute("aria-label", element("language").title);
  showWindows();
  showState();
  board.label(window_);
  if (board.answer) board.show(board.answer);
  feed.label();
  coin?.redraw();
}

element("language").addEventListener("click", () => {
  setLanguage(currentLanguage() === "ko" ? "en" : "ko");
  keep("language", currentLanguage());
  label();
});
element("theme").addEventListener("click", () => {
  const root = document.documentElement;
  root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
  keep("theme", root.dataset.theme);
  label();
});
element("token-field").addEventListener("input", ({ target }) => {
  target.setCustomValidity(/^[ -~]*$/.test(target.value) ? "" : word("token_wrong")); // a header takes no other letters
});
element("token").addEventListener("submit", (event) => {
  event.preventDefault();
  setToken(element("token-field").value);
  problem = failed.view = failed.feed = null;
  stream.open(feed.query());
  readAnew();
  fillFeed();
  offerNarrative();
});
addEventListener("hashchange", route);
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });

setLanguage(kept("language", navigator.language.startsWith("ko") ? "ko" : "en"));
document.documentElement.dataset.theme = kept("theme", matchMedia("(prefers-color-scheme: light)").matches ? "light" : "dark");
label();
route();
stream.open(feed.query());
fillFeed();
offerNarrative();
setInterval(offerNarrative, 10000);
