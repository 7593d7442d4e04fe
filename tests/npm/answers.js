// What a user of npm's replicate writes: run, stream, predictions, cancel, an error. Prints one JSON object.
import Replicate from "replicate";

const [baseUrl, model] = process.argv.slice(2);
const replicate = new Replicate({ auth: "none", baseUrl, userAgent: "tests" });
const input = { prompt: "Write a short story about a lighthouse.", temperature: 0, max_tokens: 30, min_tokens: 30 };

const began = performance.now();
const times = [];
let streamed = "";
for await (const { event, data } of replicate.stream(model, { input })) {
  if (event === "output") {
    streamed += data;
    times.push(performance.now() - began);
  }
}
const ran = (await replicate.run(model, { input })).join("");
const waited = (await replicate.run(model, { input, wait: { mode: "poll", interval: 100 } })).join("");

const long = await replicate.predictions.create({ model, input: { ...input, min_tokens: 1900, max_tokens: 1900 } });
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
console.log(JSON.stringify({ streamed, ran, waited, times, canceled, failed, listed: listed.includes(long.id), version }));
