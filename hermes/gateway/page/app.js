// The page: a conversation, what it is asked with, and the record of each answer.

import { Failed, findModel, predict, useToken } from "./api.js";
import { writers } from "./code.js";
import { render } from "./markdown.js";

const $ = (id) => document.getElementById(id);
const STORED = "hermes.conversations";
const WRITTEN = ["system_prompt", "tools", "tool_choice", "json_schema"]; // have fields of their own
const BY_PAGE = ["prompt", "messages", "prompt_template", "prompt_token_ids", "continue_final_message"]; // the page says them itself
const MAX_TITLE = 60;

let model;
let conversations = load();
let current;
let cancel; // of the answer that streams

// ---- what is kept in the browser

function load() {
  try {
    return JSON.parse(localStorage.getItem(STORED)) ?? [];
  } catch {
    return [];
  }
}

function save() {
  try {
    localStorage.setItem(STORED, JSON.stringify(conversations.filter((each) => each.turns.length)));
  } catch {
    notify("The browser keeps no more conversations; delete some.");
  }
}

function open(conversation) {
  current = conversation;
  for (const name of WRITTEN) $(name).value = current.settings[name] ?? "";
  for (const field of $("sampling").querySelectorAll("[name]")) field.value = current.settings[field.name] ?? "";
  document.querySelectorAll(".shown").forEach((each) => each.classList.remove("shown"));
  showTurns();
  showList();
  $("question").focus();
}

function begin() {
  const conversation = { id: crypto.randomUUID?.() ?? String(Date.now()), turns: [], settings: { system_prompt: model.default } };
  conversations.unshift(conversation);
  open(conversation);
}

// ---- settings

function settings() {
  const input = {};
  for (const [name, schema] of Object.entries(model.inputs)) {
    const value = current.settings[name];
    if (value === undefined || value === "" || BY_PAGE.includes(name)) continue;
    input[name] = ["string", undefined].includes(schema.type) ? value : JSON.parse(value);
  }
  if (!input.tools) delete input.tool_choice;
  input.system_prompt = current.settings.system_prompt ?? "";
  return input;
}

// Whether the JSON in a field is JSON of the right kind; says what is wrong.
function check(name) {
  const value = $(name).value.trim();
  let problem = "";
  try {
    const parsed = value && JSON.parse(value);
    if (value && Array.isArray(parsed) !== (name === "tools")) problem = name === "tools" ? "This is no list." : "This is no object.";
  } catch (error) {
    problem = error.message;
  }
  $(`${name}-problem`).textContent = problem;
  return !problem;
}

function samplingField(name, schema) {
  const label = element("label", { textContent: name });
  const choices = schema.type === "boolean" ? [true, false] : schema.allOf && model.schemas[schema.allOf[0].$ref.split("/").at(-1)].enum;
  const field = element(choices ? "select" : "input", { name, placeholder: String(schema.default ?? "none") });
  if (choices) field.append(element("option", { value: "", textContent: `${schema.default}` }), ...choices.filter((each) => each !== schema.default).map((each) => element("option", { value: each, textContent: each })));
  if (["integer", "number"].includes(schema.type)) {
    Object.assign(field, { type: "number", step: schema.type === "integer" ? "1" : "any", min: schema.minimum ?? "", max: schema.maximum ?? "" });
  }
  label.append(field, element("small", { textContent: schema.description ?? "" }));
  return label;
}

function keep(field) {
  current.settings[field.name || field.id] = field.value;
  save();
}

// ---- turns

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function button(text, onclick) {
  return element("button", { type: "button", textContent: text, onclick });
}

function showTurns() {
  $("turns").replaceChildren(...current.turns.map(turnElement));
  toEnd();
}

function turnElement(turn, index) {
  const text = element("div", { className: "text" });
  const actions = element("div", { className: "actions" });
  const made = element("article", { className: `turn ${turn.role}` }, text);
  if (turn.role === "user") {
    text.textContent = turn.content;
    actions.append(button("Edit", () => edit(index)));
  } else {
    const called = turn.record?.tool_calls?.length; // shown below, checked
    text.append(render(called ? turn.content.replace(/<tool_call>[^]*?<\/tool_call>\s*/g, "") : turn.content));
    if (turn.error) made.append(element("p", { className: "problem", textContent: turn.error }));
    made.append(...checkedElements(turn));
    if (turn.record) made.append(recordElement(turn.record));
    actions.append(
      button("Copy", () => copy(turn.content)),
      button("Answer again", () => answerAgain(index)),
    );
  }
  made.append(actions);
  return made;
}

// What the server says of calls and of JSON, beside the answer.
function checkedElements({ record }) {
  const good = (record?.tool_calls ?? []).map((call) =>
    checked(`calls ${call.name}`, JSON.stringify(call.arguments, null, 2), false),
  );
  const bad = (record?.tool_call_errors ?? []).map((call) => checked(`no call: ${call.problem}`, call.text, true));
  const json = record?.json_valid === undefined ? [] : [
    checked(record.json_valid ? "valid JSON of the schema" : `not JSON of the schema: ${record.json_problem}`, "", !record.json_valid),
  ];
  return [...good, ...bad, ...json];
}

function checked(title, text, bad) {
  const made = element("div", { className: `checked${bad ? " bad" : ""}`, textContent: title });
  if (text) made.append(element("pre", { textContent: text }));
  return made;
}

function recordElement(record) {
  const said = [
    record.output_token_count !== undefined && `${record.input_token_count} + ${record.output_token_count} tokens`,
    record.tokens_per_second !== undefined && `${record.tokens_per_second.toFixed(1)} tokens/s`,
    record.time_to_first_token !== undefined && `first after ${record.time_to_first_token.toFixed(2)} s`,
    record.finish_reason && `ended by ${record.finish_reason}`,
    record.seed !== undefined && `seed ${record.seed}`,
    record.json_valid !== undefined && `json_valid ${record.json_valid}`,
  ];
  return element("div", { className: "record" }, ...said.filter(Boolean).map((text) => element("span", { textContent: text })));
}

function showList() {
  const entries = conversations.map((conversation) => {
    const title = conversation.turns[0]?.content.slice(0, MAX_TITLE) || "New conversation";
    const remove = button("×", () => forget(conversation));
    remove.ariaLabel = `Delete ${title}`;
    const entry = element("li", {}, button(title, () => open(conversation)), remove);
    if (conversation === current) entry.ariaCurrent = "true";
    return entry;
  });
  $("list").replaceChildren(...entries);
}

function forget(conversation) {
  if (cancel) return notify("Stop the answer first.");
  conversations = conversations.filter((each) => each !== conversation);
  save();
  if (conversation !== current) return showList();
  return conversations.length ? open(conversations[0]) : begin();
}

function toEnd() {
  $("turns").scrollTop = $("turns").scrollHeight;
}

function edit(index) {
  if (cancel) return notify("Stop the answer first.");
  $("question").value = current.turns[index].content;
  current.turns.length = index;
  showTurns();
  $("question").focus();
}

function answerAgain(index) {
  if (cancel) return notify("Stop the answer first.");
  current.turns.length = index;
  showTurns();
  answer();
}

// ---- asking

function messages() {
  return current.turns.filter((turn) => !turn.error).map(({ role, content }) => ({ role, content }));
}

async function answer() {
  let input;
  if (!["tools", "json_schema"].every(check)) return notify("Mend the JSON in the settings first.");
  try {
    input = { ...settings(), messages: messages() };
  } catch (error) {
    return notify(`A setting cannot be read: ${error.message}`);
  }
  const asked = current;
  const turn = { role: "assistant", content: "" };
  asked.turns.push(turn);
  showTurns();
  showList();
  const [text] = $("turns").lastElementChild.children;
  let drawn = true;
  const draw = () => {
    drawn = true;
    if (asked !== current) return;
    const atEnd = $("turns").scrollHeight - $("turns").scrollTop - $("turns").clientHeight < 80;
    text.replaceChildren(render(turn.content));
    if (atEnd) toEnd();
  };
  const grow = (piece) => {
    turn.content += piece;
    if (drawn) requestAnimationFrame(draw); // at most once a frame, however fast the pieces come
    drawn = false;
  };
  busy(() => {});
  try {
    const ended = await predict(model.name, input, grow, busy);
    turn.content = (ended.output ?? []).join("");
    turn.record = ended.metrics;
    if (ended.status === "failed") turn.error = ended.error;
  } catch (problem) {
    if (!(problem instanceof Failed)) throw problem;
    turn.error = problem.message;
    $("token-label").hidden = problem.status !== 401;
  } finally {
    busy(undefined);
    save();
    if (asked === current) showTurns();
  }
}

function busy(stop) {
  cancel = stop;
  $("stop").hidden = !stop;
  $("send").hidden = Boolean(stop);
}

function send(event) {
  event?.preventDefault();
  const question = $("question").value.trim();
  if (!question || cancel) return;
  current.turns.push({ role: "user", content: question });
  $("question").value = "";
  answer();
}

// ---- the rest

let noticed;
function notify(text) {
  $("notice").textContent = text;
  clearTimeout(noticed);
  noticed = setTimeout(() => ($("notice").textContent = ""), 4000);
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    notify("Copied.");
  } catch {
    notify("The browser does not let the page copy.");
  }
}

function copyAsCode({ target }) {
  try {
    const turns = messages();
    const input = { ...settings(), messages: turns.length ? turns : [{ role: "user", content: $("question").value || "Hello" }] };
    while (input.messages.at(-1).role === "assistant") input.messages.pop();
    $("code").textContent = writers[target.dataset.language](new URL(".", location.href).href.slice(0, -1), model.name, input);
  } catch (error) {
    return notify(`A setting cannot be read: ${error.message}`);
  }
  copy($("code").textContent);
}

async function start() {
  useToken(sessionStorage.getItem("hermes.token") ?? "");
  try {
    const found = await findModel();
    const { schemas } = found.latest_version.openapi_schema.components;
    const inputs = schemas.Input.properties;
    model = { name: `${found.owner}/${found.name}`, schemas, inputs, default: inputs.system_prompt?.default ?? "" };
  } catch (problem) {
    $("token-label").hidden = problem.status !== 401;
    notify(problem.message);
    if (problem.status !== 401) setTimeout(start, 2000);
    return;
  }
  $("token-label").hidden = true;
  $("model").textContent = document.title = model.name;
  const names = Object.keys(model.inputs).filter((name) => ![...WRITTEN, ...BY_PAGE].includes(name));
  names.sort((a, b) => model.inputs[a]["x-order"] - model.inputs[b]["x-order"]);
  $("sampling").replaceChildren(...names.map((name) => samplingField(name, model.inputs[name])));
  if (conversations.length) open(conversations[0]);
  else begin();
}

$("ask").addEventListener("submit", send);
$("question").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) send(event);
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && cancel) cancel();
});
$("stop").addEventListener("click", () => cancel?.());
addEventListener("pagehide", () => cancel?.()); // nobody reads the rest
$("new").addEventListener("click", begin);
$("settings").addEventListener("input", ({ target }) => {
  if (target.id === "token") return;
  keep(target);
  if (["tools", "json_schema"].includes(target.id)) check(target.id);
});
$("token").addEventListener("change", ({ target }) => {
  sessionStorage.setItem("hermes.token", target.value);
  start();
});
$("defaults").addEventListener("click", () => {
  for (const field of $("sampling").querySelectorAll("[name]")) delete current.settings[field.name];
  save();
  open(current);
});
for (const each of document.querySelectorAll(".copy")) each.addEventListener("click", copyAsCode);
for (const [id, panel] of [["show-conversations", "conversations"], ["show-settings", "settings"]]) {
  $(id).addEventListener("click", () => {
    const shown = !$(panel).classList.contains("shown");
    document.querySelectorAll(".shown").forEach((each) => each.classList.remove("shown"));
    $(panel).classList.toggle("shown", shown);
  });
}
start();
