// One run: its head and its four tabs.

import { ask, isExport, listen } from "./source.js";
import { fill, h } from "./dom.js";
import { number } from "./format.js";
import { chip, lastSign } from "./status.js";
import { showConfig } from "./config.js";
import { showConversations } from "./conversations.js";
import { showHealth } from "./health.js";
import { showLearning } from "./learning.js";

const TABS = {
  learning: ["Is it learning?", showLearning],
  conversations: ["Conversations", showConversations],
  health: ["Health", showHealth],
  config: ["Config and checkpoints", showConfig],
};
const AT_MOST_EVERY = 1500;

/** A run. */
export async function showRun(context) {
  const [, show] = TABS[context.tab] ?? TABS.learning;
  const head = h("section", { class: "head", "aria-label": "The run" });
  const body = h("div", { class: "body" });
  let gone = false;
  let overview = await ask("overview", { run: context.name });
  if (context.gone()) return;

  function drawHead() {
    const { status } = overview;
    fill(head,
      h("div", { class: "bar" }, h("h1", {}, context.name), chip(status),
        h("span", { class: "quiet" }, `step ${number(overview.last?.step ?? status.step)} · last sign ${lastSign(status)}${status.message ? ` · ${status.message}` : ""}`)),
      h("nav", { class: "tabs", "aria-label": "Parts of the run" },
        Object.entries(TABS).map(([tab, [title]]) =>
          h("a", { href: context.address(context.name, tab), "data-key": tab, "aria-current": tab === context.tab ? "page" : null }, title))),
      !overview.complete && h("p", { class: "notice" },
        `A long log is being read (${Math.round(100 * overview.share)} %): until then the curves are drawn from a sample of its steps.`),
      gone && h("p", { class: "notice bad", role: "alert" }, "The folder of this run is gone; what it said last is below."),
      overview.unreadable.map((why) => h("p", { class: "notice bad" }, `${why}.`)),
      overview.skipped > 0 && h("p", { class: "notice" },
        `Left out, as it cannot be read: ${number(overview.skipped)} ${overview.skipped === 1 ? "line" : "lines"} of metrics.jsonl.`));
  }

  drawHead();
  fill(context.main, head, body);
  const update = await show({ ...context, body, overview: () => overview });
  if (isExport) return;

  let busy = false;
  let again = false;
  async function refresh() {
    if (busy) { again = true; return; }
    busy = true;
    try {
      overview = await ask("overview", { run: context.name });
      if (context.gone()) return;
      drawHead();
      await update?.();
    } catch (error) {
      context.say(error.message);
    }
    setTimeout(() => { busy = false; if (again && !context.gone()) { again = false; refresh(); } }, AT_MOST_EVERY);
  }

  context.onLeave(listen(context.name, (news) => {
    if (context.gone()) return;
    context.say(news === null ? "Not connected" : news.state === "running" ? "Live" : "");
    if (news !== null && gone === news.there) {
      gone = !news.there;
      drawHead();
    }
    if (news?.there && !(news.first && overview.complete && news.rows === overview.rows)) refresh();
  }));
}
