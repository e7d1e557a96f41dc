// The queue's books as the equation they are; without a queue at hand, what the inspector itself saw.

import { clock, find, make } from "./dom.js";

const count = (number) => number.toLocaleString("en");

function term(name, value, kind = "") {
  return make("div", { class: `term ${kind}` }, make("b", {}, count(value)), make("span", {}, name));
}

const sign = (text) => make("i", { class: "sign", "aria-hidden": "true" }, text);

function equation(books) {
  return make("div", { class: "equation" },
    term("accepted", books.accepted), sign("="),
    term("delivered", books.delivered, "good"), sign("+"),
    term("waiting", books.waiting, books.waiting ? "busy" : ""), sign("+"),
    term("dead", books.dead, books.dead ? "bad" : ""), sign("+"),
    term("dropped", books.dropped, books.dropped ? "bad" : ""));
}

function verdict(books) {
  if (books.hold_until && books.hold_until * 1000 > Date.now()) {
    return make("p", { class: "note busy" }, `Delivery is held until ${clock(books.hold_until * 1000)}: ${books.hold_reason}`);
  }
  if (!books.balanced) return make("p", { class: "note bad" }, "The books do not balance.");
  return make("p", { class: "note" }, "The queue's books balance.");
}

function seen(figures) {
  return make("div", { class: "equation seen" },
    term("arrived", figures.entries, "good"), term("repeats", figures.repeats),
    term("POSTs", figures.posts), term("turned away", figures.turned_away, figures.turned_away ? "busy" : ""),
    term("refused", figures.refused, figures.refused ? "bad" : ""));
}

export function showBooks(books, figures) {
  const shown = books && !books.trouble
    ? [equation(books), verdict(books)]
    : [seen(figures), make("p", { class: books ? "note bad" : "note" },
      books ? `The queue's books cannot be read: ${books.trouble}` : "What this inspector saw since it started.")];
  find("books").replaceChildren(...shown);
}
