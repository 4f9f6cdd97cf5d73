// Two samples of a group side by side, with the words in which they differ.

import { choice, h } from "./dom.js";
import { list, pretty, rewardOf, roleOf, text } from "./samples.js";

const WORDS = /\s+|[\p{L}\p{N}_]+|[^\s\p{L}\p{N}_]/gu;
const MOST_CELLS = 4_000_000;

/** The lowest and the highest reward of a group, by their places; the first two where nothing tells them apart. */
export function furthest(conversations) {
  const scored = conversations.map((one, place) => [one.reward, place]).filter(([reward]) => typeof reward === "number");
  scored.sort(([a], [b]) => a - b);
  const low = scored[0];
  const high = scored.at(-1);
  return low && high[0] > low[0] ? [low[1], high[1]] : [0, 1];
}

/** Two samples; `pair` are their places, `changed` is called with others. */
export function differences(conversations, pair, changed) {
  const names = conversations.map((one, place) => [String(place), `Sample ${place + 1}, ${rewardOf(one)}`]);
  const pick = (side, label) => choice(label, names, String(pair[side]), (value) => changed(side ? [pair[0], Number(value)] : [Number(value), pair[1]]));
  const [left, right] = pair.map((place) => list(conversations[place].turns).filter(Boolean));
  const rows = [];
  let first = null;
  for (let place = 0; place < Math.max(left.length, right.length); place++) {
    const said = [left[place], right[place]].map((turn) => (turn ? words(turn) : null));
    const same = said[0] !== null && said[0] === said[1] && left[place].role === right[place].role;
    if (!same && first === null) first = place;
    const marked = said[0] === null || said[1] === null ? said.map((one) => (one === null ? null : [[one, true]])) : differing(...said);
    rows.push(h("div", { class: "pair" }, [left[place], right[place]].map((turn, side) => (turn
      ? h("div", { class: `turn ${roleOf(turn)}` },
        h("div", { class: "who" }, h("b", {}, text(turn.role)), same && h("span", { class: "quiet" }, "the same in both")),
        h("p", { class: "said" }, marked[side].map(([part, other]) => (other ? h("mark", {}, part) : part))))
      : h("div", { class: "turn other quiet" }, "It was over.")))));
  }
  return h("div", { class: "differences", role: "region", "aria-label": "Differences of two samples", tabindex: 0 },
    h("div", { class: "bar" }, pick(0, "Left"), pick(1, "Right")),
    h("p", { class: "quiet", role: "status" }, first === null ? "Word for word the same."
      : `They part at turn ${first + 1}. What only one of them says is underlined.`),
    rows);
}

/** All that a turn says: its text, and the calls it makes. */
function words(turn) {
  const calls = list(turn.tool_calls).map((call) => `calls ${call?.name ?? "a tool"} ${pretty(call?.arguments ?? call)}`);
  return [text(turn.content), ...calls].filter(Boolean).join("\n");
}

/** Both texts in parts, [text, whether only this one has it]: the longest run of words that both have is left as it is. */
export function differing(first, second) {
  const one = first.match(WORDS) ?? [];
  const two = second.match(WORDS) ?? [];
  let start = 0;
  while (start < Math.min(one.length, two.length) && one[start] === two[start]) start += 1;
  let end = 0;
  while (end < Math.min(one.length, two.length) - start && one.at(-1 - end) === two.at(-1 - end)) end += 1;
  const a = one.slice(start, one.length - end);
  const b = two.slice(start, two.length - end);
  const [only, other] = a.length * b.length > MOST_CELLS ? [a, b].map((all) => all.map(() => true)) : apart(a, b);
  const around = (all, middle) => joined([
    ...all.slice(0, start).map((word) => [word, false]),
    ...all.slice(start, all.length - end).map((word, place) => [word, middle[place]]),
    ...all.slice(all.length - end).map((word) => [word, false])]);
  return [around(one, bridged(a, only)), around(two, bridged(b, other))];
}

/** A space between two words that only one text has is shown as part of them. */
function bridged(words, marks) {
  return marks.map((mark, place) => mark || (/^\s+$/.test(words[place]) && marks[place - 1] === true && marks[place + 1] === true));
}

/** For each word whether the other list lacks it, by the longest common subsequence. */
function apart(a, b) {
  const width = b.length + 1;
  const longest = new Uint16Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      longest[i * width + j] = a[i] === b[j] ? longest[(i + 1) * width + j + 1] + 1
        : Math.max(longest[(i + 1) * width + j], longest[i * width + j + 1]);
    }
  }
  const only = a.map(() => true);
  const other = b.map(() => true);
  for (let i = 0, j = 0; i < a.length && j < b.length;) {
    if (a[i] === b[j]) { only[i] = false; other[j] = false; i += 1; j += 1; }
    else if (longest[(i + 1) * width + j] >= longest[i * width + j + 1]) i += 1;
    else j += 1;
  }
  return [only, other];
}

function joined(parts) {
  const found = [];
  for (const [word, other] of parts) {
    if (found.length && found.at(-1)[1] === other) found.at(-1)[0] += word;
    else found.push([word, other]);
  }
  return found;
}
