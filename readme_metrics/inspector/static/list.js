// The list: newest first, filtered in place, walked by keyboard.

import { clock, duration, find, make, statusKind } from "./dom.js";
import { marked } from "./format.js";

export class List {
  #rows = new Map(); // id → {row, line}
  #form = find("filters");
  #list = find("list");
  #current = null;
  #gone = 0; // entries that made room for newer ones

  constructor(open) {
    this.open = open;
    this.#form.addEventListener("input", () => this.#filter());
    this.#form.addEventListener("submit", (event) => event.preventDefault());
  }

  get size() { return this.#rows.size; }

  get current() { return this.#current; }

  row(id) { return this.#rows.get(id)?.row; }

  top(id) { return this.#rows.get(id)?.line.getBoundingClientRect().top; }

  forgetAll() { this.forget(Infinity); }

  forget(oldest, gone = 0) {
    this.#gone = gone;
    for (const [id, { row, line }] of this.#rows) {
      if (row.seq >= oldest) continue;
      line.remove();
      this.#rows.delete(id);
    }
    this.#say();
  }

  add(rows) {
    for (const row of rows) {
      const known = this.#rows.get(row.id);
      const line = this.#line(row);
      if (known) known.line.replaceWith(line);
      else this.#list.prepend(line);
      this.#rows.set(row.id, { row, line });
      line.hidden = !this.#matches(row);
      if (row.id === this.#current) this.#mark(line);
    }
    this.#offer("method", rows.map((row) => row.method));
    this.#offer("status", rows.flatMap((row) => [`${Math.floor(row.status / 100)}xx`, String(row.status)]));
    this.#say();
  }

  choose(id) {
    this.#list.querySelector("[aria-selected=true]")?.setAttribute("aria-selected", "false");
    this.#current = id;
    const line = this.#rows.get(id)?.line;
    if (line) this.#mark(line);
    else this.#list.removeAttribute("aria-activedescendant");
  }

  move(step) {
    const shown = [...this.#list.children].filter((line) => !line.hidden);
    if (!shown.length) return;
    const at = shown.findIndex((line) => line.dataset.id === this.#current);
    const next = at < 0 ? 0 : Math.min(shown.length - 1, Math.max(0, at + step));
    this.choose(shown[next].dataset.id);
    shown[next].scrollIntoView({ block: "nearest" });
  }

  #mark(line) {
    line.setAttribute("aria-selected", "true");
    this.#list.setAttribute("aria-activedescendant", line.id);
  }

  #line(row) {
    const times = row.times > 1 ? make("span", { class: "tag times", title: "Arrived more than once, shown once" }, `×${row.times}`) : null;
    const development = row.development ? make("span", { class: "tag", title: "Sent with development_mode" }, "dev") : null;
    const line = make("li", { id: `row-${row.id}`, role: "option", "aria-selected": "false", "data-id": row.id },
      make("span", { class: `status ${statusKind(row.status)}` }, String(row.status)),
      make("span", { class: "method" }, row.method),
      make("span", { class: "path", title: row.path }, ...marked(row.path), development, times),
      make("span", { class: "caller", title: row.caller_id }, row.caller.startsWith("sha512-") ? `…${row.caller.slice(-4)}` : row.caller),
      make("span", { class: "took" }, duration(row.time_ms)),
      make("time", { datetime: row.started }, clock(row.started)));
    line.addEventListener("click", () => this.open(row.id));
    return line;
  }

  #matches(row) {
    const { method, status, path, caller } = this.#form.elements;
    const holds = (text, part) => text.toLowerCase().includes(part.trim().toLowerCase());
    return (!method.value || row.method === method.value)
      && (!status.value || (status.value.endsWith("xx") ? String(row.status)[0] === status.value[0] : String(row.status) === status.value))
      && holds(row.path, path.value)
      && (holds(row.caller, caller.value) || holds(row.caller_id, caller.value));
  }

  #filter() {
    for (const { row, line } of this.#rows.values()) line.hidden = !this.#matches(row);
    this.#say();
  }

  #offer(name, values) {
    const select = this.#form.elements[name];
    const known = [...select.options].map((option) => option.value);
    const fresh = [...new Set(values)].filter((value) => !known.includes(value));
    if (!fresh.length) return;
    const chosen = select.value;
    const all = [...known.slice(1), ...fresh].sort();
    select.replaceChildren(select.options[0], ...all.map((value) => make("option", { value }, value)));
    select.value = chosen;
  }

  #say() {
    const shown = [...this.#rows.values()].filter(({ line }) => !line.hidden).length;
    const total = this.#rows.size;
    find("none").hidden = shown > 0 || total === 0;
    const count = (number) => number.toLocaleString("en");
    find("count").textContent = (shown === total ? `${count(total)} entries` : `${count(shown)} of ${count(total)} entries`)
      + (this.#gone ? ` · ${count(this.#gone)} older made room` : "");
  }
}
