// Visits a page in Chromium and does what it is told; prints what it saw as one JSON object.
//
// node visit.mjs MODULES CHROMIUM PLAN: MODULES is a folder with node_modules (playwright-core, axe-core), PLAN a file
// with {"dark", "width", "height", "visits": [{"url", "do": [[verb, ...arguments]]}]}. For each visit it gives what the
// verbs read, every error of the page, the requests that it made, and what axe-core finds wrong.

import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const [modules, executablePath, planFile] = process.argv.slice(2);
const require = createRequire(`${modules}/`);
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const plan = JSON.parse(readFileSync(planFile, "utf8"));

const args = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
const browser = await chromium.launch({ executablePath, args });
const context = await browser.newContext({
  viewport: { width: plan.width ?? 1280, height: plan.height ?? 860 }, colorScheme: plan.dark ? "dark" : "light", deviceScaleFactor: 1,
});
const seen = [];
for (const visit of plan.visits) {
  const page = await context.newPage();
  const found = { read: [], errors: [], requests: [], axe: [] };
  page.on("console", (message) => { if (message.type() === "error") found.errors.push(message.text()); });
  page.on("pageerror", (error) => found.errors.push(String(error)));
  page.on("dialog", (dialog) => { found.errors.push(`dialog: ${dialog.message()}`); dialog.dismiss(); });
  page.on("request", (request) => found.requests.push(request.url()));
  const begin = performance.now();
  await page.goto(visit.url);
  await page.waitForSelector("main h1", { timeout: 20000 });
  for (const [verb, ...given] of visit.do ?? []) {
    if (verb === "wait") await page.waitForSelector(given[0], { timeout: 20000 });
    else if (verb === "wait text") await page.getByText(given[0]).first().waitFor({ timeout: 20000 });
    else if (verb === "pause") await page.waitForTimeout(given[0]);
    else if (verb === "click") await page.click(given[0], given[1] ? { position: given[1] } : {});
    else if (verb === "hover") await page.hover(given[0], given[1] ? { position: given[1] } : {});
    else if (verb === "fill") await page.fill(given[0], given[1]);
    else if (verb === "choose") await page.selectOption(given[0], given[1]);
    else if (verb === "press") await page.keyboard.press(given[0]);
    else if (verb === "text") found.read.push(await page.innerText(given[0]));
    else if (verb === "look") found.read.push(await page.evaluate(given[0]));
    else if (verb === "time") found.read.push(performance.now() - begin);
    else if (verb === "shoot") await page.screenshot({ path: given[0], fullPage: Boolean(given[1]) });
    else if (verb === "axe") {
      // Playwright evaluates outside the page's policy, so the page's own stays as it is.
      await page.evaluate(axe);
      const result = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"], preload: false }));
      found.axe.push(...result.violations.map((one) => `${one.id}: ${one.nodes.map((node) => node.html).join(" ").slice(0, 300)}`));
    } else throw new Error(`no such verb: ${verb}`);
  }
  await page.close();
  seen.push(found);
}
await browser.close();
console.log(JSON.stringify(seen));
