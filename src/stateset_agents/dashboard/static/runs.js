// All runs side by side, and the curves of those that are chosen.

import { ask, isExport } from "./source.js";
import { choice, fill, h, table } from "./dom.js";
import { PALETTE, dash, figure, joined, spark } from "./charts.js";
import { ago, number, percent } from "./format.js";
import { chip, lastSign } from "./status.js";

const AGAIN = 5000;
const COMPARED = 6;

/** The first page. */
export async function showRuns(context) {
  const chosen = new Set(context.parameters.getAll("compare").slice(0, COMPARED));
  let key = context.parameters.get("key") ?? "reward_mean";
  const list = h("section", {});
  const compared = h("section", { "aria-label": "Chosen runs, compared" });

  async function compare() {
    const names = [...chosen];
    const asked = new URLSearchParams([...names.map((name) => ["compare", name]), ...(names.length ? [["key", key]] : [])]);
    history.replaceState(null, "", names.length ? `#/?${asked}` : "#/");
    if (!names.length) { fill(compared); return; }
    const found = await Promise.all(names.map((run) => ask("series", { run, key, points: 600 }).catch(() => null)));
    if (context.gone()) return;
    const kept = names.map((name, place) => [name, found[place]]).filter(([, one]) => one?.series[key]);
    const data = kept.length ? joined(kept.map(([, one]) => [one.step, one.series[key].mean])) : [[]];
    const { keys } = await ask("overview", { run: kept[0]?.[0] ?? names[0] }).catch(() => ({ keys: [key] }));
    if (context.gone()) return;
    fill(compared,
      h("h2", {}, "Compared"),
      h("div", { class: "bar" },
        choice("Measure", [...new Set([key, ...keys])].filter((name) => name !== "updated").map((name) => [name, name]), key, (value) => { key = value; compare(); }),
        h("span", { class: "quiet" }, `${names.length} of at most ${COMPARED} runs`)),
      kept.length
        ? figure({
          title: key, wide: true, height: 260, x: data[0],
          curves: kept.map(([name], place) => ({ label: name, values: data[place + 1], colour: PALETTE[place], dash: dash(place), width: 2 })),
        })
        : h("p", { class: "quiet" }, "None of these runs measured that."));
  }

  async function refresh() {
    const { folder, runs } = await ask("runs");
    if (context.gone()) return;
    fill(list,
      h("h1", {}, folder, " ", h("span", { class: "quiet" }, `${runs.length} ${runs.length === 1 ? "run" : "runs"}`)),
      table("Runs", ["Compare", "Run", "Status", "Step", "Reward", "Its course", "Success", "Evaluated", "Last checkpoint", "Last sign"],
        runs.map((run) => [
          h("input", {
            type: "checkbox", checked: chosen.has(run.name), "aria-label": `Compare ${run.name}`, "data-key": run.name,
            disabled: !chosen.has(run.name) && chosen.size >= COMPARED,
            on: { change: (event) => { chosen[event.target.checked ? "add" : "delete"](run.name); refresh(); compare(); } },
          }),
          h("a", { href: context.address(run.name, "learning"), "data-key": `to ${run.name}` }, run.name),
          chip(run.status),
          h("td", { class: "number" }, number(run.step)),
          h("td", { class: "number" }, number(run.reward)),
          spark(run.spark, `reward of ${run.name} over its steps`),
          h("td", { class: "number" }, percent(run.success)),
          h("td", { class: "number" }, number(run.evaluated)),
          run.checkpoint ? `step ${number(run.checkpoint.step)}, ${ago(run.checkpoint.age)}` : "none yet",
          lastSign(run.status),
        ]), { class: "runs" }));
  }

  await refresh();
  if (context.gone()) return;
  fill(context.main, list, compared);
  await compare();
  if (!isExport) {
    const timer = setInterval(() => {
      if (!document.hidden) refresh().catch((error) => context.say(error.message));
    }, AGAIN);
    context.onLeave(() => clearInterval(timer));
  }
}
