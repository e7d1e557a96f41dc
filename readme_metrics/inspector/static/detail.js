// One entry, opened.

import { bytes, copyButton, duration, make, statusKind } from "./dom.js";
import { codeBlock, marked } from "./format.js";

function pairs(items, empty) {
  if (!items.length) return make("p", { class: "faint" }, empty);
  const rows = items.map(({ name, value }) =>
    make("tr", {}, make("th", { scope: "row" }, ...marked(name)), make("td", {}, ...marked(value ?? ""))));
  return make("table", { class: "pairs" }, make("tbody", {}, ...rows));
}

function fold(title, note, open, ...children) {
  const summary = make("summary", {}, make("h4", {}, title), make("span", { class: "faint" }, note));
  return make("details", { open }, summary, ...children);
}

function parameters(params) {
  return pairs(params.map((param) => ({
    name: param.name + (param.fileName ? ` (file ${param.fileName}, ${param.contentType ?? "unknown type"})` : ""),
    value: param.value ?? "",
  })), "No fields.");
}

function body(text, note, mimeType) {
  const copy = text === undefined ? null : copyButton("Copy body", () => text);
  const shown = text === undefined || text === ""
    ? make("p", { class: "faint" }, "Empty.")
    : codeBlock(text);
  return fold("Body", [mimeType, note].filter(Boolean).join(" · "), true,
    make("div", { class: "body" }, shown, text ? copy : null));
}

function sent(request) {
  const data = request.postData;
  if (!data) return fold("Body", "none", false, make("p", { class: "faint" }, "No body was sent."));
  if (data.params) return fold("Body", data.mimeType, true, parameters(data.params));
  return body(data.text, bytes(Math.max(0, request.bodySize)), data.mimeType);
}

function side(title, headers, ...children) {
  return make("section", { class: "message" }, make("h3", {}, title), ...children.slice(0, -1),
    fold("Headers", String(headers.length), true, pairs(headers, "No headers.")), children.at(-1));
}

function facts(entry, har, row) {
  const group = entry.group;
  const list = [
    ["Caller", [group.label, group.email].filter(Boolean).join(" · ") || "no label"],
    ["Caller's key", group.id],
    ["Route", har.pageref ?? "unknown"],
    ["Started", har.startedDateTime],
    ["Took", `${duration(har.time)}, of which ${duration(har.timings.wait)} to the first byte`],
    ["Client", entry.clientIPAddress],
    ["Sent as", entry.development ? "development" : "production"],
    ["_id", entry._id],
  ];
  if (row && row.times > 1) list.push(["Arrived", `${row.times} times, shown once: its _id is the same`]);
  return make("dl", { class: "facts" }, ...list.flatMap(([name, value]) =>
    [make("dt", {}, name), make("dd", {}, ...marked(value))]));
}

export function showEntry(pane, wire, row, close) {
  const entry = JSON.parse(wire);
  const har = entry.request.log.entries[0];
  const { request, response } = har;
  const content = response.content;
  const size = bytes(content.size) + (content.encoding ? ` · ${content.encoding}` : "");
  const back = make("button", { class: "button small back", type: "button", on: { click: close } }, "← List");
  pane.replaceChildren(
    make("header", { class: "opened" }, back,
      make("h2", {}, make("span", { class: "method" }, request.method),
        make("span", { class: "url" }, ...marked(request.url))),
      make("p", { class: "summary" },
        make("span", { class: `status ${statusKind(response.status)}` }, `${response.status} ${response.statusText}`),
        make("span", {}, duration(har.time)), make("span", {}, size),
        copyButton("Copy entry", () => JSON.stringify(entry, null, 2)))),
    facts(entry, har, row),
    side("Request", request.headers,
      request.queryString.length
        ? fold("Query", String(request.queryString.length), true, pairs(request.queryString, "")) : null,
      sent(request)),
    side("Response", response.headers, null, body(content.text, size, content.mimeType)),
    make("section", { class: "message" }, make("h3", {}, "What left your server"),
      fold("The whole entry", bytes(new Blob([wire]).size), false, codeBlock(wire))),
  );
  pane.scrollTop = 0;
}

export function showGone(pane, message, close) {
  const back = make("button", { class: "button small back", type: "button", on: { click: close } }, "← List");
  pane.replaceChildren(back, make("p", { class: "hint" }, message));
}

function step(number, title, command) {
  return make("li", {}, make("p", {}, make("b", {}, `${number}. `), title),
    make("div", { class: "command" }, make("code", {}, command), copyButton("Copy", () => command)));
}

export function showEmpty(pane, anyEntry) {
  if (anyEntry) {
    pane.replaceChildren(make("div", { class: "hint" }, make("p", {}, "Choose an entry to see what left your server."),
      make("p", { class: "keys" }, make("kbd", {}, "j"), " ", make("kbd", {}, "k"), " move  ",
        make("kbd", {}, "Enter"), " open  ", make("kbd", {}, "/"), " filter  ", make("kbd", {}, "Esc"), " back")));
    return;
  }
  pane.replaceChildren(make("div", { class: "welcome" },
    make("h2", {}, "Nothing has arrived yet"),
    make("p", {}, "This page stands in for ReadMe's server. Nothing leaves this machine: point your app here, ask it "
      + "for something, and see exactly what it would send."),
    make("ol", {},
      step(1, "Tell your app where to send its logs, and start it:",
        `README_METRICS_SERVER=${location.origin} flask run`),
      step(2, "Ask it for something:", "curl http://127.0.0.1:5000/"),
    ),
    make("p", { class: "faint" }, "A log leaves when ", make("code", {}, "buffer_length"), " entries wait or the oldest has waited ",
      make("code", {}, "flush_interval"), " seconds: 10 and 10 s unless you changed them. ",
      make("code", {}, "python -m readme_metrics.flush"), " sends at once. Any API key will do.")));
}
