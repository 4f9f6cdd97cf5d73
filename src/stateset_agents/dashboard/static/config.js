// With what the run was started, against another run, and what it saved.

import { ask, isExport } from "./source.js";
import { choice, fill, h, table } from "./dom.js";
import { ago, bytes, number } from "./format.js";

/** The tab. */
export async function showConfig(context) {
  const { body, name, parameters } = context;
  const [own, saved, { runs }] = await Promise.all([ask("config", { run: name }), ask("checkpoints", { run: name }), ask("runs")]);
  if (context.gone()) return undefined;
  let other = parameters.get("with") ?? "";
  let words = "";
  const values = h("div", {});
  const bar = h("div", { class: "bar" });
  const kept = h("div", {});

  async function drawValues() {
    const against = other ? await ask("config", { run: other }) : null;
    if (context.gone()) return;
    const keys = [...new Set([...Object.keys(own.values), ...Object.keys(against?.values ?? {})])];
    const same = (key) => text(own.values[key]) === text(against.values[key]);
    const shown = keys.filter((key) => (!against || !same(key)) && `${key} ${text(own.values[key])}`.toLowerCase().includes(words));
    const origin = Object.keys(own.origins ?? {}).length > 0;
    fill(values,
      own.problem && h("p", { class: "notice bad" }, own.problem),
      against && h("p", { class: "quiet" }, shown.length ? `${shown.length} values differ.` : "No value differs."),
      shown.length > 0 && table("Config", ["Key", name, ...(against ? [other] : origin ? ["Origin"] : [])],
        shown.map((key) => [h("th", { scope: "row", class: "key" }, key), h("code", {}, text(own.values[key])),
          ...(against ? [h("code", {}, text(against.values[key]))] : origin ? [h("span", { class: "quiet" }, originOf(key))] : [])])));
  }

  /** Where a value was written: by its own name, or with what it is part of. */
  function originOf(key) {
    for (let part = key; part; part = part.replace(/(^|\.|\[)[^.[]*$/, "")) if (own.origins[part]) return own.origins[part];
    return "default";
  }

  function drawBar() {
    const search = h("input", { type: "search", on: { input: () => { words = search.value.toLowerCase(); drawValues(); } } });
    fill(bar,
      h("label", { class: "field" }, h("span", {}, "Find"), search),
      runs.length > 1 && choice("Against", [["", "no other run"], ...runs.filter((run) => run.name !== name).map((run) => [run.name, run.name])], other, (value) => { other = value; drawValues(); }));
  }

  function drawKept(results = new Map()) {
    fill(kept, h("h2", {}, "Checkpoints"),
      saved.checkpoints.length === 0 ? h("p", { class: "quiet" }, "None yet.")
        : table("Checkpoints", ["Step", "Written", "Size", "Files", "State"], saved.checkpoints.map((one) => [
          h("td", { class: "number" }, number(one.step)), ago(one.age), one.bytes ? bytes(one.bytes) : "–", h("td", { class: "number" }, number(one.files)),
          stateOf(one, results)])));
  }

  function stateOf(one, results) {
    const result = results.get(one.step);
    if (one.problem) return h("span", { class: "chip failed" }, `✕ ${one.problem}`);
    if (result === "…") return h("span", { class: "quiet", role: "status" }, "comparing every byte…");
    if (result) return result.good ? h("span", { class: "chip finished", role: "status" }, "✓ every file is what was written") : h("span", { class: "chip failed", role: "status" }, `✕ ${result.problem}`);
    if (isExport) return "complete by its manifest";
    return h("button", {
      type: "button", "aria-label": `Verify the checkpoint of step ${one.step}`,
      on: {
        click: async () => {
          drawKept(results.set(one.step, "…"));
          const found = await ask("verify", { run: name, step: one.step }).catch((error) => ({ good: false, problem: error.message }));
          drawKept(results.set(one.step, found));
        },
      },
    }, "Verify");
  }

  drawBar();
  drawKept();
  fill(body, kept, h("h2", {}, "Config"), bar, values);
  await drawValues();
  return undefined;
}

function text(value) {
  return value === undefined ? "not set" : typeof value === "string" ? value : JSON.stringify(value);
}
