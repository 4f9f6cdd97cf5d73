// What was said: groups to choose from, and the samples of one group side by side.

import { ask, isExport } from "./source.js";
import { choice, fill, h, table } from "./dom.js";
import { differences, furthest } from "./differences.js";
import { number } from "./format.js";
import { legend, sample, text } from "./samples.js";

const FILTERS = ["step", "phase", "scenario", "outcome", "low", "high", "order"];

/** The tab; returns how to bring it up to date. */
export async function showConversations(context) {
  const { body, name } = context;
  const wanted = Object.fromEntries(FILTERS.map((key) => [key, context.parameters.get(key) ?? ""]));
  let opened = context.parameters.get("open");
  let start = 0;
  let view = context.parameters.get("view") ?? "text";
  let chosen = Number(context.parameters.get("sample")) || null;
  let pair = context.parameters.get("pair")?.split("-").map((one) => Number(one) - 1) ?? null;
  let found = await ask("groups", { run: name, ...wanted });
  if (context.gone()) return undefined;
  const filters = h("form", { class: "bar", "aria-label": "Filter", on: { submit: (event) => event.preventDefault() } });
  const list = h("div", { class: "groups" });
  const shown = h("section", { class: "samples", "aria-label": "The group" });
  const measured = h("details", { class: "measured", hidden: true, on: { toggle: () => drawMeasured() } }, h("summary", {}));

  /** The address of what is shown, or of something else in this tab. */
  function address(other = {}) {
    const between = view === "differences" && pair ? pair.map((one) => one + 1).join("-") : null;
    return context.address(name, "conversations", { ...wanted, open: opened, view: view === "text" ? null : view, pair: between, sample: chosen, ...other });
  }

  function keep() {
    history.replaceState(null, "", address());
  }

  /** Another group, or another part of it: what was chosen in the last one says nothing there. */
  function forget() {
    chosen = null;
    pair = null;
  }

  async function drawMeasured() {
    const step = wanted.step;
    measured.hidden = isExport || step === "";
    measured.firstChild.textContent = `What step ${step} measured`;
    if (measured.hidden || !measured.open) return;
    const row = await ask("step", { run: name, step }).catch((error) => ({ problem: error.message }));
    if (context.gone() || wanted.step !== step) return;
    fill(measured, measured.firstChild, table(`Step ${step}`, ["Key", "Value"],
      Object.entries(row).map(([key, value]) => [h("th", { scope: "row", class: "key" }, key), h("td", { class: "number" }, value === null ? "–" : text(value))])));
  }

  async function look() {
    start = 0;
    opened = null;
    forget();
    drawMeasured();
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
    const page = (label, to) => h("button", { type: "button", disabled: to < 0 || to >= found.total, on: { click: () => { start = to; refresh(); } } }, label);
    fill(list,
      h("p", { class: "quiet", role: "status" }, `${number(found.total)} ${found.total === 1 ? "group" : "groups"}${found.complete ? "" : ` so far (${Math.round(100 * found.share)} % read)`}`,
        found.left_out ? `; ${number(found.left_out)} more are not in this exported folder` : ""),
      h("ol", {}, found.groups.map((group) => h("li", {}, h("button", {
        type: "button", class: "group", "data-key": id(group), "aria-pressed": String(id(group) === opened),
        on: { click: () => open(id(group)) },
      },
        h("span", {}, h("b", {}, `step ${number(group.step)}`), group.phase === "train" ? "" : ` ${group.phase}`, ` · ${group.scenario}`),
        strip(group.samples))))),
      found.total > found.groups.length && h("div", { class: "bar" }, page("Back", start - 50), page("On", start + 50)));
  }

  async function open(which) {
    const same = opened === which;
    if (!same) forget();
    opened = which;
    keep();
    drawList();
    const [step, phase, group] = which.split("/");
    try {
      const answer = await ask("group", { run: name, step, phase, group });
      if (context.gone() || opened !== which) return;
      drawGroup(answer);
      if (chosen) document.getElementById(`sample-${chosen}`)?.focus();
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
    const views = [["text", "text"]];
    if (conversations.some((one) => one.tokens?.length)) views.push(["tokens", "tokens"]);
    if (conversations.length > 1) views.push(["differences", "differences of two"]);
    if (!views.some(([one]) => one === view)) view = "text";
    if (!pair?.every((one) => one in conversations) || pair.length !== 2) pair = furthest(conversations);
    const redraw = () => { keep(); drawGroup(answer); };
    const go = (label, to, key) => h("button", { type: "button", accesskey: key, "data-key": label, disabled: to === undefined, on: { click: () => open(to) } }, label);
    fill(shown,
      h("div", { class: "bar" },
        h("h2", {}, `${text(conversations[0].scenario_id)} `, h("span", { class: "quiet" }, `step ${number(answer.step)}, ${answer.phase === "eval" ? "evaluation, " : ""}group ${answer.group}`)),
        at >= 0 && go("‹ Previous", neighbours[at - 1], "p"), at >= 0 && go("Next ›", neighbours[at + 1], "n"),
        views.length > 1 && choice("Show", views, view, (value) => { view = value; redraw(); })),
      flat && h("p", { class: "notice" }, "All rewards of this group are equal: it taught nothing."),
      view === "differences"
        ? differences(conversations, pair, (value) => { pair = value; redraw(); })
        : [told && legend(), h("div", { class: "columns" }, conversations.map((one, place) =>
          sample(one, place, view, rewards, address({ sample: place + 1 }))))]);
  }

  async function openFirst() {
    if (opened) await open(opened);
    else if (found.groups.length) await open(id(found.groups[0]));
    else { keep(); fill(shown, h("p", { class: "quiet" }, found.conversations ? "No conversation is like that." : "No conversation was logged yet.")); }
  }

  drawFilters();
  drawList();
  drawMeasured();
  fill(body, filters, measured, h("div", { class: "browser" }, h("nav", { class: "side", "aria-label": "Groups" }, list), shown));
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
