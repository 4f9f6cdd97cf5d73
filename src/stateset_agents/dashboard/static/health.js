// What is wrong with a run, why, and what helps.

import { fill, h, table } from "./dom.js";
import { bytes, number, partOf, percent } from "./format.js";
import { text } from "./samples.js";

const MEANING = {
  HEALTHY: "Nothing stands out.",
  WARNING: "It trains, but something costs it much of what it could learn.",
  CRITICAL: "What it learns is not what it was meant to, or it learns nothing.",
  UNKNOWN: "Nothing was trained or measured.",
};

const SIGN = { HEALTHY: "fine", WARNING: "warning", CRITICAL: "critical", UNKNOWN: "unknown" };

/** The tab; returns how to bring it up to date. */
export async function showHealth(context) {
  function draw() {
    const { health, last, report, spent, status, rows } = context.overview();
    fill(context.body,
      h("section", { class: "verdict" },
        h("p", { class: `answer health-${health.status.toLowerCase()}` }, h("b", {}, health.status), " ", MEANING[health.status]),
        h("ul", {}, health.issues.map((issue) => h("li", {}, issue)))),
      h("h2", {}, "What that is judged by"),
      table("Signs of health", ["Sign", "Value", "Status", "What it means"], [
        ...health.signals.map((sign) => [sign.name, sign.shown, SIGN[sign.status], sign.action ? `${sign.sentence}: ${sign.action}` : sign.sentence]),
        ["Steps judged", `${number(health.rows)}${health.of && health.of > health.rows ? ` of ${number(rows)}, evenly chosen` : ""}`, "", "All of the run, not only its end."],
      ]),
      timeOf(last ?? {}, spent),
      memoryOf(last ?? {}),
      breakersOf(last ?? {}),
      last && h("h2", {}, `Step ${number(last.step)}`),
      last && table("Conversations of the last step", ["Conversations", "Failed", "Agent", "User", "Environment", "Reward", "Not scored", "Cut by a limit", "Replies cut"],
        [["step_episodes", "failed", "failed_agent", "failed_user", "failed_environment", "failed_reward", "unscored", "truncated", "cut_replies"].map((key) => h("td", { class: "number" }, number(last[key])))]),
      status.message && h("p", {}, h("b", {}, "The run says: "), status.message),
      report && [h("h2", {}, "Report"), h("pre", { class: "scroll", tabindex: 0 }, report)]);
  }
  draw();
  return draw;
}

/** Where the time goes. A part may lie inside another one (to reply is part of a conversation), so each has its own bar. */
function timeOf(row, spent) {
  const parts = Object.keys(spent).filter((key) => key !== "seconds" && spent[key] > 0).sort((a, b) => spent[b] - spent[a]);
  const whole = spent.seconds || Math.max(0, ...parts.map((key) => spent[key]));
  if (!parts.length || !whole) return null;
  return [
    h("h2", {}, "Where the time goes"),
    table("Where the time goes", ["Part", "Share of all steps", "Last step"], parts.map((key) => {
      const share = spent[key] / whole;
      const bar = h("span", { class: "share", "aria-hidden": true });
      bar.style.width = `${Math.min(100, 100 * share)}%`;
      return [h("th", { scope: "row" }, partOf(key)), h("div", { class: "shares" }, h("span", {}, percent(share)), h("span", { class: "track" }, bar)),
        h("td", { class: "number" }, typeof row[key] === "number" ? `${number(row[key])} s` : "–")];
    })),
    h("p", { class: "quiet" }, `The last step took ${number(row.seconds)} s${row.tokens_per_second ? `, ${number(row.tokens_per_second)} tokens a second` : ""}. Parts may lie inside one another.`),
  ];
}

function memoryOf(row) {
  const known = Object.entries(row).filter(([key, value]) => key.startsWith("memory_") && typeof value === "number");
  if (!known.length) return null;
  return [h("h2", {}, "Memory"), table("Memory after the last step", ["What", "Used"],
    known.map(([key, value]) => [h("th", { scope: "row" }, nameOf(key.slice(7))), h("td", { class: "number" }, amount(key, value))]))];
}

const UNITS = { bytes: 1, kb: 1e3, mb: 1e6, gb: 1e9, kib: 1024, mib: 1024 ** 2, gib: 1024 ** 3 };

/** By the unit at the end of the name; a number without one stays as it is. */
function amount(key, value) {
  const unit = UNITS[key.split("_").at(-1).toLowerCase()];
  return unit ? bytes(Math.round(value * unit)) : number(value);
}

function nameOf(key) {
  const words = key.split("_");
  if (words.length > 1 && words.at(-1).toLowerCase() in UNITS) words.pop();
  return words.join(" ");
}

/** Whether calls of other services are let through, where a step says so. */
function breakersOf(row) {
  const known = Object.entries(row).filter(([key, value]) => key.startsWith("breaker") && value !== null);
  if (!known.length) return null;
  return [h("h2", {}, "Breakers"), table("Breakers at the last step", ["Of", "State"],
    known.map(([key, value]) => [h("th", { scope: "row" }, key.replace(/^breakers?[_/]?/, "") || key), text(value)]))];
}
