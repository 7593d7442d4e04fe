import Anthropic from "@anthropic-ai/sdk";

const [url, mode] = process.argv.slice(2);
const client = new Anthropic({ baseURL: url.replace(/\/v1$/, ""), apiKey: "none", maxRetries: 0 });
const input_schema = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const tools = [{ name: "get_weather", description: "The weather of a city.", input_schema }];

async function ask(messages, tool_choice) {
  const body = { model: "model", system: "Be brief.", messages, tools, tool_choice, max_tokens: 100, temperature: 0 };
  return mode === "stream" ? client.messages.stream(body).finalMessage() : client.messages.create(body);
}

const messages = [{ role: "user", content: "What is the weather in Oslo?" }];
const called = await ask(messages, { type: "tool", name: "get_weather" });
const results = called.content
  .filter((block) => block.type === "tool_use")
  .map(({ id }) => ({ type: "tool_result", tool_use_id: id, content: "It rains." }));
messages.push({ role: "assistant", content: called.content }, { role: "user", content: results });
console.log((await ask(messages, { type: "none" })).content.map((block) => block.text).join(""));
