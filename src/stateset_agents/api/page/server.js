// What the page asks its server, and how it reads the answers.
//
// The token is kept in this tab (sessionStorage) and sent in one header to the server that this page came from. It is
// never part of an address, so that no history, log or referrer has it.

const TOKEN = "grpo-token";

/** An error that the server has explained (RFC 9457), or the network has caused (status 0). */
export class Refused extends Error {
  constructor(status, problem) {
    super(problem?.detail || problem?.title || (status ? `The server answered ${status}.` : "The server cannot be reached."));
    this.status = status;
    this.retryAfter = problem?.retry_after;
  }
}

export function setToken(token) {
  if (token) sessionStorage.setItem(TOKEN, token);
  else sessionStorage.removeItem(TOKEN);
}

/** A name for one attempt to say something: however often it is sent, it is said once. */
export function newKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export const health = () => asked("GET", "health");
export const start = () => asked("POST", "chat/start", {});
export const history = (id, after) => asked("GET", `chat/${encodeURIComponent(id)}/history?after=${after}`);
export const end = (id) => asked("DELETE", `chat/${encodeURIComponent(id)}`);

/** The events of a reply, as {name, data}. */
export async function* say(id, message, key, signal) {
  const path = `chat/${encodeURIComponent(id)}/message`;
  const response = await sent("POST", path, { message, stream: true }, { "Idempotency-Key": key }, signal);
  let name = "message", data = "";
  for await (const line of lines(response.body)) {
    if (line === "") {
      if (data) {
        const event = { name, data: JSON.parse(data) };
        if (name === "error") throw new Refused(event.data.status, event.data);
        yield event;
        if (name === "done") return;
      }
      [name, data] = ["message", ""];
    } else if (line.startsWith("event: ")) name = line.slice(7);
    else if (line.startsWith("data: ")) data += line.slice(6);
  }
  throw new Refused(0, { detail: "The reply broke off." });
}

async function* lines(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const parts = (rest + value).split("\n");
      rest = parts.pop();
      yield* parts;
    }
  } finally {
    await reader.cancel().catch(() => {}); // it may be broken already
  }
}

async function asked(method, path, body) {
  const response = await sent(method, path, body);
  return response.json();
}

async function sent(method, path, body, headers = {}, signal = undefined) {
  const token = sessionStorage.getItem(TOKEN);
  if (token) headers.Authorization = `Bearer ${token}`;
  if (body) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, { method, headers, signal, body: body && JSON.stringify(body), cache: "no-store", credentials: "omit" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, null);
  }
  if (!response.ok && !(path === "health" && response.status === 503)) {
    throw new Refused(response.status, await response.json().catch(() => null));
  }
  return response;
}
