import { createOpenAI } from "@ai-sdk/openai";
import { generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const [baseURL, mode, api] = process.argv.slice(2);
const provider = createOpenAI({ baseURL, apiKey: "none" });
const weather = tool({
  description: "The weather of a city.",
  inputSchema: z.object({ city: z.string() }),
  execute: async () => "It rains.",
});

async function ask(messages, more) {
  const settings = {
    model: api === "chat" ? provider.chat("model") : provider.responses("model"),
    system: "Be brief.",
    messages,
    tools: { get_weather: weather },
    temperature: 0,
    maxOutputTokens: 60,
    maxRetries: 0,
    providerOptions: api === "stateless" ? { openai: { store: false } } : {},
    ...more,
  };
  if (mode !== "stream") return generateText(settings);
  const result = streamText({ ...settings, onError: ({ error }) => Promise.reject(error) });
  return { text: await result.text, response: await result.response };
}

// A text of the model first: with store left out, it is this that the client sends as a reference.
const messages = [{ role: "user", content: "Say hello." }];
const greeting = await ask(messages, { toolChoice: "none", maxOutputTokens: 10 });
messages.push(...greeting.response.messages, { role: "user", content: "What is the weather in Oslo?" });
const prepareStep = ({ stepNumber }) => ({
  toolChoice: stepNumber ? "none" : { type: "tool", toolName: "get_weather" },
});
console.log((await ask(messages, { prepareStep, stopWhen: stepCountIs(2) })).text);
