import { HumanMessage, SystemMessage, ToolMessage } from "@langchain/core/messages";
import { tool } from "@langchain/core/tools";
import { ChatOpenAI } from "@langchain/openai";
import { z } from "zod";

const [baseURL, mode, api] = process.argv.slice(2);
const weather = tool(async () => "It rains.", {
  name: "get_weather",
  description: "The weather of a city.",
  schema: z.object({ city: z.string() }),
});
const model = new ChatOpenAI({
  model: "model",
  apiKey: "none",
  configuration: { baseURL },
  temperature: 0,
  maxTokens: 60,
  maxRetries: 0,
  useResponsesApi: api === "responses",
});

async function ask(messages, tool_choice) {
  const bound = model.bindTools([weather], { tool_choice });
  if (mode !== "stream") return bound.invoke(messages);
  let whole;
  for await (const piece of await bound.stream(messages)) whole = whole ? whole.concat(piece) : piece;
  return whole;
}

const messages = [new SystemMessage("Be brief."), new HumanMessage("What is the weather in Oslo?")];
const called = await ask(messages, "get_weather");
const results = called.tool_calls.map(({ id }) => new ToolMessage({ content: "It rains.", tool_call_id: id }));
console.log((await ask([...messages, called, ...results], "none")).text);
