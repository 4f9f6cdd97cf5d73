// How a run stands, in a word, a sign and a colour.

import { h } from "./dom.js";
import { ago } from "./format.js";

const SIGNS = { running: "▶", stalled: "…", finished: "✓", failed: "✕", interrupted: "■", unknown: "?" };

/** The state of a run. */
export function chip(status) {
  return h("span", { class: `chip ${status.state}`, title: status.message || null },
    h("span", { "aria-hidden": true }, `${SIGNS[status.state] ?? "?"} `), status.state);
}

/** When it last gave a sign, in words. */
export function lastSign(status) {
  return status.quiet === undefined ? "–" : ago(status.quiet);
}
