// What is wrong with a run, why, and what helps.

import { fill, h, table } from "./dom.js";
import { number, percent } from "./format.js";

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
    const { health, last, report, status, rows } = context.overview();
    fill(context.body,
      h("section", { class: "verdict" },
        h("p", { class: `answer health-${health.status.toLowerCase()}` }, h("b", {}, health.status), " ", MEANING[health.status]),
        h("ul", {}, health.issues.map((issue) => h("li", {}, issue)))),
      h("h2", {}, "What that is judged by"),
      table("Signs of health", ["Sign", "Value", "Status", "What it means"], [
        ...health.signals.map((sign) => [sign.name, sign.shown, SIGN[sign.status], sign.action ? `${sign.sentence}: ${sign.action}` : sign.sentence]),
        ["Steps judged", `${number(health.rows)}${health.of && health.of > health.rows ? ` of ${number(rows)}, evenly chosen` : ""}`, "", "All of the run, not only its end."],
      ]),
      last && h("h2", {}, `Step ${number(last.step)}`),
      last && timeOf(last),
      last && table("Conversations of the last step", ["Conversations", "Failed", "Agent", "User", "Environment", "Reward", "Not scored", "Cut by a limit", "Replies cut"],
        [["step_episodes", "failed", "failed_agent", "failed_user", "failed_environment", "failed_reward", "unscored", "truncated", "cut_replies"].map((key) => h("td", { class: "number" }, number(last[key])))]),
      status.message && h("p", {}, h("b", {}, "The run says: "), status.message),
      report && [h("h2", {}, "Report"), h("pre", { class: "scroll", tabindex: 0 }, report)]);
  }
  draw();
  return draw;
}

function timeOf(row) {
  const parts = [["conversations", row.rollout_seconds], ["learning", row.train_seconds], ["evaluation", row.eval_seconds]].filter(([, value]) => value > 0);
  const whole = Math.max(row.seconds ?? 0, parts.reduce((sum, [, value]) => sum + value, 0));
  if (!whole) return null;
  const other = whole - parts.reduce((sum, [, value]) => sum + value, 0);
  if (other > 0.005 * whole) parts.push(["other", other]);
  const bar = h("div", { class: "split", role: "img", "aria-label": `Where the time goes: ${parts.map(([name, value]) => `${name} ${percent(value / whole)}`).join(", ")}` },
    parts.map(([name, value], place) => {
      const piece = h("span", { class: `piece-${place + 1}` }, value / whole > 0.12 ? `${name} ${percent(value / whole)}` : "");
      piece.style.flexGrow = String(value / whole);
      return piece;
    }));
  return [h("p", { class: "quiet" }, `${number(whole)} s, ${number(row.tokens_per_second)} tokens a second`), bar];
}
