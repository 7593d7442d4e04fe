// What a user of npm's replicate writes: run, stream, predictions, cancel, an error. Prints one JSON object.
import Replicate from "replicate";

const [baseUrl, model] = process.argv.slice(2);
const replicate = new Replicate({ auth: "none", baseUrl, userAgent: "tests" });
const input = { prompt: "Write a short story about a lighthouse.", temperature: 0, max_tokens: 30, min_tokens: 30 };

const slow = { ...input, min_tokens: 1900, max_tokens: 1900 };
let streamed = "";
for await (const { event, data } of replicate.stream(model, { input })) if (event === "output") streamed += data;
let atFirst = "";
for await (const { event } of replicate.stream(model, { input: slow })) {
  if (event !== "output") continue;
  const [latest] = (await replicate.predictions.list()).results;
  atFirst = latest.status;
  await replicate.predictions.cancel(latest.id);
  break;
}
const ran = (await replicate.run(model, { input })).join("");
const waited = (await replicate.run(model, { input, wait: { mode: "poll", interval: 100 } })).join("");

const long = await replicate.predictions.create({ model, input: slow });
await replicate.predictions.cancel(long.id);
const canceled = (await replicate.predictions.get(long.id)).status;

let failed = "";
try {
  await replicate.run(model, { input: { prompt: "Hi", prompt_template: "nothing" } });
} catch (error) {
  failed = error.message;
}
const listed = [];
for await (const page of replicate.paginate(replicate.predictions.list)) listed.push(...page.map(({ id }) => id));
const [owner, name] = model.split("/");
const version = (await replicate.models.get(owner, name)).latest_version.id;
console.log(JSON.stringify({ streamed, ran, waited, atFirst, canceled, failed, listed: listed.includes(long.id), version }));
