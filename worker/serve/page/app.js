// The page: one stream, one board, one coin at a time.

import { ApiError, get, hasToken, setToken } from "./api.js";
import { Board } from "./board.js";
import { CoinView } from "./coin.js";
import { fill, h } from "./dom.js";
import { Feed } from "./feed.js";
import { narrativeMonths, NarrativeView } from "./narrative.js";
import { released } from "./press.js";
import { SharedStream } from "./shared.js";
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
let leaving; // timer of a page that is hidden
let state = "connecting";
let problem = null; // why the stream was lost
const failed = { view: null, feed: null }; // status of a read that failed, 0 where nothing answered; null after a good one
const HIDDEN_MS = 5000; // a page that nobody sees holds no stream for longer
const BANNERS = { 429: "busy_banner", 503: "redis_banner" }; // of a read, by its status

const board = new Board({ onSort: () => readAnew() });
const feed = new Feed(element("feed"), { onFilter: () => fillFeed(), symbolOf: (name) => board.symbolOf(name) });
const stream = new SharedStream({
  onEvent(kind, data) {
    changed = true;
    if (kind === "signal" && feed.passes(data)) feed.add(data);
  },
  onState(now, why) {
    const began = state !== "live" && now === "live"; // what came before it, and was missed without it
    if (now !== "connecting" || state !== "lost") state = now; // a try is no news while the banner stands
    problem = now === "lost" ? why : now === "live" ? null : problem;
    showState();
    if (began) { refresh(); fillFeed(); offerNarrative(); }
  },
});

/** The server opens no stream, as too many are open, but can be read. */
function refused() {
  return state === "lost" && (problem === 429 || problem === 503);
}

/** What the banner says of the stream, or of a read and its status. */
function complaint(why) {
  if (state === "lost" && !refused()) return word(why === 1013 ? "slow_banner" : "lost_banner");
  if (refused() && problem === 503 && why === 503) return word("lost_banner"); // a proxy's: it reaches no server
  if (why !== null) return word(BANNERS[why] ?? "stale_banner");
  return refused() ? word("streams_banner") : "";
}

function showState() {
  const status = element("status");
  status.className = `status ${state}`;
  status.lastElementChild.textContent = word(refused() ? "refused" : state);
  const why = state === "lost" && !refused() ? problem : failed.view ?? failed.feed;
  const asks = why === 401;
  element("token").hidden = !asks;
  const text = asks ? (hasToken() ? word("token_wrong") : "") : complaint(why);
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
    if (!coin || !board.answer) { // the filter of the feed knows coins by the board's names
      const answer = await get("coins", { window: window_, sort: board.sort });
      await released();
      if (mine === round) board.show(answer);
    }
    if (mine !== round) return;
    noteRead("view", null);
    if (failed.feed !== null || refused()) fillFeed();
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
  if (document.hidden || (state === "lost" && !refused())) return;
  const age = Date.now() - lastRead;
  const pace = coin ? 5000 : refused() ? 3000 : 1500;
  if ((age >= pace && (changed || refused())) || age >= 10000) refresh();
}, 500);

/** Take part in the stream while the page is seen. */
function followVisibility() {
  clearTimeout(leaving);
  if (document.hidden) {
    leaving = setTimeout(() => stream.close(), HIDDEN_MS);
    return;
  }
  if (stream.closed) stream.open();
  refresh();
}

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
  stream.open();
  readAnew();
  fillFeed();
  offerNarrative();
});
addEventListener("hashchange", () => { if (/^#\/|^$/.test(location.hash)) route(); }); // #main is a place within the page
document.addEventListener("visibilitychange", followVisibility);

setLanguage(kept("language", navigator.language.startsWith("ko") ? "ko" : "en"));
document.documentElement.dataset.theme = kept("theme", matchMedia("(prefers-color-scheme: light)").matches ? "light" : "dark");
label();
route();
followVisibility();
fillFeed();
offerNarrative();
setInterval(offerNarrative, 10000);
