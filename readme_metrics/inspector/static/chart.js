// The last five minutes, a second an x: what waits as an area, what was delivered as bars, an outage as a shade.
// Five seconds are drawn as one: the area shows the most that waited in them, the bar all that came.

import { find } from "./dom.js";

const SECONDS = 300;
const HEIGHT = 40;
const BAR_S = 5;

function shape(name, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [attribute, value] of Object.entries(attributes)) element.setAttribute(attribute, value);
  return element;
}

function outages(samples, x) {
  return samples.filter((sample) => sample.outage)
    .map((sample) => shape("rect", { class: "shade", x: x(sample), y: 0, width: 1.05, height: HEIGHT }));
}

function gathered(samples, value, join) {
  const totals = new Map();
  for (const sample of samples) {
    const at = Math.floor(sample.tick / BAR_S);
    totals.set(at, join(totals.get(at) ?? 0, value(sample)));
  }
  return totals;
}

function area(tops, last, now) {
  const most = Math.max(0, ...tops.values());
  if (most === 0) return [];
  const height = (value) => (HEIGHT - 1 - (value / most) * (HEIGHT - 5)).toFixed(2);
  const left = (at) => Math.min(SECONDS, SECONDS - (last - at * BAR_S) + BAR_S / 2);
  const points = [...tops].slice(0, -1).map(([at, value]) => `${left(at)},${height(value)}`);
  const line = `M${[...points, `${SECONDS},${height(now)}`].join("L")}`;
  return [
    shape("path", { class: "fill", d: `${line}V${HEIGHT}H${left([...tops.keys()][0])}Z` }),
    shape("path", { class: "line", d: line }),
  ];
}

function bars(totals, last) {
  const most = Math.max(1, ...totals.values());
  return [...totals].filter(([, total]) => total > 0).map(([at, total]) => {
    const height = Math.max(2, (total / most) * (HEIGHT - 4));
    const left = SECONDS - (last - at * BAR_S) - 1;
    return shape("rect", { class: "delivered", x: left, y: HEIGHT - height, width: BAR_S - 1, height, rx: 0.8 });
  });
}

export function drawCharts(samples) {
  const last = samples.at(-1)?.tick ?? 0;
  const x = (sample) => SECONDS - 1 - (last - sample.tick);
  const known = samples.length > 0 && samples.at(-1).waiting !== null;
  const upper = known ? (sample) => sample.waiting ?? 0 : (sample) => sample.turned_away;
  find("upper-name").textContent = known ? "waiting" : "POSTs turned away per s";
  const now = samples.length ? upper(samples.at(-1)) : 0;
  find("upper-now").textContent = now.toLocaleString("en");
  find("upper").replaceChildren(...outages(samples, x), ...area(gathered(samples, upper, Math.max), last, now));
  const totals = gathered(samples, (sample) => sample.delivered, (sum, count) => sum + count);
  find("lower-now").textContent = (totals.get(Math.floor(last / BAR_S)) ?? 0).toLocaleString("en");
  find("lower").replaceChildren(...outages(samples, x), ...bars(totals, last));
}
