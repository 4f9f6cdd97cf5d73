// Is it learning? One sentence, the reward, and what else a step measured.

import { ask, isExport } from "./source.js";
import { choice, fill, h } from "./dom.js";
import { PALETTE, dash, figure } from "./charts.js";
import { number, partOf } from "./format.js";

const AXES = { step: "step", tokens: "tokens sampled", hours: "hours of work" };
const SIGNS = { yes: "↗", "not seen": "→", "getting worse": "↘" };

// What is worth a curve, and what to look for in it. `from`, `to`: shares go from 0 to 1.
const CHARTS = [
  { title: "Success", keys: ["success_rate", "eval_success_rate"], labels: ["training", "evaluation"], from: 0, to: 1, hint: "Share of conversations that succeeded." },
  { title: "Groups without a difference", keys: ["zero_variance_share"], from: 0, to: 1, hint: "Their rewards are equal, so they teach nothing." },
  { title: "KL from the reference", keys: ["kl"], from: 0, hint: "How far the policy went; null without beta." },
  { title: "Entropy", keys: ["entropy"], from: 0, hint: "Falls as the policy gets sure. Near 0 nothing new is tried." },
  { title: "Length", keys: ["length_mean"], labels: ["replies"], from: 0, hint: "Replies in a conversation." },
  { title: "Tokens of a step", keys: ["sampled_tokens", "trained_tokens"], labels: ["sampled", "trained"], from: 0 },
  { title: "Clip fraction", keys: ["clip_fraction"], from: 0, hint: "Share of tokens whose update was clipped." },
  { title: "Gradient norm", keys: ["grad_norm"], from: 0, hint: "Before clipping. Jumps ask for a lower learning rate." },
  { title: "Failures", keys: ["failed", "unscored", "truncated"], labels: ["failed", "not scored", "cut by a limit"], from: 0, hint: "Conversations of a step." },
  { title: "Loss", keys: ["loss"] },
  { title: "Sampler and learner apart", keys: ["mismatch_size"], from: 0, hint: "Mean difference of their log-probs; rounding explains up to 0.1." },
  { title: "Learning rate", keys: ["learning_rate"], from: 0 },
  { title: "Tokens a second", keys: ["tokens_per_second"], from: 0 },
];
// What is drawn together by how its name begins or ends.
const FAMILIES = [
  { title: "Parts of the reward", of: (key) => key.startsWith("reward/"), label: (key) => key.slice(7), hint: "Means, without their weights.", place: 1 },
  { title: "Seconds of a step", of: (key) => key.endsWith("_seconds"), label: partOf, from: 0, hint: "Parts may lie inside one another." },
  { title: "Memory", of: (key) => key.startsWith("memory_"), label: (key) => key.slice(7).replaceAll("_", " "), from: 0 },
];
const IN_A_CHART = 6;

/** The tab; returns how to bring it up to date. */
export async function showLearning(context) {
  const { body, parameters } = context;
  let axis = parameters.get("x") in AXES ? parameters.get("x") : "step";
  let zoom = [null, null];
  let showAll = false;

  const verdict = h("section", { class: "verdict", "aria-label": "Is it learning?" });
  const bar = h("div", { class: "bar" });
  const big = h("div", {});
  const grid = h("div", { class: "grid" });
  const more = h("section", { "aria-label": "Everything else that a step measured" });

  function drawVerdict() {
    const { learning, health } = context.overview();
    fill(verdict,
      h("p", { class: `answer ${learning.verdict.replace(" ", "-")}` },
        h("span", { class: "sign", "aria-hidden": true }, SIGNS[learning.verdict]), learning.sentence),
      h("ul", {}, learning.notes.map((note) => h("li", {}, note)), health.issues.map((issue) => h("li", {}, issue))));
  }

  function toStep(index, steps) {
    location.hash = context.address(context.name, "conversations", { step: steps[index] });
  }

  const asked = () => ({ run: context.name, first: zoom[0], last: zoom[1] });

  function zoomTo(found) {
    return isExport ? undefined : (low, high) => {
      if (low === null) zoom = [null, null];
      else {
        const steps = found.step.filter((_, place) => found[axis][place] >= low && found[axis][place] <= high);
        if (steps.length < 2) return;
        zoom = [steps[0], steps.at(-1)];
      }
      drawBar();
      draw();
    };
  }

  function shared(found) {
    return {
      x: found[axis],
      marks: context.overview().resumed_at.map((step) => ({ at: at(found, step), label: "resumed" })).filter((mark) => mark.at !== null),
      onStep: (index) => toStep(index, found.step),
      onZoom: zoomTo(found),
      describe: (index) => `step ${number(found.step[index])}`,
    };
  }

  function at(found, step) {
    const place = found.step.findIndex((one) => one >= step);
    return place < 0 ? null : found[axis][place];
  }

  function drawReward(found) {
    const measure = found.series.reward_mean ? "reward_mean" : "loss";
    const points = found.series[measure];
    if (!points) { fill(big, h("p", { class: "quiet" }, "No step was logged yet.")); return; }
    const most = context.overview().attainable;
    const curves = [
      { values: points.mean, colour: "curve-1", faint: true, width: 1, band: points.low && [points.low, points.high] },
    ];
    if (found.trend) curves.push({ label: measure === "loss" ? "loss, running mean" : "reward, running mean", values: found.trend.mean, colour: "curve-1", width: 2.4, band: [found.trend.low, found.trend.high] });
    const { evaluations } = found;
    if (evaluations.step.length) {
      const places = new Map(evaluations.step.map((step, place) => [step, place]));
      const spread = (key) => found.step.map((step, index) => {
        for (let one = (found.step[index - 1] ?? step - 1) + 1; one <= step && one > step - 2000; one++) {
          if (places.has(one)) return evaluations[key][places.get(one)];
        }
        return null;
      });
      curves.push({ label: "evaluation", values: spread("eval_reward_mean"), colour: "curve-2", points: 8, width: 1.5, dash: [4, 4] });
    }
    fill(big, figure({
      ...shared(found), title: measure === "loss" ? "Loss" : "Reward", wide: true, height: 300, curves,
      level: measure === "reward_mean" && most ? { value: most, label: `attainable ${Number(most.toPrecision(4))}` } : null,
      hint: `${shows(found)} The bold line is the mean over a tenth of the steps around it, its band what that mean could be (95 %). Click for the conversations of a step, drag to zoom, double-click for all; or choose a chart with Tab, go with the arrow keys, and press Enter.`,
    }));
  }

  /** What the curves are made of. */
  function shows(found) {
    if (!found.complete) return "A sample of the steps while the log is read.";
    const each = Math.ceil(found.rows / Math.max(1, found.step.length));
    return each > 1 ? `All ${number(found.rows)} steps: a point is the mean of ${number(each)}, the faint band goes from their lowest to their highest.` : "";
  }

  function drawGrid(found) {
    const charts = [...CHARTS];
    for (const { of, label, place, ...chart } of FAMILIES) {
      const keys = Object.keys(found.series).filter(of).slice(0, IN_A_CHART);
      charts.splice(place ?? charts.length, 0, { ...chart, keys, labels: keys.map(label) });
    }
    fill(grid, charts.map((chart) => drawn(found, chart)));
  }

  function drawn(found, chart) {
    const curves = chart.keys.map((key, place) => [found.series[key], place]).filter(([points]) => points?.mean.some((value) => value !== null))
      .map(([points, place]) => ({
        label: chart.labels?.[place] ?? chart.title.toLowerCase(), values: points.mean, colour: PALETTE[place], dash: dash(place),
        points: chart.keys[place].startsWith("eval_") ? 6 : undefined, band: points.low && [points.low, points.high],
      }));
    return curves.length ? figure({ ...shared(found), ...chart, curves }) : null;
  }

  function zoomIn(low, high) {
    zoom = [low, high].map((end) => (end === "" ? null : Number(end)));
    drawBar();
    draw();
  }

  function drawBar() {
    const [from, to] = zoom.map((end) => h("input", { type: "number", min: 0, step: 1, value: end }));
    const goTo = h("input", { type: "number", min: 0, step: 1, name: "step", required: true });
    fill(bar,
      choice("x is", Object.entries(AXES), axis, (value) => { axis = value; draw(); }),
      h("form", { class: "field", on: { submit: (event) => { event.preventDefault(); location.hash = context.address(context.name, "conversations", { step: goTo.value }); } } },
        h("label", { class: "field" }, h("span", {}, "Conversations of step"), goTo), h("button", {}, "Show")),
      !isExport && h("form", { class: "field", "aria-label": "Zoom", on: { submit: (event) => { event.preventDefault(); zoomIn(from.value, to.value); } } },
        h("label", { class: "field" }, h("span", {}, "Steps from"), from), h("label", { class: "field" }, h("span", {}, "to"), to), h("button", { "data-key": "zoom" }, "Zoom")),
      zoom.some((end) => end !== null) && h("button", { type: "button", on: { click: () => zoomIn("", "") } }, "All steps"));
  }

  async function draw() {
    const { keys } = context.overview();
    const main = keys.includes("reward_mean") ? "reward_mean" : "loss";
    const reward = await ask("series", { ...asked(), key: main, points: 800 });
    if (context.gone()) return;
    drawReward(reward);
    const wanted = [...new Set([...CHARTS.flatMap((chart) => chart.keys), ...FAMILIES.flatMap(({ of }) => keys.filter(of).slice(0, IN_A_CHART))])].filter((key) => keys.includes(key));
    const rest = await ask("series", { ...asked(), key: wanted, points: 300 });
    if (context.gone()) return;
    drawGrid(rest);
    await drawMore(wanted);
  }

  async function drawMore(shown) {
    const others = context.overview().keys.filter((key) => !shown.includes(key) && key !== "reward_mean" && key !== "updated");
    if (!others.length || (isExport && !others.length)) return;
    const found = showAll ? await ask("series", { ...asked(), key: others.slice(0, 60), points: 300 }) : null;
    if (context.gone()) return;
    fill(more,
      h("button", { type: "button", "aria-expanded": String(showAll), on: { click: () => { showAll = !showAll; drawMore(shown); } } },
        showAll ? "Hide the other numbers" : `${others.length} other numbers`),
      found && h("div", { class: "grid" }, others.map((key) => drawn(found, { title: key, keys: [key] }))));
  }

  drawVerdict();
  drawBar();
  fill(body, verdict, bar, big, grid, more);
  await draw();
  return async () => { drawVerdict(); await draw(); };
}
