// Joins the live stream, the list, the opened entry and the switches.

import { drawCharts } from "./chart.js";
import { showBooks } from "./books.js";
import { showEmpty, showEntry, showGone } from "./detail.js";
import { find } from "./dom.js";
import { List } from "./list.js";

const MAX_SAMPLES = 300;
const PATIENCE_MS = 5000;
const OUTAGES = {
  503: "An outage is being played: every POST is answered 503. Entries wait in the queue; nothing is lost.",
  429: "An outage is being played: every POST is answered 429 with Retry-After: 20. Entries wait in the queue.",
  hang: "An outage is being played: POSTs are taken and never answered. Entries wait in the queue.",
};
const pane = find("detail");
const list = new List(open);
let run = null;
let samples = [];
let hadEntries = null;
let live = null;
let seen = ""; // the last update's id: a stream that is opened anew goes on after it
let again;
let stood; // where on the screen the opened row stood: in a narrow window the list makes room for the entry

async function open(id) {
  list.choose(id);
  if (!document.body.classList.contains("opened")) stood = list.top(id);
  document.body.classList.add("opened");
  scrollTo(0, 0);
  try {
    const wire = await fetched(id);
    if (list.current === id) showEntry(pane, wire, list.row(id), close);
  } catch (error) {
    // The pane must not go on showing the entry before.
    if (list.current === id) showGone(pane, `This entry cannot be shown: ${error.message}`, close);
  }
}

async function fetched(id) {
  const answer = await fetch(`/api/entries/${encodeURIComponent(id)}`, { signal: AbortSignal.timeout(PATIENCE_MS) })
    .catch(() => { throw new Error("the inspector does not answer."); });
  if (!answer.ok) throw new Error("it has made room for newer ones.");
  return answer.text();
}

function close() {
  document.body.classList.remove("opened");
  find("list").focus({ preventScroll: true });
  scrollBy(0, list.top(list.current) - stood || 0);
  stood = undefined;
  list.choose(null);
  showEmpty(pane, list.size > 0);
}

function take(update) {
  if (run !== update.run) {
    list.forgetAll();
    samples = [];
    run = update.run;
  }
  list.forget(update.oldest, update.figures.gone);
  if (update.rows.length) list.add(update.rows);
  samples = [...samples, ...update.samples].slice(-MAX_SAMPLES);
  drawCharts(samples);
  showBooks(update.books, update.figures);
  showOutage(update.outage);
  if (hadEntries !== list.size > 0) {
    hadEntries = list.size > 0;
    document.body.classList.toggle("empty", !hadEntries);
    if (!list.current) showEmpty(pane, hadEntries);
  }
}

function showOutage(mode) {
  find("outage").querySelector(`input[value="${mode}"]`).checked = true;
  document.body.classList.toggle("outage-on", mode !== "off");
  find("banner").hidden = mode === "off";
  find("banner").textContent = OUTAGES[mode] ?? "";
}

function showLink(state, text) {
  find("link").dataset.state = state;
  find("link").textContent = text;
}

// A browser keeps six connections to a host, and a page that listens keeps one: a hidden page leaves it to the others.
function listen() {
  clearTimeout(again);
  live?.close();
  if (document.hidden) return;
  live = new EventSource(`/api/live?seen=${encodeURIComponent(seen)}`);
  live.addEventListener("open", () => showLink("live", `live on ${location.host}`));
  live.addEventListener("message", (event) => {
    take(JSON.parse(event.data));
    seen = event.lastEventId;
  });
  live.addEventListener("error", () => {
    // The browser tries again by itself unless it was answered with an error.
    if (live.readyState !== EventSource.CLOSED) return showLink("waiting", "connection lost, trying again");
    showLink("waiting", "the inspector does not answer, trying again");
    again = setTimeout(listen, 3000);
  });
}

function post(path, body = {}) {
  return fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
}

function nextTheme() {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  localStorage.setItem("theme", root.dataset.theme);
}

function typing(event) {
  return event.target.matches("input:not([type=radio]), select, textarea");
}

const KEYS = {
  j: () => list.move(1),
  ArrowDown: () => list.move(1),
  k: () => list.move(-1),
  ArrowUp: () => list.move(-1),
  "/": () => find("filters").elements.path.focus(),
};

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape") {
    if (typing(event)) event.target.blur();
    else close();
    return;
  }
  if (event.key === "Enter" && event.target === find("list") && list.current) return open(list.current);
  // Arrows belong to a focused field, switch or scrolling block; letters to a field.
  const arrow = event.key.startsWith("Arrow");
  if (typing(event) || (arrow && event.target !== find("list") && event.target !== document.body)) return;
  if (!(event.key in KEYS)) return;
  event.preventDefault();
  if (event.key !== "/") find("list").focus();
  KEYS[event.key]();
}

find("outage").addEventListener("change", (event) => post("/api/outage", { mode: event.target.value }));
find("clear").addEventListener("click", async () => { await post("/api/clear"); close(); });
find("theme").addEventListener("click", nextTheme);
document.addEventListener("keydown", onKey);
document.addEventListener("visibilitychange", listen);
listen();
