// How turns are shown. Everything that anybody said, the agent and its tools too, becomes text nodes and nothing else.

/** An element with attributes and children; strings are text. */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== null) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** One turn as an item of the list. */
export class Turn {
  constructor(role) {
    this.item = element("li", { class: role }, element("span", { class: "who" }, role === "user" ? "You" : "Agent"));
    this.last = null; // the piece of speech that grows
    this.calls = []; // those that nobody has answered yet
  }

  say(text) {
    if (!this.last) this.item.append((this.last = element("p", { class: "said", dir: "auto" })));
    this.last.append(text);
  }

  /** The reply as it is kept, in place of what came in pieces. */
  settle(text) {
    if (!this.last) this.say("");
    this.last.replaceChildren(text);
  }

  /** A call of tools is an assistant's step; what a tool said answers the first call that waits. */
  step(turn) {
    if (this.last) this.settle(this.last.textContent.trimEnd());
    if (this.last && !this.last.textContent) this.last.remove();
    this.last = null;
    if (turn.role === "tool") this.#answer(this.calls.shift() || this.#call("a tool", ""), turn);
    for (const { name, arguments: given } of turn.tool_calls || []) {
      const told = Object.entries(given).map(([key, value]) => `${key}: ${JSON.stringify(value)}`);
      this.calls.push(this.#call(name, told.join("\n")));
    }
  }

  #call(name, told) {
    const call = element("details", {}, element("summary", {}, `Calls ${name}`));
    if (told) call.append(element("pre", { dir: "auto" }, told));
    this.item.append(call);
    return call;
  }

  #answer(call, turn) {
    const { name = "a tool", ok = true, error } = turn.tool_result || {};
    call.firstChild.replaceChildren(ok ? `Called ${name}` : `Called ${name}: ${error}`);
    call.append(element("pre", { class: "result", dir: "auto" }, turn.content));
  }
}

/** A turn of a history. */
export function past(turn) {
  const shown = new Turn(turn.role);
  for (const step of turn.steps || []) shown.step(step);
  shown.settle(turn.content);
  return shown;
}
