// OpenAI's client for Node against a server whose first reply is "Hello there" and whose second is a call of a tool.
import assert from "node:assert/strict";
import OpenAI from "openai";

const [baseURL, apiKey] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const hi = [{ role: "user", content: "Hi" }];
const done = [];

const models = [];
for await (const model of client.models.list()) models.push(model.id);
assert.deepEqual(models, ["agent"]);
done.push("models");

const whole = await client.chat.completions.create({ model: "agent", messages: hi, logprobs: true });
assert.equal(whole.choices[0].message.content, "Hello there");
assert.equal(whole.choices[0].logprobs.content[0].token, "H");
done.push("chat");

const stream = await client.chat.completions.create({
  model: "agent", messages: hi, stream: true, stream_options: { include_usage: true },
});
let text = "", usage = null, reason = null;
for await (const chunk of stream) {
  text += chunk.choices[0]?.delta?.content ?? "";
  reason = chunk.choices[0]?.finish_reason ?? reason;
  usage = chunk.usage ?? usage;
}
assert.deepEqual([text, reason, usage], ["Hello there", "stop", whole.usage]);
done.push("stream");

const tools = [{ type: "function", function: { name: "weather", parameters: { type: "object", properties: {} } } }];
const talk = [...hi, { role: "assistant", content: "Hello there" }, { role: "user", content: "The weather?" }];
const called = await client.chat.completions.create({ model: "agent", messages: talk, tools });
assert.equal(called.choices[0].finish_reason, "tool_calls");
assert.equal(called.choices[0].message.tool_calls[0].function.name, "weather");
const helped = client.chat.completions.stream({ model: "agent", messages: talk, tools });
const final = await helped.finalChatCompletion();
assert.equal(final.choices[0].message.tool_calls[0].function.arguments, '{"city": "Paris"}');
done.push("tools");

await assert.rejects(client.chat.completions.create({ model: "other", messages: hi }), OpenAI.NotFoundError);
await assert.rejects(client.chat.completions.create({ model: "agent", messages: hi, n: 99 }), OpenAI.BadRequestError);
const stranger = new OpenAI({ baseURL, apiKey: "wrong", maxRetries: 0 });
await assert.rejects(stranger.chat.completions.create({ model: "agent", messages: hi }), OpenAI.AuthenticationError);
done.push("errors");

const cut = await client.chat.completions.create({ model: "agent", messages: hi, stream: true });
for await (const _ of cut) break;
cut.controller.abort();
done.push("cancel");

console.log(done.join(", "));
