// What was said: groups to choose from, and the samples of one group side by side.

import { ask, isExport } from "./source.js";
import { choice, fill, h } from "./dom.js";
import { number, signed } from "./format.js";

const FILTERS = ["step", "phase", "scenario", "outcome", "low", "high", "order"];

/** The tab; returns how to bring it up to date. */
export async function showConversations(context) {
  const { body, name } = context;
  const wanted = Object.fromEntries(FILTERS.map((key) => [key, context.parameters.get(key) ?? ""]));
  let opened = context.parameters.get("open");
  let start = 0;
  let view = "text";
  let found = await ask("groups", { run: name, ...wanted });
  if (context.gone()) return undefined;
  const filters = h("form", { class: "bar", "aria-label": "Filter", on: { submit: (event) => event.preventDefault() } });
  const list = h("div", { class: "groups" });
  const shown = h("section", { class: "samples", "aria-label": "The group" });

  function keep() {
    const address = context.address(name, "conversations", { ...wanted, open: opened });
    history.replaceState(null, "", address);
  }

  async function look() {
    start = 0;
    opened = null;
    await refresh();
    await openFirst();
  }

  async function refresh() {
    found = await ask("groups", { run: name, ...wanted, start });
    if (context.gone()) return;
    drawList();
  }

  function field(label, key, properties) {
    const input = h("input", { name: key, value: wanted[key], ...properties, on: { change: () => { wanted[key] = input.value; look(); } } });
    return h("label", { class: "field" }, h("span", {}, label), input);
  }

  function drawFilters() {
    const any = [["", "any"]];
    const pick = (label, key, options) => choice(label, options, wanted[key], (value) => { wanted[key] = value; look(); });
    fill(filters,
      field("Step", "step", { type: "number", min: 0 }),
      pick("Phase", "phase", [...any, ["train", "training"], ["eval", "evaluation"]]),
      pick("Scenario", "scenario", [...any, ...found.scenarios.map((one) => [one, one])]),
      pick("Outcome", "outcome", [...any, ...found.outcomes.map((one) => [one, one]), ["success", "success"], ["no success", "no success"]]),
      field("Reward from", "low", { type: "number", step: "any" }),
      field("to", "high", { type: "number", step: "any" }),
      pick("Order", "order", [["", "oldest first"], ["newest", "newest first"]]));
  }

  function drawList() {
    const focused = document.activeElement?.dataset?.group;
    const page = (label, to) => h("button", { type: "button", disabled: to < 0 || to >= found.total, on: { click: () => { start = to; refresh(); } } }, label);
    fill(list,
      h("p", { class: "quiet", role: "status" }, `${number(found.total)} ${found.total === 1 ? "group" : "groups"}${found.complete ? "" : ` so far (${Math.round(100 * found.share)} % read)`}`,
        found.left_out ? `; ${number(found.left_out)} more are not in this exported folder` : ""),
      h("ol", {}, found.groups.map((group) => h("li", {}, h("button", {
        type: "button", class: "group", "data-group": id(group), "aria-pressed": String(id(group) === opened),
        on: { click: () => open(id(group)) },
      },
        h("span", {}, h("b", {}, `step ${number(group.step)}`), group.phase === "train" ? "" : ` ${group.phase}`, ` · ${group.scenario}`),
        strip(group.samples))))),
      found.total > found.groups.length && h("div", { class: "bar" }, page("Back", start - 50), page("On", start + 50)));
    if (focused) list.querySelector(`[data-group="${CSS.escape(focused)}"]`)?.focus();
  }

  async function open(which) {
    const same = opened === which;
    opened = which;
    keep();
    drawList();
    const [step, phase, group] = which.split("/");
    try {
      const answer = await ask("group", { run: name, step, phase, group });
      if (!context.gone() && opened === which) drawGroup(answer);
    } catch (error) {
      fill(shown, h("p", { class: "notice bad", role: "alert" }, error.message));
    }
    if (!same) shown.scrollTop = 0;
  }

  function drawGroup(answer) {
    const { conversations } = answer;
    const rewards = conversations.map((one) => one.reward).filter((reward) => typeof reward === "number");
    const flat = rewards.length > 1 && Math.max(...rewards) - Math.min(...rewards) < 1e-9;
    const told = conversations.some((one) => one.advantages?.length || one.tokens?.length);
    const neighbours = found.groups.map(id);
    const at = neighbours.indexOf(opened);
    const go = (label, to, key) => h("button", { type: "button", accesskey: key, disabled: to === undefined, on: { click: () => open(to) } }, label);
    fill(shown,
      h("div", { class: "bar" },
        h("h2", {}, `${conversations[0].scenario_id} `, h("span", { class: "quiet" }, `step ${number(answer.step)}, ${answer.phase === "eval" ? "evaluation, " : ""}group ${answer.group}`)),
        at >= 0 && go("‹ Previous", neighbours[at - 1], "p"), at >= 0 && go("Next ›", neighbours[at + 1], "n"),
        conversations.some((one) => one.tokens?.length) && choice("Show", [["text", "text"], ["tokens", "tokens"]], view, (value) => { view = value; drawGroup(answer); })),
      flat && h("p", { class: "notice" }, "All rewards of this group are equal: it taught nothing."),
      told && legend(),
      h("div", { class: "columns" }, conversations.map((one, place) => sample(one, place, view, rewards))));
  }

  async function openFirst() {
    if (opened) await open(opened);
    else if (found.groups.length) await open(id(found.groups[0]));
    else { keep(); fill(shown, h("p", { class: "quiet" }, found.conversations ? "No conversation is like that." : "No conversation was logged yet.")); }
  }

  drawFilters();
  drawList();
  fill(body, filters, h("div", { class: "browser" }, h("nav", { class: "side", "aria-label": "Groups" }, list), shown));
  await openFirst();
  if (isExport) return undefined;
  return async () => {
    const before = found.conversations;
    found = await ask("groups", { run: name, ...wanted, start });
    if (context.gone() || found.conversations === before) return;
    drawList();
    if (!before) await openFirst();
  };
}

const id = (group) => `${group.step}/${group.phase}/${group.group}`;

/** The rewards of a group on a line from the lowest to the highest of them. */
function strip(samples) {
  const rewards = samples.map((sample) => sample.reward).filter((reward) => reward !== null);
  if (!rewards.length) return h("span", { class: "quiet" }, "not scored");
  const low = Math.min(...rewards);
  const high = Math.max(...rewards);
  const line = h("span", { class: "strip", "aria-hidden": true }, samples.filter((sample) => sample.reward !== null).map((sample) => {
    const dot = h("i", { class: sample.wanted ? "" : "other" });
    dot.style.left = `${high > low ? (100 * (sample.reward - low)) / (high - low) : 50}%`;
    return dot;
  }));
  return [line, h("span", { class: "quiet" }, high > low ? `${number(low)} to ${number(high)}` : `all ${number(low)}`)];
}

function legend() {
  const step = (value) => h("span", { class: `token ${shade(value, 1)}` }, value === null ? "not trained" : signed(value));
  return h("p", { class: "legend quiet" }, "Advantage: ", step(-1), step(-0.3), step(0.3), step(1), step(null));
}

/** A class for an advantage: four shades of more likely and of less likely; null is what was not trained. */
function shade(advantage, largest) {
  if (advantage === null || advantage === undefined) return "masked";
  if (Math.abs(advantage) < 1e-9) return "zero";
  const level = Math.min(4, Math.max(1, Math.ceil((4 * Math.abs(advantage)) / Math.max(largest, 1e-9))));
  return `${advantage > 0 ? "more" : "less"}-${level}`;
}

function sample(one, place, view, rewards) {
  const best = rewards.length > 1 && one.reward === Math.max(...rewards) && one.reward !== Math.min(...rewards);
  const parts = Object.entries(one.breakdown ?? {}).filter(([part]) => !/^turn_\d+$/.test(part));
  return h("article", { class: "sample", tabindex: 0, "aria-label": `Sample ${place + 1}` },
    h("header", {},
      h("div", { class: "bar" }, h("b", {}, `Sample ${place + 1}`),
        h("span", { class: "reward" }, one.reward === null ? "not scored" : `reward ${number(one.reward)}`), best && h("span", { class: "chip finished" }, "best"),
        one.success !== null && h("span", { class: `chip ${one.success ? "finished" : "failed"}` }, one.success ? "✓ success" : "✕ no success"),
        one.outcome !== "ok" && h("span", { class: "chip interrupted" }, one.outcome)),
      parts.length > 0 && h("p", { class: "quiet" }, parts.map(([part, value]) => `${part} ${number(value)}`).join(" · ")),
      (one.error || one.unscored) && h("p", { class: "notice bad" }, one.error ?? one.unscored),
      one.edited_turns > 0 && h("p", { class: "quiet" }, `${one.edited_turns} turns were edited by code and not trained`)),
    view === "tokens" && one.tokens?.length ? tokens(one) : turns(one));
}

function turns(one) {
  const largest = Math.max(1, ...(one.advantages ?? []).map((value) => Math.abs(value ?? 0)));
  let spoken = -1;
  return one.turns.map((turn) => {
    const role = ["system", "user", "assistant", "tool"].includes(turn.role) ? turn.role : "other";
    if (turn.role === "assistant") spoken += 1;
    const place = spoken;
    const own = turn.role === "assistant";
    const earned = own ? one.turn_rewards?.[place] : undefined;
    const advantage = own && one.advantages ? one.advantages[place] : undefined;
    const facts = [
      own && earned !== undefined && `reward ${number(earned)}`,
      advantage === null && "not trained",
      typeof advantage === "number" && `advantage ${signed(advantage)}`,
      turn.stop_reason && turn.stop_reason !== "stop" && `ended by ${turn.stop_reason}`,
    ].filter(Boolean);
    const body = [
      turn.content && h("p", { class: "said" }, turn.content),
      (turn.tool_calls ?? []).map((call) => h("details", {}, h("summary", {}, `calls ${call.name ?? "a tool"}`), h("pre", {}, pretty(call.arguments ?? call)))),
    ];
    if (role === "tool") {
      const failed = turn.tool_result && (turn.tool_result.error || turn.tool_result.ok === false);
      return h("div", { class: "turn tool" }, h("details", {}, h("summary", {}, `${turn.tool_result?.name ?? "tool"} answered${failed ? ", with an error" : ""}`), h("pre", {}, turn.content)));
    }
    return h("div", { class: `turn ${role} ${advantage === undefined ? "" : shade(advantage, largest)}` },
      h("div", { class: "who" }, h("b", {}, turn.role), h("span", { class: "quiet" }, facts.join(" · "))), body);
  });
}

function tokens(one) {
  return one.tokens.map((row) => {
    const largest = Math.max(1, ...row.advantages.map((value) => Math.abs(value ?? 0)));
    return h("p", { class: "tokens" }, row.pieces.map((piece, place) => {
      const trained = row.mask[place] === 1;
      const advantage = trained ? row.advantages[place] : null;
      const says = trained ? `advantage ${signed(advantage)}, probability ${number(Math.exp(row.logprobs[place]))}` : "not trained";
      return h("span", { class: `token ${shade(advantage, largest)}`, title: says }, visible(piece));
    }), row.cut > 0 && h("span", { class: "quiet" }, ` … ${number(row.cut)} tokens more`));
  });
}

/** Line ends are shown and kept. */
function visible(piece) {
  return piece.replaceAll("\n", "↵\n").replaceAll("\t", "⇥");
}

function pretty(value) {
  return typeof value === "string" ? value : JSON.stringify(value, null, 2);
}
