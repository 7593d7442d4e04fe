import OpenAI from "openai";

const [baseURL, mode] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: "none", maxRetries: 0 });
const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const weather = { name: "get_weather", description: "The weather of a city.", parameters, parse: JSON.parse };
const runner = client.chat.completions.runTools(
  {
    model: "model",
    temperature: 0,
    max_tokens: 100,
    stream: mode === "stream",
    messages: [
      { role: "system", content: "Be brief." },
      { role: "user", content: "What is the weather in Oslo?" },
    ],
    tools: [{ type: "function", function: { ...weather, function: () => "It rains." } }],
    tool_choice: "required", // a named one ends the runner's loop, so the second turn is forced, too
    parallel_tool_calls: false,
  },
  { maxChatCompletions: 2 },
);
await runner.done();
