// The last request, as code that a developer can run.

const json = (value) => JSON.stringify(value, null, 2);
const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

// A JSON value as a Python literal.
function python(value, indent = "") {
  const deeper = `${indent}    `;
  if (value === null) return "None";
  if (value === true || value === false) return value ? "True" : "False";
  if (Array.isArray(value)) {
    return value.length ? `[\n${value.map((each) => `${deeper}${python(each, deeper)},\n`).join("")}${indent}]` : "[]";
  }
  if (typeof value === "object") {
    const pairs = Object.entries(value).map(([key, each]) => `${deeper}${JSON.stringify(key)}: ${python(each, deeper)},\n`);
    return pairs.length ? `{\n${pairs.join("")}${indent}}` : "{}";
  }
  return JSON.stringify(value);
}

// The inputs that OpenAI's API has, and the rest for extra_body.
function forOpenAI({ system_prompt, messages, tools, tool_choice, json_schema, ...rest }) {
  const turns = system_prompt ? [{ role: "system", content: system_prompt }, ...messages] : messages;
  const body = { messages: turns };
  if (tools) body.tools = tools.map((tool) => (tool.function ? tool : { type: "function", function: tool }));
  if (tools && tool_choice) {
    const word = ["auto", "none", "required"].includes(tool_choice);
    body.tool_choice = word ? tool_choice : { type: "function", function: { name: tool_choice } };
  }
  if (json_schema) body.response_format = { type: "json_schema", json_schema: { name: "answer", schema: json_schema } };
  const known = ["temperature", "top_p", "max_tokens", "presence_penalty", "frequency_penalty", "seed", "stop"];
  const extra = {};
  for (const [name, value] of Object.entries(rest)) (known.includes(name) ? body : extra)[name] = value;
  return [body, extra];
}

export const writers = {
  curl: (base, model, input) =>
    `curl ${base}/v1/models/${model}/predictions -H 'Content-Type: application/json' -H 'Prefer: wait' \\\n` +
    `  -d ${quoted(JSON.stringify({ input }))}`,

  python: (base, model, input) =>
    `import replicate  # REPLICATE_BASE_URL=${base} REPLICATE_API_TOKEN=none\n\n` +
    `for piece in replicate.stream("${model}", input=${python(input)}):\n    print(piece, end="", flush=True)\n`,

  javascript: (base, model, input) =>
    `import Replicate from "replicate";\n\n` +
    `const replicate = new Replicate({ auth: "none", baseUrl: "${base}/v1" });\n` +
    `for await (const { event, data } of replicate.stream("${model}", { input: ${json(input)} })) {\n` +
    `  if (event === "output") process.stdout.write(data);\n}\n`,

  openai: (base, model, input) => {
    const [body, extra] = forOpenAI(input);
    const named = Object.entries(body).map(([key, value]) => `    ${key}=${python(value, "    ")},\n`);
    const more = Object.keys(extra).length ? `    extra_body=${python(extra, "    ")},\n` : "";
    return (
      `from openai import OpenAI\n\nclient = OpenAI(base_url="${base}/v1", api_key="none")\n` +
      `stream = client.chat.completions.create(\n    model="${model}",\n${named.join("")}${more}    stream=True,\n)\n` +
      `for chunk in stream:\n    print(chunk.choices[0].delta.content or "", end="", flush=True)\n`
    );
  },
};
