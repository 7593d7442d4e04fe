"""What real people send, in the shapes of other APIs and with their mistakes: read as meant, or refused clearly."""

import httpx
import pytest

from hermes import CogServer
from hermes.client import PredictionFailed, PredictionRefused
from hermes.errors import find_error
from tests.support.asking import failure, post, predict, text_of

USER = {"role": "user", "content": "Read a and b."}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 9}}, "required": ["city"]}
READ = {"name": "read", "parameters": {"type": "object", "properties": {"f": {"type": "string", "maxLength": 9}}}}


def call(name, arguments="{}", **more):
    return {"function": {"name": name, "arguments": arguments}, **more}


def turns(*calls, results=(), **assistant):
    results = [{"role": "tool", **each} for each in results]
    return {"messages": [USER, {"role": "assistant", "tool_calls": list(calls), **assistant}, *results]}


def read(*results, ids=("A", "B"), name="name"):
    """Two calls of one tool, and results: (id, tool, content)."""
    messages = [{"tool_call_id": call_id, name: tool, "content": content} for call_id, tool, content in results]
    calls = [call("read", f'{{"f": "{file}"}}', id=call_id) for file, call_id in zip("ab", ids, strict=True)]
    return turns(*calls, results=messages)


def chat(*messages):
    return {"messages": [*messages, USER]}


A, B = ("A", "read", "apple"), ("B", "read", "blue")
NO_RESULT = '{"error": "no result of this call was sent"}'

# Inputs, and the plain ones that mean the same.
SAME = {
    # results belong to their calls
    "results in another order": (read(B, A), read(A, B)),
    "ids that are numbers": (read((2, "read", "blue"), ("1", "read", "apple"), ids=(1, 2)), read(A, B)),
    "a result that is missing": (read(B), read(("A", "read", NO_RESULT), B)),
    "results named as Ollama names them": (read(B, A, name="tool_name"), read(A, B)),
    # a history that goes on
    "no content": (chat({"role": "assistant", "content": None}), chat({"role": "assistant", "content": ""})),
    "content left out": (chat({"role": "assistant"}), chat({"role": "assistant", "content": ""})),
    "a developer": (
        chat({"role": "developer", "content": "Be kind."}),
        chat({"role": "system", "content": "Be kind."}),
    ),
    "OpenAI's older calls": (
        chat(
            {"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}},
            {"role": "function", "content": "4"},
        ),
        chat({"role": "assistant", "tool_calls": [call("f")]}, {"role": "tool", "name": "f", "content": "4"}),
    ),
    # tools and schemas of other APIs
    "MCP": ({"tools": [{"name": "read", "inputSchema": READ["parameters"]}]}, {"tools": [READ]}),
    "Anthropic": ({"tools": [{"name": "read", "input_schema": READ["parameters"]}]}, {"tools": [READ]}),
    "Responses": ({"tools": [{"type": "function", **READ, "strict": True}]}, {"tools": [READ]}),
    "OpenAI's json_schema": (
        {"json_schema": {"name": "place", "strict": True, "schema": SCHEMA}},
        {"json_schema": SCHEMA},
    ),
    "OpenAI's response_format": (
        {"json_schema": {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA}}},
        {"json_schema": SCHEMA},
    ),
    "null for what is not said": (
        {
            "json_schema": {
                **SCHEMA,
                "description": None,
                "properties": {"city": {"type": "string", "maxLength": 9, "title": None}},
            }
        },
        {"json_schema": SCHEMA},
    ),
    "null for a description": (
        {"tools": [{**READ, "description": None, "parameters": {**READ["parameters"], "description": None}}]},
        {"tools": [READ]},
    ),
    # templates
    "two braces": ({"prompt_template": "{{prompt}}"}, {"prompt_template": "{prompt}"}),
    "two braces and spaces": ({"prompt_template": "a {{ prompt }}"}, {"prompt_template": "a {prompt}"}),
    "two braces of the system prompt": (
        {"prompt_template": "{{system_prompt}} {prompt}"},
        {"prompt_template": "{system_prompt} {prompt}"},
    ),
    # what Cog's server drops
    "an unknown input": ({"max_new_tokens": 1}, {}),
    "another unknown input": ({"response_format": {"type": "json_object"}}, {}),
    "a misspelled input": ({"temprature": 2}, {}),
}


@pytest.mark.parametrize(("sent", "meant"), SAME.values(), ids=SAME)
def test_it_is_read_as_it_is_meant(quick_server, sent, meant):
    fixed = {"temperature": 0, "max_tokens": 16, "seed": 1}
    asked = [{**fixed, **({} if "messages" in inputs else {"prompt": "Go."}), **inputs} for inputs in (sent, meant)]
    answers = [predict(quick_server, **inputs) for inputs in asked]
    seen = [(text_of(each), each["metrics"]["input_token_count"]) for each in answers]
    assert seen[0] == seen[1]


def test_two_braces_are_in_the_log_of_the_prediction(quick_server):
    logs = predict(quick_server, prompt="Hi", prompt_template="{{prompt}}", max_tokens=1)["logs"]
    assert "prompt_template: {{prompt}} is read as {prompt}" in logs


@pytest.mark.parametrize("arguments", ['{"city": "Par', "{'city': 'Paris'}", '["Paris"]', '{"city": NaN}'])
def test_a_conversation_goes_on_after_arguments_that_the_model_got_wrong(quick_server, arguments):
    error = {"name": "weather", "content": {"error": "no JSON"}}
    broken = turns(call("weather", arguments), results=[error])
    answer = predict(quick_server, **broken, temperature=0, max_tokens=4)
    whole = predict(quick_server, **turns(call("weather", "{}"), results=[error]), temperature=0, max_tokens=4)
    assert answer["metrics"]["input_token_count"] > whole["metrics"]["input_token_count"], "what it wrote is there"


LONG = [{"role": "user", "content": "word " * 3_000}]
REFUSED = {
    "a second result of one call": (read(A, A), "E1005 BadMessages: messages[3].tool_call_id is 'A', and that call"),
    "a result of no call": (read(A, ("C", "read", "")), "E1005 BadMessages: messages[3].tool_call_id is 'C', which no"),
    "one result too many": (
        read(A, B, (None, "read", "")),
        "E1005 BadMessages: messages[4].name is 'read', and that call",
    ),
    "a result of another tool": (
        read(("A", "write", "")),
        "E1005 BadMessages: messages[2] names 'write', and its call",
    ),
    "two names": (
        turns(call("f"), results=[{"name": "f", "tool_name": "g", "content": ""}]),
        "E1005 BadMessages: messages[2].tool_name is 'g', and name is 'f'",
    ),
    "a schema by another name": (
        {"tools": [{"name": "f", "schema": SCHEMA}]},
        "E1006 BadTools: tools[0].schema looks like a schema; that of the arguments goes into 'parameters'",
    ),
    "a schema outside of the function": (
        {"tools": [{"type": "function", "function": {"name": "f"}, "parameters": SCHEMA}]},
        "E1006 BadTools: tools[0].parameters looks like a schema; put it into 'function', as 'parameters'",
    ),
    "a schema within nothing": (
        {"json_schema": {"Place": SCHEMA}},
        "E1007 BadJsonSchema: json_schema: $: 'Place' looks like a schema",
    ),
    "a schema as text": (
        {"json_schema": {"name": "a", "schema": "{}"}},
        "E1007 BadJsonSchema: json_schema: $: 'schema'",
    ),
    "a template without the prompt": (
        {"prompt_template": "{ prompt }"},
        "E1003 BadPromptTemplate: prompt_template has",
    ),
    "too long": ({"messages": LONG}, "E1002 PromptTooLong: the prompt is"),
    "too long although the oldest turns are gone": (
        {"messages": [USER, {"role": "assistant", "content": "Yes."}, *LONG], "truncate": "oldest_turns"},
        "E1002 PromptTooLong: the prompt without the turns that may be left out is",
    ),
    "nothing": (
        {"prompt": ""},
        "E1001 EmptyRequest: there is no prompt, no messages, no prompt_template and no prompt_token_ids; send one of",
    ),
}


@pytest.mark.parametrize(("inputs", "error"), REFUSED.values(), ids=REFUSED)
def test_what_can_not_be_meant_is_refused_with_its_place(quick_server, inputs, error):
    said = failure(quick_server, **({} if "messages" in inputs else {"prompt": "Go."}) | inputs)
    assert said.startswith("Prediction failed: "), "Cog's own words, as the documentation has them"
    assert find_error(said).startswith(error)
    assert ("set truncate to 'oldest_turns'" in said) == (inputs == {"messages": LONG})


@pytest.mark.parametrize("body", [{"prompt": "Hi"}, {}, {"messages": [USER]}], ids=str)
def test_a_body_without_input_is_told_where_inputs_go(quick_server, body):
    assert '{"input": {...}}' in httpx.post(f"{quick_server.url}/predictions", json=body, timeout=60).json()["error"]


OPTIONAL = [
    "stop_sequences",
    "prompt_template",
    "seed",
    "messages",
    "tools",
    "json_schema",
    "timeout",
    "stop",
    "prompt_token_ids",
]


@pytest.mark.parametrize("name", OPTIONAL)
def test_null_is_refused_by_cog_and_not_sent_by_the_client(quick_server, name):
    refused = post(quick_server, prompt="Hi", **{name: None})
    assert (refused.status_code, refused.json()["detail"][0]["loc"][-1]) == (422, name), "else the documentation errs"
    assert CogServer(quick_server.url).ask({"prompt": "Hi", "max_tokens": 1, name: None}).finish_reason == "length"


@pytest.mark.parametrize(
    "schema",
    [{"type": "integer", "minimum": 10**6}, {"type": "number", "minimum": 10**6}, {"enum": [1234567, 12345678]}],
    ids=str,
)
def test_a_number_that_was_cut_is_not_called_valid(quick_server, schema):
    for tokens in range(1, 6):
        metrics = predict(quick_server, prompt="Count.", json_schema=schema, max_tokens=tokens)["metrics"]
        assert metrics["json_valid"] == (metrics["finish_reason"] == "stop")


def test_an_answer_whose_time_was_over_is_an_answer_to_the_client_too(quick_server):
    inputs = {"prompt": "Count to a million.", "min_tokens": 900, "max_tokens": 900, "timeout": 1}
    reply = CogServer(quick_server.url).ask(inputs)
    assert (reply.finish_reason, bool(reply.text)) == ("timeout", True)


@pytest.mark.parametrize("pattern", ["^[a-zA-Z ]{0,150}$", "^[^,]{100,200}$", "^(ab|cd){150}$"])
def test_a_schema_that_can_not_be_kept_to_is_never_said_to_be_the_engines_fault(quick_server, pattern):
    schema = {"type": "object", "properties": {"a": {"type": "string", "pattern": pattern}}, "required": ["a"]}
    errors = []
    for seed in range(2):
        try:
            CogServer(quick_server.url).ask({"prompt": "Go.", "json_schema": schema, "max_tokens": 8, "seed": seed})
        except (PredictionFailed, PredictionRefused) as error:
            errors.append(str(error))
    assert not [error for error in errors if not error.startswith("E1007")]
