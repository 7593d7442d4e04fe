import OpenAI from "openai";

const [baseURL, mode, kept] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: "none", maxRetries: 0 });
const properties = { city: { type: "string" } };
const parameters = { type: "object", properties, required: ["city"], additionalProperties: false };
const tools = [{ type: "function", name: "get_weather", parameters, strict: true }];

async function ask(input, tool_choice, more) {
  const sent = { model: "model", instructions: "Be brief.", input, tools, tool_choice, ...more };
  const body = { ...sent, temperature: 0, max_output_tokens: 60 };
  return mode === "stream" ? client.responses.stream(body).finalResponse() : client.responses.create(body);
}

const input = [{ role: "user", content: "What is the weather in Oslo?" }];
const first = await ask(input, { type: "function", name: "get_weather" }, kept === "kept" ? {} : { store: false });
const results = first.output
  .filter((item) => item.type === "function_call")
  .map(({ call_id }) => ({ type: "function_call_output", call_id, output: "It rains." }));
const last =
  kept === "kept"
    ? await ask(results, "none", { previous_response_id: first.id })
    : await ask([...input, ...first.output, ...results], "none", { store: false });
console.log(last.output_text);
