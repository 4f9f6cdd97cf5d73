// Which page the address means, and what all pages share: the trail, the theme, how to leave a page.

import { fill, h } from "./dom.js";
import { exportedAt } from "./source.js";
import { showRuns } from "./runs.js";
import { showRun } from "./run.js";

const main = document.getElementById("main");
const trail = document.getElementById("trail");
const live = document.getElementById("live");
const theme = document.getElementById("theme");
let leave = () => {};

/** The address: #/ or #/run/NAME/TAB?key=value. */
function place() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const [kind, name, tab] = path.split("/").map(decoded);
  return { kind, name, tab: tab || "learning", parameters: new URLSearchParams(query ?? "") };
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part; // a stray %: it is the name of nothing
  }
}

/** The address of a tab of a run. */
function address(name, tab, parameters = {}) {
  const asked = Object.entries(parameters).filter(([, value]) => value !== undefined && value !== null && value !== "");
  const query = new URLSearchParams(asked).toString();
  return `#/run/${encodeURIComponent(name)}/${tab}${query ? `?${query}` : ""}`;
}

function say(text) {
  if (live.textContent !== text) live.textContent = text;
}

async function show() {
  leave();
  leave = () => {};
  const at = place();
  say(exportedAt ? `As of ${exportedAt}` : "");
  const crumbs = [h("a", { href: "#/" }, "Runs")];
  if (at.kind === "run") crumbs.push(h("span", { class: "slash", "aria-hidden": true }, "/"), h("b", {}, at.name));
  fill(trail, crumbs);
  document.title = at.kind === "run" ? `${at.name} · ${at.tab}` : "Runs";
  const page = at.kind === "run" ? showRun : showRuns;
  let gone = false;
  const endings = [];
  leave = () => { gone = true; for (const end of endings) end(); };
  const context = { ...at, main, address, say, onLeave: (end) => (gone ? end() : endings.push(end)), gone: () => gone };
  try {
    await page(context);
  } catch (error) {
    if (!gone) fill(main, h("h1", {}, "This cannot be shown"), h("p", { class: "notice bad", role: "alert" }, error.message));
  }
}

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function setTheme(name) {
  if (name) document.documentElement.dataset.theme = name;
  theme.textContent = isDark() ? "Light" : "Dark";
  theme.setAttribute("aria-label", isDark() ? "Switch to light colours" : "Switch to dark colours");
}

function remembered(name) {
  try {
    if (name) localStorage.setItem("grpo-theme", name);
    return localStorage.getItem("grpo-theme");
  } catch {
    return null; // a browser may keep nothing
  }
}

theme.addEventListener("click", () => {
  const name = isDark() ? "light" : "dark";
  remembered(name);
  setTheme(name);
  show();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { setTheme(); show(); });
setTheme(remembered());
addEventListener("hashchange", show);
show();
