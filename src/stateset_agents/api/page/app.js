// The chat page: one conversation at a time, those of this tab beside it.
//
// What is shown is what the server keeps: a reply that is stopped or fails takes its message back into the box, as the
// server does with its history. A message whose fate is unknown is sent again under the same key, so that it counts once.

import { Refused, end, health, history, newKey, say, setToken, start } from "./server.js";
import { Turn, element, past } from "./turns.js";

const KEPT = "grpo-conversations";
const $ = (id) => document.getElementById(id);
const parts = Object.fromEntries(
  ["model", "condition", "new", "earlier", "list", "door", "token", "door-told", "scroll", "turns", "notice", "composer",
    "message", "send", "stop", "keys", "end"].map((id) => [id, $(id)]),
);

let conversations = JSON.parse(sessionStorage.getItem(KEPT) || "[]"); // {id, title, status}, the newest first
let current = null;
let reply = null; // the AbortController of a reply under way
let at_end = true;
let asking = 0; // counts what was opened, so that an answer that comes late is not shown in another conversation

const noted = () => sessionStorage.setItem(KEPT, JSON.stringify(conversations.slice(0, 50)));

async function open() {
  await tell_condition();
  if (conversations.length) await show(conversations[0].id);
  else await begin();
}

async function tell_condition() {
  try {
    const found = await health();
    parts.model.textContent = found.model;
    document.title = found.model;
    const step = found.policy_version === null ? "" : `step ${found.policy_version}`;
    parts.condition.textContent = [step, found.status === "ok" ? "" : found.status].filter(Boolean).join(", ");
  } catch {
    parts.condition.textContent = "not reachable";
  }
}

/** Run what asks the server; what it refuses is shown, and a missing token is asked for. */
async function trying(work, again, missing) {
  tell(null);
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    if (error.status === 401) ask_for_token();
    else tell(error.message, error.status === 404 ? null : again);
    if (error.status === 404) missing?.();
    return null;
  }
}

function tell(text, again) {
  parts.notice.hidden = !text;
  parts.notice.replaceChildren(text || "");
  if (text && again) {
    const button = element("button", { type: "button" }, "Try again");
    button.addEventListener("click", again);
    parts.notice.append(button);
  }
}

function ask_for_token() {
  parts["door-told"].textContent = sessionStorage.getItem("grpo-token")
    ? "This server does not know that token. Another one?"
    : "This server asks for a token. It stays in this tab and is sent to this server alone.";
  setToken(null);
  closed(true);
  parts.token.value = "";
  parts.token.focus();
}

function closed(is) {
  parts.door.hidden = !is;
  for (const name of ["scroll", "composer", "keys"]) parts[name].hidden = is;
  parts.new.disabled = is;
  if (is) parts.earlier.hidden = true;
}

async function begin() {
  const before = leave();
  const number = ++asking;
  const started = await trying(start, begin);
  if (number !== asking) return;
  if (!started) {
    come_back(before);
    return;
  }
  current = { id: started.conversation_id, title: "New conversation", status: "ongoing" };
  conversations.unshift(current);
  noted();
  const greeting = new Turn("assistant");
  greeting.settle(started.message);
  fill(started.message ? [greeting] : []);
}

async function show(id) {
  const before = leave();
  const number = ++asking;
  let gone = false;
  const found = await trying(() => whole_history(id), () => show(id), () => (gone = true));
  if (number !== asking) return;
  if (!found) {
    come_back(before);
    if (gone) forget(id);
    return;
  }
  current = conversations.find((one) => one.id === id);
  current.status = found.status;
  noted();
  fill(found.turns.map(past));
}

async function whole_history(id) {
  const found = await history(id, 0);
  for (let page = found; page.turns.length >= 1000; found.turns.push(...page.turns)) page = await history(id, found.turns.length);
  return found;
}

/** A conversation that the server does not have any more. */
function forget(id) {
  conversations = conversations.filter((one) => one.id !== id);
  noted();
  if (current && current.id !== id) return refresh();
  current = null;
  fill([]);
}

function fill(turns) {
  closed(false);
  parts.turns.replaceChildren(...turns.map((turn) => turn.item));
  parts.scroll.scrollTop = parts.scroll.scrollHeight;
  refresh();
  if (!parts.message.disabled) parts.message.focus();
}

/** What can be done now, and the list of conversations. */
function refresh() {
  const ongoing = current?.status === "ongoing";
  parts.message.disabled = !ongoing;
  parts.message.placeholder = ongoing ? "Message" : current ? `This conversation is over (${current.status}).` : "";
  parts.send.disabled = !ongoing || !parts.message.value.trim();
  parts.send.hidden = Boolean(reply);
  parts.stop.hidden = !reply;
  parts.end.hidden = !ongoing;
  parts.end.disabled = Boolean(reply);
  parts.earlier.hidden = conversations.length < 2;
  parts.list.replaceChildren(...conversations.map((one) => {
    const state = one.status === "ongoing" ? [] : [element("span", { class: "state" }, one.status)];
    const button = element("button", { type: "button", "aria-current": one === current ? "true" : null }, one.title, ...state);
    button.addEventListener("click", () => show(one.id));
    return element("li", {}, button);
  }));
}

async function send(text, key = newKey()) {
  const conversation = current, number = asking;
  const before = parts.turns.childElementCount;
  const mine = past({ role: "user", content: text });
  const answer = new Turn("assistant");
  answer.item.setAttribute("aria-busy", "true");
  answer.say("");
  append(mine, answer);
  reply = new AbortController();
  if (conversation.title === "New conversation") conversation.title = text.slice(0, 60);
  noted();
  tell(null);
  refresh();
  try {
    for await (const { name, data } of say(conversation.id, text, key, reply.signal)) {
      if (number !== asking) return;
      if (name === "delta") answer.say(data.text);
      else if (name === "tool") answer.step(data);
      else if (name === "done") {
        answer.settle(data.response);
        conversation.status = data.status;
        noted();
      }
      follow();
    }
  } catch (error) {
    if (number !== asking) return;
    mine.item.remove();
    answer.item.remove();
    take_back(error, conversation, text, key);
    if (error.name === "AbortError") look_again(conversation, text, number, before);
  } finally {
    if (number === asking) {
      answer.item.removeAttribute("aria-busy");
      reply = null;
      refresh();
      if (!parts.message.disabled) parts.message.focus();
    }
  }
}

function take_back(error, conversation, text, key) {
  if (!parts.message.value) parts.message.value = text;
  grow();
  if (error.name === "AbortError") return;
  if (!(error instanceof Refused)) throw error;
  if (error.status === 401) ask_for_token();
  else if (error.status === 410) {
    conversation.status = "ended";
    noted();
    tell(error.message);
  } else if (error.status === 404) {
    tell(error.message);
    forget(conversation.id);
  } else {
    const wait = error.retryAfter ? ` Again in ${error.retryAfter} s?` : "";
    tell(error.message + wait, () => {
      if (parts.message.value === text) parts.message.value = "";
      send(text, key);
    });
  }
}

/** A reply that was whole before the server heard of the stop counts, whatever the page showed. */
async function look_again(conversation, text, number, before) {
  await new Promise((wake) => setTimeout(wake, 300));
  const found = number === asking && !reply ? await trying(() => whole_history(conversation.id)) : null;
  if (!found || number !== asking || reply || found.turns.length <= before) return;
  parts.turns.replaceChildren(...found.turns.map((turn) => past(turn).item));
  conversation.status = found.status;
  if (parts.message.value === text) parts.message.value = "";
  grow();
  follow();
}

function append(...turns) {
  parts.turns.append(...turns.map((turn) => turn.item));
  parts.scroll.scrollTop = parts.scroll.scrollHeight;
}

/** Stay at the end, unless somebody reads further up. */
function follow() {
  if (at_end) parts.scroll.scrollTop = parts.scroll.scrollHeight;
}

/** Nothing can be said while another conversation is on its way. */
function leave() {
  const before = current;
  reply?.abort();
  [reply, current] = [null, null];
  refresh();
  return before;
}

function come_back(before) {
  current = before;
  if (parts.door.hidden) refresh();
}

function grow() {
  parts.message.style.height = "auto";
  parts.message.style.height = `${parts.message.scrollHeight + 2}px`;
  refresh();
}

parts.composer.addEventListener("submit", (event) => {
  event.preventDefault();
  const text = parts.message.value;
  if (!text.trim() || reply || current?.status !== "ongoing") return;
  parts.message.value = "";
  grow();
  send(text);
});
parts.message.addEventListener("input", grow);
parts.message.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  parts.composer.requestSubmit();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && reply) reply.abort();
});
parts.scroll.addEventListener("scroll", () => {
  at_end = parts.scroll.scrollHeight - parts.scroll.scrollTop - parts.scroll.clientHeight < 40;
});
parts.stop.addEventListener("click", () => reply?.abort());
parts.new.addEventListener("click", begin);
parts.end.addEventListener("click", async () => {
  const ended = await trying(() => end(current.id));
  if (!ended) return;
  current.status = ended.status;
  noted();
  refresh();
  parts.new.focus();
});
parts.door.addEventListener("submit", (event) => {
  event.preventDefault();
  const token = parts.token.value.trim();
  if (/^[\x21-\x7e]+$/.test(token)) {
    setToken(token);
    open();
  } else parts["door-told"].textContent = "A token has neither spaces nor letters beyond ASCII. Look at it again?";
});

open();
