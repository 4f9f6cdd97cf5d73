// How turns are shown. Everything that anybody said, the agent and its tools too, becomes text nodes and nothing else.

/** An element with attributes and children; strings are text. */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== null) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** One turn as an item of the list. `segment` begins another piece of speech, `tool` shows a call or its result. */
export class Turn {
  constructor(role) {
    this.item = element("li", { class: role }, element("span", { class: "who" }, role === "user" ? "You" : "Agent"));
    this.last = null;
  }

  say(text) {
    if (!this.last) this.item.append((this.last = element("p", { class: "said", dir: "auto" })));
    this.last.append(text);
  }

  /** The reply as it is kept, in place of what came in pieces. */
  settle(text) {
    if (!this.last) this.say("");
    this.last.replaceChildren(text || "(nothing)");
  }

  /** A call of tools is an assistant's step, what a tool said the answer to it. */
  step(turn) {
    this.last = null;
    if (turn.role === "tool") {
      const result = turn.tool_result || {};
      const failed = result.ok === false ? ` failed (${result.error})` : "";
      this.item.append(folded(`${result.name || "A tool"}${failed || " answered"}`, turn.content));
      return;
    }
    for (const call of turn.tool_calls || []) {
      const given = Object.entries(call.arguments).map(([name, value]) => `${name}: ${JSON.stringify(value)}`);
      this.item.append(folded(`Calls ${call.name}`, given.join("\n") || "without arguments"));
    }
  }
}

/** A turn of a history. */
export function past(turn) {
  const shown = new Turn(turn.role);
  for (const step of turn.steps || []) shown.step(step);
  shown.settle(turn.content);
  return shown;
}

function folded(title, text) {
  return element("details", {}, element("summary", {}, title), element("pre", { dir: "auto" }, text));
}
