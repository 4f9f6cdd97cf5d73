// Curves. uPlot draws them; this says what is drawn, in which colours, and what a click means.

import { h } from "./dom.js";
import { number } from "./format.js";

const uPlot = globalThis.uPlot;

/** A colour of the style sheet. */
export function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

/** The colours of several curves, told apart by people who see few of them. */
export const PALETTE = ["curve-1", "curve-2", "curve-3", "curve-4", "curve-5", "curve-6"];
const DASHES = [[], [6, 3], [2, 3], [8, 3, 2, 3], [], [6, 3]];

/**
 * A figure with a chart.
 *
 * title, hint: what is shown, and what to read in it.
 * x: numbers; curves: [{label, values, colour, width, points, dash, band: [low, high] values}].
 * marks: [{at, label}] vertical lines; level: {value, label} a horizontal one. height: pixels. from, to: of the y axis
 * where it is known.
 * onStep(index): a click, or Enter where the arrow keys have led. onZoom(low, high): another part of x was chosen; null
 * is all.
 */
export function figure(spec) {
  const box = h("div", { class: "plot" });
  const readings = spec.curves.filter((curve) => curve.label).map((curve, place) => [curve, lastOf(curve.values), place]);
  const said = readings.map(([curve, value]) => `${curve.label} ${number(value)}`).join(", ");
  const caption = h("figcaption", {},
    h("h2", {}, spec.title),
    h("span", { class: "last" }, readings.map(([curve, value]) => h("span", { class: "reading" },
      readings.length > 1 && swatch(curve), readings.length > 1 && `${curve.label} `, h("b", {}, number(value)))),
      spec.level && h("span", { class: "reading" }, spec.level.label)),
    spec.hint && h("p", { class: "hint" }, spec.hint));
  const element = h("figure", { class: `chart ${spec.wide ? "wide" : ""}` }, caption, box);
  box.setAttribute("aria-label", `${spec.title}: at the end ${said || "nothing measured"}`);
  let plot = null;
  if (spec.onStep && spec.x.length) byKeyboard(box, spec, () => plot);
  else box.setAttribute("role", "img");
  queueMicrotask(() => { plot = draw(box, spec); });
  return element;
}

/** Lets the arrow keys go from point to point, each of them read out. */
function byKeyboard(box, spec, plot) {
  const last = spec.x.length - 1;
  let at = last;
  const reading = () => {
    const values = spec.curves.filter((curve) => curve.label).map((curve) => `${curve.label} ${number(curve.values[at])}`);
    return `${nameOf(spec, at)}: ${values.join(", ")}`;
  };
  function goTo(place) {
    at = Math.max(0, Math.min(last, place));
    box.setAttribute("aria-valuenow", String(at));
    box.setAttribute("aria-valuetext", reading());
    plot()?.setCursor({ left: plot().valToPos(spec.x[at], "x"), top: 0 });
  }
  const page = Math.max(1, Math.round(last / 10));
  const keys = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageUp: page, PageDown: -page, Home: -Infinity, End: Infinity };
  const fixed = { role: "slider", tabindex: 0, "data-key": `chart ${spec.title}`, "aria-valuemin": 0, "aria-valuemax": last };
  for (const [name, value] of Object.entries(fixed)) box.setAttribute(name, String(value));
  goTo(last);
  box.addEventListener("keydown", (event) => {
    if (event.key in keys) goTo(at + keys[event.key]);
    else if (event.key === "Enter") spec.onStep(at);
    else if (event.key === "Escape") plot()?.setCursor({ left: -10, top: -10 });
    else return;
    event.preventDefault();
  });
}

function nameOf(spec, at) {
  return spec.describe ? spec.describe(at) : `step ${number(spec.x[at])}`;
}

function lastOf(values) {
  for (let place = values.length - 1; place >= 0; place--) {
    if (values[place] !== null && values[place] !== undefined) return values[place];
  }
  return null;
}

function swatch(curve) {
  const mark = h("i", { class: "swatch", "aria-hidden": true });
  mark.style.background = colour(curve.colour);
  return mark;
}

function draw(box, spec) {
  if (!box.isConnected) return null;
  const data = [spec.x];
  const series = [{ label: spec.axis ?? "step" }];
  const bands = [];
  spec.curves.forEach((curve) => {
    const ink = colour(curve.colour);
    if (curve.band) {
      data.push(curve.band[1], curve.band[0]);
      const edge = { stroke: "transparent", width: 0, points: { show: false } };
      series.push(edge, { ...edge });
      bands.push({ series: [series.length - 2, series.length - 1], fill: withAlpha(ink, curve.faint ? 0.1 : 0.2) });
    }
    data.push(curve.values);
    series.push({
      label: curve.label ?? "",
      stroke: curve.faint ? withAlpha(ink, 0.4) : ink,
      width: curve.width ?? 1.6,
      dash: curve.dash,
      spanGaps: Boolean(curve.points),
      points: { show: curve.points ? true : undefined, size: curve.points ?? (spec.x.length === 1 ? 6 : 4), fill: ink, stroke: ink },
    });
  });
  const grid = { stroke: colour("grid"), width: 1 };
  const axis = { stroke: colour("quiet"), grid, ticks: { ...grid, size: 4 }, font: "11px system-ui, sans-serif" };
  const plot = new uPlot({
    width: Math.max(120, box.clientWidth),
    height: spec.height ?? 150,
    series,
    bands,
    legend: { show: false },
    cursor: { y: false, drag: { x: Boolean(spec.onZoom), y: false }, points: { size: 6 } },
    scales: {
      x: { time: false },
      y: { range: (_, low, high) => range(low, high, spec) },
    },
    axes: [
      { ...axis, size: 28, space: 60, values: (_, ticks) => ticks.map((tick) => shortTick(tick)) },
      { ...axis, size: 52, space: 26, values: (_, ticks) => ticks.map((tick) => shortTick(tick)) },
    ],
    hooks: {
      draw: [(u) => { drawMarks(u, spec.marks ?? []); if (spec.level) drawLevel(u, spec.level); }],
      setCursor: [(u) => showReading(u, box, spec)],
      setSelect: [(u) => {
        if (u.select.width < 4 || !spec.onZoom) return;
        spec.onZoom(u.posToVal(u.select.left, "x"), u.posToVal(u.select.left + u.select.width, "x"));
      }],
    },
  }, data, box);
  let from = 0;
  plot.over.addEventListener("mousedown", (event) => { from = event.clientX; });
  plot.over.addEventListener("click", (event) => {
    if (spec.onStep && Math.abs(event.clientX - from) < 4 && plot.cursor.idx !== null) spec.onStep(plot.cursor.idx);
  });
  if (spec.onZoom) plot.over.addEventListener("dblclick", () => spec.onZoom(null, null));
  if (spec.onStep) plot.over.classList.add("clickable");
  const watcher = new ResizeObserver(() => {
    if (!box.isConnected) { watcher.disconnect(); plot.destroy(); return; }
    if (box.clientWidth > 0 && Math.abs(box.clientWidth - plot.width) > 1) plot.setSize({ width: box.clientWidth, height: plot.height });
  });
  watcher.observe(box);
  return plot;
}

/** A level is in the picture where the curve is half way to it; from further away it would only flatten the curve. */
function range(low, high, { from, to, level }) {
  if (low === null || high === null) return [from ?? 0, to ?? 1];
  const room = (high - low) * 0.08 || Math.abs(high) * 0.1 || 0.5;
  let bottom = low - room;
  let top = high + room;
  if (level && level.value > high && high >= level.value / 2) top = level.value + room;
  if (from !== undefined) bottom = Math.min(low, from);
  if (to !== undefined) top = Math.max(high, to);
  return [bottom, top];
}

function shortTick(value) {
  if (value === null) return "";
  const size = Math.abs(value);
  for (const [unit, unitSize] of [["G", 1e9], ["M", 1e6], ["k", 1e3]]) {
    if (size >= unitSize * 10 || (size >= unitSize && unit !== "k")) return `${Number((value / unitSize).toPrecision(4))}${unit}`;
  }
  return size !== 0 && size < 1e-3 ? value.toExponential(0).replace("e-0", "e-") : String(Number(value.toPrecision(6)));
}

function withAlpha(ink, alpha) {
  const part = Math.round(alpha * 255).toString(16).padStart(2, "0");
  return /^#[0-9a-f]{6}$/i.test(ink) ? ink + part : ink;
}

function drawMarks(u, marks) {
  const { ctx, bbox } = u;
  ctx.save();
  ctx.strokeStyle = colour("quiet");
  ctx.fillStyle = colour("quiet");
  ctx.setLineDash([3, 3]);
  ctx.font = `${10 * devicePixelRatio}px system-ui, sans-serif`;
  for (const mark of marks) {
    const at = Math.round(u.valToPos(mark.at, "x", true));
    if (at < bbox.left || at > bbox.left + bbox.width) continue;
    ctx.beginPath();
    ctx.moveTo(at, bbox.top);
    ctx.lineTo(at, bbox.top + bbox.height);
    ctx.stroke();
    ctx.fillText(mark.label, at + 4 * devicePixelRatio, bbox.top + 10 * devicePixelRatio);
  }
  ctx.restore();
}

/** Where it lies above the picture, an arrow says so. */
function drawLevel(u, level) {
  const { ctx, bbox } = u;
  const inside = level.value <= u.scales.y.max;
  const at = inside ? Math.round(u.valToPos(level.value, "y", true)) : bbox.top;
  if (at > bbox.top + bbox.height) return;
  ctx.save();
  ctx.strokeStyle = colour("good");
  ctx.fillStyle = colour("good");
  ctx.font = `${11 * devicePixelRatio}px system-ui, sans-serif`;
  ctx.textAlign = "right";
  if (inside) {
    ctx.setLineDash([8 * devicePixelRatio, 4 * devicePixelRatio]);
    ctx.beginPath();
    ctx.moveTo(bbox.left, at);
    ctx.lineTo(bbox.left + bbox.width, at);
    ctx.stroke();
  }
  ctx.fillText(`${level.label}${inside ? "" : " ↑"}`, bbox.left + bbox.width - 4 * devicePixelRatio, at + 13 * devicePixelRatio);
  ctx.restore();
}

function showReading(u, box, spec) {
  let tip = box.querySelector(".tip");
  if (!tip) { tip = h("div", { class: "tip", "aria-hidden": true }); box.append(tip); }
  const at = u.cursor.idx;
  if (at === null || at === undefined || u.cursor.left < 0) { tip.hidden = true; return; }
  tip.hidden = false;
  tip.replaceChildren();
  tip.append(h("b", {}, nameOf(spec, at)));
  for (const curve of spec.curves) {
    const value = curve.values[at];
    if (!curve.label || value === null || value === undefined) continue;
    const band = curve.band && curve.band[0][at] !== null ? ` (${number(curve.band[0][at])} to ${number(curve.band[1][at])})` : "";
    tip.append(h("div", {}, swatch(curve), `${curve.label} ${number(value)}${band}`));
  }
  const left = u.cursor.left + u.over.offsetLeft;
  tip.style.left = `${left > box.clientWidth / 2 ? Math.max(0, left - tip.offsetWidth - 12) : left + 12}px`;
  tip.style.top = `${u.over.offsetTop + 4}px`;
}

/** A curve in the height of a line of text. */
export function spark(values, label) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  const known = values.map((value, place) => [place, value]).filter(([, value]) => value !== null);
  svg.setAttribute("viewBox", "0 0 100 22");
  svg.setAttribute("class", "spark");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", label);
  if (known.length > 1) {
    const low = Math.min(...known.map(([, value]) => value));
    const high = Math.max(...known.map(([, value]) => value));
    const line = document.createElementNS(space, "polyline");
    const last = known.at(-1)[0];
    line.setAttribute("points", known.map(([place, value]) =>
      `${(2 + (96 * (place - known[0][0])) / (last - known[0][0])).toFixed(1)},${(high > low ? 20 - (18 * (value - low)) / (high - low) : 11).toFixed(1)}`).join(" "));
    svg.append(line);
  }
  return svg;
}

/** Several runs in one chart: tables of [x, y] joined on x. */
export function joined(tables) {
  return uPlot.join(tables.map(([x, y]) => [x, y]));
}

/** The dash pattern of the n-th curve, so that colour is not all that tells curves apart. */
export function dash(place) {
  return DASHES[place % DASHES.length];
}
