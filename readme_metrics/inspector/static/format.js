// Bodies and values as they are read best: JSON laid out and coloured, what was taken out marked.
// JSON is laid out token by token, not parsed and written again: every number and escape stays as it was sent.

import { make } from "./dom.js";

const TAKEN_OUT = new RegExp(
  [
    String.raw`(\[REDACTED(?: \d+)?\]|%5BREDACTED(?:(?:%20|\+)\d+)?%5D)`,
    String.raw`(\[NOT CAPTURED(?:: \d+ bytes)?\])`,
    String.raw`(sha512-[A-Za-z0-9+/=]{20,}(?:\?[^\s",;]{0,4})?)`,
  ].join("|"),
  "g",
);
const KINDS = [
  ["redacted", "Redacted before it was stored; the number is the length of the value"],
  ["not-captured", "Too large, not read, or a file: only its size was kept"],
  ["masked", "Masked: a hash and the last four characters"],
];
const TOKEN = /"[^"\\]*(?:\\.[^"\\]*)*"|-?\d[\d.eE+-]*|true|false|null|[{}[\],:]/g;
const MAX_SHOWN = 200_000;
// An element costs a browser far more than its text, and a line more than its characters: half a million numbers would
// take it 17 s in colour and 5 s a number a line; as one text, a fraction of a second.
const MAX_COLOURED = 20_000;
const MAX_LAID_OUT = 400_000;

export function marked(text) {
  const matches = [...text.matchAll(TAKEN_OUT)];
  if (matches.length > MAX_COLOURED) return [text];
  const pieces = [];
  let from = 0;
  for (const match of matches) {
    const [name, why] = KINDS[match.slice(1).findIndex((group) => group !== undefined)];
    pieces.push(text.slice(from, match.index), make("mark", { class: name, title: why }, match[0]));
    from = match.index + match[0].length;
  }
  pieces.push(text.slice(from));
  return pieces;
}

function isJson(text) {
  if (!/^\s*[[{]/.test(text)) return false;
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

function kindOf(token, next) {
  if (token[0] === '"') return next === ":" ? "key" : "string";
  if (token === "null") return "null";
  return token === "true" || token === "false" ? "boolean" : "number";
}

// Pairs of a kind ("" has no colour) and a text.
function laidOut(text) {
  const tokens = text.match(TOKEN) ?? [];
  const pieces = [];
  let depth = 0;
  const plain = (piece) => pieces.push(["", piece]);
  const newLine = () => plain("\n" + "  ".repeat(Math.min(depth, 40)));
  tokens.forEach((token, index) => {
    const next = tokens[index + 1];
    if (token === "{" || token === "[") {
      plain(token);
      depth += 1;
      if (next !== "}" && next !== "]") newLine();
    } else if (token === "}" || token === "]") {
      depth -= 1;
      const before = tokens[index - 1];
      if (before !== "{" && before !== "[") newLine();
      plain(token);
    } else if (token === ",") {
      plain(token);
      newLine();
    } else if (token === ":") {
      plain(": ");
    } else {
      pieces.push([kindOf(token, next), token]);
    }
  });
  return pieces;
}

function coloured([kind, text]) {
  return kind ? make("span", { class: kind }, ...marked(text)) : text;
}

function parts(text) {
  if (!isJson(text)) return marked(text);
  const pieces = laidOut(text);
  if (pieces.length <= MAX_COLOURED) return pieces.map(coloured);
  return marked(pieces.length <= MAX_LAID_OUT ? pieces.map(([, piece]) => piece).join("") : text);
}

export function codeBlock(text) {
  const code = make("code");
  const block = make("div", { class: "code" }, make("pre", { tabindex: "0" }, code));
  if (text.length <= MAX_SHOWN) {
    code.append(...parts(text));
    return block;
  }
  code.append(...marked(text.slice(0, MAX_SHOWN)));
  const more = make("button", { class: "button small", type: "button" }, `Show all ${text.length.toLocaleString("en")} characters`);
  more.addEventListener("click", () => {
    code.replaceChildren(...parts(text));
    more.remove();
  });
  block.append(more);
  return block;
}
