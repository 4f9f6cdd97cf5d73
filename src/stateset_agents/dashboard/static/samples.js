// One conversation of a group: its head, its turns, its tokens.

import { h } from "./dom.js";
import { number, signed } from "./format.js";

/** The conversation at a place of its group, as a card; `address` is where it is by itself. */
export function sample(one, place, view, rewards, address) {
  const best = rewards.length > 1 && one.reward === Math.max(...rewards) && one.reward !== Math.min(...rewards);
  const parts = Object.entries(one.breakdown ?? {}).filter(([part]) => !/^turn_\d+$/.test(part));
  return h("article", { class: "sample", tabindex: 0, id: `sample-${place + 1}`, "aria-label": `Sample ${place + 1}` },
    h("header", {},
      h("div", { class: "bar" }, h("a", { href: address, title: "The address of this sample" }, `Sample ${place + 1}`),
        h("span", { class: "reward" }, rewardOf(one)), best && h("span", { class: "chip finished" }, "best"),
        typeof one.success === "boolean" && h("span", { class: `chip ${one.success ? "finished" : "failed"}` }, one.success ? "✓ success" : "✕ no success"),
        one.outcome !== "ok" && h("span", { class: "chip interrupted" }, text(one.outcome))),
      parts.length > 0 && h("p", { class: "quiet" }, parts.map(([part, value]) => `${part} ${number(value)}`).join(" · ")),
      (one.error || one.unscored) && h("p", { class: "notice bad" }, text(one.error ?? one.unscored)),
      one.edited_turns > 0 && h("p", { class: "quiet" }, `${one.edited_turns} turns were edited by code and not trained`)),
    view === "tokens" && one.tokens?.length ? tokens(one) : turns(one));
}

/** What it earned, in words. */
export function rewardOf(one) {
  return typeof one.reward === "number" ? `reward ${number(one.reward)}` : "not scored";
}

/** What an advantage looks like. */
export function legend() {
  const step = (value) => h("span", { class: `token ${shade(value, 1)}` }, value === null ? "not trained" : signed(value));
  return h("p", { class: "legend quiet" }, "Advantage: ", step(-1), step(-0.3), step(0.3), step(1), step(null));
}

/** The role of a turn, of those that have a look of their own. */
export function roleOf(turn) {
  return ["system", "user", "assistant", "tool"].includes(turn.role) ? turn.role : "other";
}

/** Arguments of a call, to be read. */
export function pretty(value) {
  return typeof value === "string" ? value : JSON.stringify(value, null, 2);
}

/** Whatever it is, as text. */
export function text(value) {
  return value === null || value === undefined ? "" : pretty(value);
}

/** A list, or none where it is something else. */
export function list(value) {
  return Array.isArray(value) ? value : [];
}

/** A class for an advantage: four shades of more likely and of less likely; null is what was not trained. */
function shade(advantage, largest) {
  if (typeof advantage !== "number") return "masked";
  if (Math.abs(advantage) < 1e-9) return "zero";
  const level = Math.min(4, Math.max(1, Math.ceil((4 * Math.abs(advantage)) / Math.max(largest, 1e-9))));
  return `${advantage > 0 ? "more" : "less"}-${level}`;
}

const largestOf = (advantages) => Math.max(1, ...list(advantages).map((value) => Math.abs(value ?? 0)));

function turns(one) {
  const largest = largestOf(one.advantages);
  let spoken = -1;
  return list(one.turns).filter(Boolean).map((turn) => {
    const role = roleOf(turn);
    if (role === "assistant") spoken += 1;
    const place = spoken;
    const own = role === "assistant";
    const earned = own ? one.turn_rewards?.[place] : undefined;
    const advantage = own && one.advantages ? one.advantages[place] : undefined;
    const facts = [
      own && earned !== undefined && `reward ${number(earned)}`,
      advantage === null && "not trained",
      typeof advantage === "number" && `advantage ${signed(advantage)}`,
      turn.stop_reason && turn.stop_reason !== "stop" && `ended by ${turn.stop_reason}`,
    ].filter(Boolean);
    const body = [
      turn.content && h("p", { class: "said" }, text(turn.content)),
      list(turn.tool_calls).map((call) => h("details", {}, h("summary", {}, `calls ${call?.name ?? "a tool"}`), h("pre", {}, pretty(call?.arguments ?? call)))),
    ];
    if (role === "tool") {
      const failed = turn.tool_result && (turn.tool_result.error || turn.tool_result.ok === false);
      return h("div", { class: "turn tool" }, h("details", {}, h("summary", {}, `${turn.tool_result?.name ?? "tool"} answered${failed ? ", with an error" : ""}`), h("pre", {}, text(turn.content))));
    }
    return h("div", { class: `turn ${role} ${advantage === undefined ? "" : shade(advantage, largest)}` },
      h("div", { class: "who" }, h("b", {}, text(turn.role)), h("span", { class: "quiet" }, facts.join(" · "))), body);
  });
}

function tokens(one) {
  return list(one.tokens).map((row) => {
    const largest = largestOf(row.advantages);
    return h("p", { class: "tokens" }, list(row.pieces).map((piece, place) => {
      const trained = row.mask[place] === 1;
      const advantage = trained ? row.advantages[place] : null;
      const says = trained ? `advantage ${signed(advantage)}, probability ${number(Math.exp(row.logprobs[place]))}` : "not trained";
      return h("span", { class: `token ${shade(advantage, largest)}`, title: says }, visible(text(piece)));
    }), row.cut > 0 && h("span", { class: "quiet" }, ` … ${number(row.cut)} tokens more`));
  });
}

/** Line ends are shown and kept. */
function visible(piece) {
  return piece.replaceAll("\n", "↵\n").replaceAll("\t", "⇥");
}
