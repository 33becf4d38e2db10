// Charts over time, on uPlot.

import { word, signed, plain, count } from "./words.js";

const uPlot = window.uPlot;

function css(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function axisTime(self, splits) {
  const span = self.scales.x.max - self.scales.x.min;
  const pad = (n) => String(n).padStart(2, "0");
  return splits.map((second) => {
    const at = new Date(second * 1000);
    const day = `${at.getMonth() + 1}/${at.getDate()}`;
    const midnight = at.getHours() === 0 && at.getMinutes() === 0;
    return span > 36 * 3600 ? (midnight ? day : "") : midnight ? day : `${pad(at.getHours())}:${pad(at.getMinutes())}`;
  });
}

/** Time of the legend; without a pointer on the chart the legend tells the latest values. */
function legendTime(self, second) {
  const shown = second ?? self.data[0].at(-1);
  return new Date(shown * 1000).toLocaleString("sv-SE").slice(5, 16);
}

/** A legend value, of the pointer's place or the latest. */
function told(write) {
  return (self, _value, series, place) => write(self.data[series].at(place ?? -1));
}

/** A chart in `node` that follows its width; `destroy` takes it away. */
class Chart {
  constructor(node, options, data) {
    this.node = node;
    this.plot = new uPlot({ width: Math.max(200, node.clientWidth), ...options }, data, node);
    this.watch = new ResizeObserver(() => this.plot.setSize({ width: Math.max(200, node.clientWidth), height: options.height }));
    this.watch.observe(node);
  }

  destroy() {
    this.watch.disconnect();
    this.plot.destroy();
  }
}

function axes(values, extra = []) {
  const grid = { stroke: css("--line"), width: 1 };
  const font = "11px system-ui, sans-serif";
  const ink = css("--dim");
  return [
    { stroke: ink, font, grid, ticks: { show: false }, values: axisTime, space: 60, size: 28 },
    { stroke: ink, font, grid, ticks: { show: false }, values: (self, splits) => splits.map(values), size: 46 },
    ...extra.map((axis) => ({ stroke: ink, font, ticks: { show: false }, grid: { show: false }, ...axis })),
  ];
}

const cursor = { sync: { key: "time" }, points: { size: 6 } };

/** The index as a line with its sign as colour, and messages as bars beneath. */
export function indexChart(node, series) {
  const index = series.values.sentiment_index;
  const pos = css("--pos");
  const neg = css("--neg");
  const tint = (self) => {
    const { top, height } = self.bbox;
    const zero = Math.round(self.valToPos(0, "index", true));
    if (!Number.isFinite(zero) || !height) return css("--accent"); // before the first drawing
    const place = Math.min(1, Math.max(0, (zero - top) / height));
    const fill = self.ctx.createLinearGradient(0, top, 0, top + height);
    for (const [at, colour] of [[0, pos], [place, pos], [place, neg], [1, neg]]) fill.addColorStop(at, colour);
    return fill;
  };
  const most = Math.max(0.2, ...index.filter((value) => value !== null).map(Math.abs));
  const reach = Math.min(1, most * 1.15);
  return new Chart(node, {
    height: 270,
    padding: [6, 4, 0, 0],
    cursor,
    scales: { index: { range: [-reach, reach] }, messages: { range: (self, low, high) => [0, Math.max(1, high) * 3.2] } },
    axes: axes((value) => signed(value, 2), [{ scale: "messages", side: 1, size: 44, values: (self, splits) => splits.map((value) => (value <= self.scales.messages.max / 3.1 ? count(value) : "")) }]).map((axis, n) => (n === 1 ? { ...axis, scale: "index" } : axis)),
    series: [
      { label: word("time"), value: legendTime },
      { label: word("volume"), scale: "messages", width: 0, fill: css("--bar"), paths: uPlot.paths.bars({ size: [0.8, 40] }), points: { show: false }, value: told((value) => (value === null ? "–" : count(value))) },
      { label: word("index"), scale: "index", width: 2, stroke: tint, spanGaps: false, points: { show: series.times.length < 60, size: 5 }, value: told((value) => signed(value)) },
    ],
    hooks: { drawAxes: [(self) => {
      const y = Math.round(self.valToPos(0, "index", true));
      self.ctx.save();
      self.ctx.strokeStyle = css("--dim");
      self.ctx.globalAlpha = 0.6;
      self.ctx.beginPath();
      self.ctx.moveTo(self.bbox.left, y);
      self.ctx.lineTo(self.bbox.left + self.bbox.width, y);
      self.ctx.stroke();
      self.ctx.restore();
    }] },
  }, [seconds(series), series.values.messages, index]);
}

/** Classes as shares of all, one above the other. */
export function stackChart(node, series, group, names) {
  const columns = names.map((name) => series.values[`${group}.${name}`]);
  const totals = series.times.map((_, n) => columns.reduce((sum, column) => sum + column[n], 0));
  let below = series.times.map(() => 0);
  const tops = columns.map((column) => {
    below = below.map((value, n) => value + (totals[n] ? column[n] / totals[n] : 0));
    return below.map((value, n) => (totals[n] ? value : null));
  });
  const share = (column) => (self, _value, _series, place) => {
    const total = totals.at(place ?? -1);
    return total ? `${Math.round((100 * column.at(place ?? -1)) / total)}%` : "–";
  };
  // The highest first: each lower one is painted over it, so that every colour shows its own share only.
  const order = names.map((_, n) => n).reverse();
  return new Chart(node, {
    height: 190,
    padding: [6, 12, 0, 0],
    cursor: { ...cursor, points: { show: false } },
    scales: { y: { range: [0, 1] } },
    axes: axes((value) => `${Math.round(value * 100)}%`),
    series: [{ label: word("time"), value: legendTime }, ...order.map((n) => ({
      label: word(names[n]), fill: css(`--${names[n]}`), stroke: css("--panel"), width: 1, points: { show: false }, value: share(columns[n]),
    }))],
  }, [seconds(series), ...order.map((n) => tops[n])]);
}

/** The three scores, 0 to 1. */
export function scoreChart(node, series) {
  const names = ["certainty", "relevance", "toxicity"];
  return new Chart(node, {
    height: 190,
    padding: [6, 12, 0, 0],
    cursor,
    scales: { y: { range: [0, 1] } },
    axes: axes((value) => plain(value, 2)),
    series: [{ label: word("time"), value: legendTime }, ...names.map((name) => ({
      label: word(name), stroke: css(`--${name}`), width: 2, points: { show: series.times.length < 60, size: 5 }, value: told((value) => plain(value)),
    }))],
  }, [seconds(series), ...names.map((name) => series.values[name])]);
}

/** The share of negative articles a month, its interval as a band, articles as bars beneath; `monthName` writes one in the legend. */
export function narrativeChart(node, months, monthName) {
  // Months are names here, not moments: as UTC they are read back as they were, wherever the reader is.
  const times = months.map(({ month }) => Date.parse(`${month}-01T00:00:00Z`) / 1000);
  const name = (second) => new Date(second * 1000).toISOString().slice(0, 7);
  const column = (name) => months.map((month) => month[name]);
  const top = Math.min(1, Math.max(0.1, ...column("share_high").filter((value) => value !== null)) * 1.05);
  const share = (value) => (value === null ? "–" : `${Math.round(value * 100)}%`);
  const edge = { scale: "share", width: 0, stroke: css("--accent"), points: { show: false } };
  const [x, y] = axes(share);
  return new Chart(node, {
    tzDate: (second) => uPlot.tzDate(new Date(second * 1000), "Etc/UTC"),
    height: 320,
    padding: [6, 4, 0, 0],
    cursor: { points: { size: 6 } },
    scales: { share: { range: [0, top] }, articles: { range: (self, low, high) => [0, Math.max(1, high) * 3.2] } },
    axes: [
      { ...x, values: (self, splits) => splits.map(name), space: 80 },
      { ...y, scale: "share" },
      { ...y, scale: "articles", side: 1, size: 44, grid: { show: false }, values: (self, splits) => splits.map((value) => (value <= self.scales.articles.max / 3.1 ? count(value) : "")) },
    ],
    bands: [{ series: [2, 3], fill: css("--band") }],
    series: [
      { label: word("month"), value: (self, second) => monthName(name(second ?? self.data[0].at(-1))) },
      { label: word("articles"), scale: "articles", width: 0, fill: css("--bar"), paths: uPlot.paths.bars({ size: [0.8, 40] }), points: { show: false }, value: told((value) => (value === null ? "–" : count(value))) },
      { ...edge, label: word("share_high"), value: told(share) },
      { ...edge, label: word("share_low"), value: told(share) },
      { label: word("share"), scale: "share", width: 2, stroke: css("--accent"), spanGaps: false, points: { show: months.length < 60, size: 5 }, value: told(share) },
    ],
  }, [times, column("articles"), column("share_high"), column("share_low"), column("share")]);
}

function seconds(series) {
  return series.times.map((time) => Date.parse(time) / 1000);
}
