"""Tool calls and JSON from the real engine: valid whatever the model would rather write, and in nobody's way."""

import json
import random
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from jsonschema import Draft202012Validator

from hermes import CogServer, run_tools, tool
from tests.support.asking import LONG, QUESTION, failure, post, predict, stream, streaming, text_of
from tests.support.numbers import DOCUMENTS
from tests.support.schemas import SCHEMAS, TEXT, TOOLS, thing

PROMPTS = [
    QUESTION,
    "Tell me of a person, a colour and a cat.",
    "List three things.",
    "What is 3 times 7?",
    "Bonjour, ça va ?",
]
DRAWN, DRAWN_MORE = range(12), range(12, 300)


def constrained_inputs(number):
    """The inputs of one generation; no two callers at work have the same."""
    draw = random.Random(number)
    inputs = {"prompt": draw.choice(PROMPTS), "temperature": 1.0, "top_p": 1.0, "top_k": 0, "seed": number}
    if number % 2:
        return {**inputs, "max_tokens": 120, "json_schema": SCHEMAS[number // 2 % len(SCHEMAS)]}
    tools = draw.sample(TOOLS, draw.randint(1, 3))
    choice = draw.choice(["required", tools[0]["name"]])
    return {**inputs, "max_tokens": 120, "tools": tools, "tool_choice": choice}


@pytest.mark.parametrize("drawn", [DRAWN, pytest.param(DRAWN_MORE, marks=pytest.mark.long)], ids=str)
def test_whatever_the_model_draws_calls_and_json_are_valid(server, capsys, drawn):
    def generate(number):
        inputs = constrained_inputs(number)
        return inputs, predict(server, **inputs)

    counts = dict.fromkeys(["json documents", "tool calls", "answers with calls", "cut by max_tokens"], 0)
    with ThreadPoolExecutor(16) as callers:
        answers = list(callers.map(generate, drawn))
    for inputs, prediction in answers:
        text, metrics = text_of(prediction), prediction["metrics"]
        if metrics["finish_reason"] == "length":
            counts["cut by max_tokens"] += 1
        elif "json_schema" in inputs:
            Draft202012Validator(inputs["json_schema"]).validate(json.loads(text))
            assert (metrics["finish_reason"], metrics["json_valid"]) == ("stop", True)
            counts["json documents"] += 1
        else:
            assert (metrics["finish_reason"], metrics["tool_call_errors"]) == ("tool_calls", []), text
            assert text.endswith("</tool_call>"), "a call that has to be ends the response"
            assert len(metrics["tool_calls"]) in (range(1, 5) if inputs["tool_choice"] == "required" else [1])
            counts["answers with calls"] += 1
        for call in metrics.get("tool_calls", []):
            described = {each["name"]: each["parameters"] for each in inputs["tools"]}
            Draft202012Validator(described[call["name"]]).validate(call["arguments"])
            assert inputs["tool_choice"] in ("required", call["name"])
            counts["tool calls"] += 1
    with capsys.disabled():
        print(f"\n{len(drawn)} constrained generations at temperature 1, all valid: {counts}")
    assert counts["json documents"] > len(drawn) / 6
    assert counts["answers with calls"] > len(drawn) / 6


@pytest.mark.parametrize("drawn", [range(9), pytest.param(range(9, 600), marks=pytest.mark.long)], ids=str)
def test_documents_with_numbers_end(server, capsys, drawn):
    def generate(number):
        inputs = {"prompt": "What is 1/3? Answer with exact numbers.", "temperature": 1.0, "top_p": 1.0, "top_k": 0}
        schema = DOCUMENTS[number % len(DOCUMENTS)]
        return predict(server, **inputs, max_tokens=1_024, seed=number, json_schema=schema)["metrics"]

    with ThreadPoolExecutor(16) as callers:
        metrics = list(callers.map(generate, drawn))
    ended = [each for each in metrics if each["finish_reason"] == "stop"]
    with capsys.disabled():
        longest = max(each["output_token_count"] for each in ended)
        print(f"\n{len(ended)} of {len(drawn)} documents with numbers ended, the longest after {longest} tokens")
    assert len(ended) >= 0.99 * len(drawn)
    assert all(each["json_valid"] or each["json_unenforced"] for each in ended)


STOPS = ["\n", "}", '"', "<tool_call>", "</tool_call>", ",", ":", "name"]


@pytest.mark.parametrize("choice", ["required", "tool_0", "none"])
def test_no_stop_string_cuts_a_call_or_json(server, choice):
    inputs = {"prompt": QUESTION, "max_tokens": 400, "seed": 1, "tools": TOOLS[:2], "tool_choice": choice}
    inputs |= {"json_schema": SCHEMAS[0]} if choice == "none" else {}
    whole, stopped = predict(server, **inputs), predict(server, **inputs, stop=STOPS)
    assert text_of(stopped) == text_of(whole)
    assert stopped["metrics"]["finish_reason"] == ("stop" if choice == "none" else "tool_calls")


def test_where_calls_are_free_a_stop_string_ends_the_text_before_them_alone(server):
    copied = '<tool_call>\n{"arguments": {"name": "Ada", "born": 1815}, "name": "tool_0"}\n</tool_call>'
    messages = [{"role": "user", "content": "Go."}, {"role": "assistant", "content": copied}] * 3
    inputs = {"messages": messages, "prompt": "Go.", "tools": TOOLS[:1], "temperature": 0, "max_tokens": 60}
    metrics = predict(server, **inputs, stop=STOPS[1:])["metrics"]
    assert (metrics["finish_reason"], metrics["tool_call_errors"]) == ("tool_calls", [])
    inputs = {"prompt": QUESTION, "tools": TOOLS[:1], "temperature": 0, "max_tokens": 60}
    whole, stop = text_of(predict(server, **inputs)), "a"
    stopped = predict(server, **inputs, stop=[stop])
    assert (text_of(stopped), stopped["metrics"]["finish_reason"]) == (whole[: whole.index(stop)], "stop")
    assert stopped["metrics"]["output_token_count"] < len(whole)


def test_where_a_call_may_begin_is_up_to_tool_choice(server):
    inputs = {"prompt": "Call tool_0.", "tools": TOOLS[:2], "temperature": 0, "max_tokens": 60}
    assert predict(server, **inputs, tool_choice="none")["metrics"]["tool_calls"] == []
    assert "<tool_call>" not in text_of(predict(server, **inputs, tool_choice="none"))
    # A prompt that the small model completes with a call, which the grammar then keeps to the tool's schema.
    copied = '<tool_call>\n{"arguments": {"name": "Ada", "born": "long ago"}, "name": "tool_0"}\n</tool_call>'
    messages = [{"role": "user", "content": "Go."}, {"role": "assistant", "content": copied}] * 3
    called = predict(server, messages=messages, **inputs | {"prompt": "Go.", "tools": TOOLS[:1]}, tool_choice="auto")
    assert called["metrics"]["finish_reason"] == "tool_calls"
    (call,) = called["metrics"]["tool_calls"]
    assert (call["arguments"]["name"], type(call["arguments"]["born"])) == ("Ada", int)


def test_beside_tools_a_schema_is_for_answers_without_calls(server):
    inputs = {"tools": TOOLS[:2], "json_schema": SCHEMAS[0], "temperature": 1, "top_p": 1, "max_tokens": 200}
    kinds = {"calls": 0, "documents": 0}
    with ThreadPoolExecutor(8) as callers:
        ask = partial(predict, server, **inputs)
        answers = list(callers.map(lambda seed: ask(prompt=PROMPTS[seed % 5], seed=seed), range(16)))
    for prediction in answers:
        text, metrics = text_of(prediction), prediction["metrics"]
        assert ("json_valid" in metrics) == (not text.startswith("<tool_call>"))
        if metrics["finish_reason"] == "length":
            continue
        if "json_valid" in metrics:
            Draft202012Validator(SCHEMAS[0]).validate(json.loads(text))
            assert (metrics["finish_reason"], metrics["tool_calls"]) == ("stop", [])
        else:
            assert (metrics["finish_reason"], metrics["tool_call_errors"]) == ("tool_calls", [])
            assert text.endswith("</tool_call>")
        kinds["documents" if "json_valid" in metrics else "calls"] += 1
    assert all(kinds.values()), kinds
    document = predict(server, prompt="Hi", **inputs, seed=1, tool_choice="none")
    assert document["metrics"]["json_valid"]
    call = predict(server, prompt="Hi", **inputs, seed=1, tool_choice="tool_0", parallel_tool_calls=False)
    assert [each["name"] for each in call["metrics"]["tool_calls"]] == ["tool_0"]
    assert "json_unenforced" not in call["metrics"]


def test_an_answer_cut_in_a_call_says_length_and_gives_no_call(server):
    inputs = {"prompt": "Hi", "tools": TOOLS[:1], "tool_choice": "required", "temperature": 0, "max_tokens": 12}
    metrics = predict(server, **inputs)["metrics"]
    assert (metrics["finish_reason"], metrics["tool_calls"]) == ("length", [])
    assert metrics["tool_call_errors"][0]["problem"] == "cut off before its end"


def test_json_cut_by_max_tokens_is_not_called_valid(server):
    metrics = predict(server, prompt="Hi", json_schema=SCHEMAS[0], max_tokens=4)["metrics"]
    assert (metrics["finish_reason"], metrics["json_valid"]) == ("length", False)


@tool
def get_stock_fundamentals(symbol: str) -> dict:
    """Get fundamental data for a given stock symbol.

    Args:
        symbol: The stock symbol.
    """
    return {"symbol": symbol, "company_name": "Tesla, Inc.", "pe_ratio": 49.604652, "dividend_yield": None}


def test_the_listings_stock_example_runs_to_its_end(server):
    heard = []
    ran = run_tools(
        CogServer(server.url),
        "Fetch the stock fundamentals data for Tesla (TSLA)",
        [get_stock_fundamentals],
        tool_choice="get_stock_fundamentals",
        max_rounds=1,
        on_text=heard.append,
        temperature=0,
        max_tokens=100,
    )
    ((call, result),) = ran.calls
    assert call.name == "get_stock_fundamentals"
    assert result == get_stock_fundamentals(**call.arguments)
    assert [message["role"] for message in ran.messages][:3] == ["user", "assistant", "tool"]
    assert ran.messages[-1] == {"role": "assistant", "content": ran.text}
    assert ran.text
    assert "".join(heard).startswith("<tool_call>")
    assert len(heard) > 5


def optional(count):
    return {"type": "object", "properties": {f"p{number}": TEXT for number in range(count)}}


def deep(levels):
    return {"type": "array", "items": deep(levels - 1)} if levels else TEXT


WOULD_HOLD_UP = {
    "a huge enum": ({"enum": [f"value {n}" for n in range(50_000)]}, "$", "bytes of JSON"),
    "a long enum": ({"enum": list(range(2_001))}, "$.enum", "2001 entries"),
    "a reference to itself": ({"$defs": {"x": {"$ref": "#/$defs/x"}}, "$ref": "#/$defs/x"}, "", "no grammar"),
    "a remote reference": (thing(a={"$ref": "http://localhost/x"}), "$.properties.a", "$ref"),
    "a broken pattern": ({"type": "string", "pattern": "(a"}, "$", "pattern"),
    "2**53 items": ({"type": "array", "minItems": 2**53}, "$", "minItems"),
    "nesting": (deep(70), "$.items", "levels deep"),
    "10,000 optional properties": (optional(10_000), "$", "bytes of JSON"),
    "unions": ({"allOf": [{"anyOf": [optional(n) for n in range(i, i + 6)]} for i in range(8)]}, "$", "too large"),
}


def refusal(server, schema):
    """What is said of it as json_schema."""
    return failure(server, prompt="Hi", max_tokens=5, json_schema=schema)


@pytest.mark.parametrize(("schema", "path", "keyword"), WOULD_HOLD_UP.values(), ids=WOULD_HOLD_UP)
def test_a_schema_that_would_hold_up_the_engine_is_refused(server, schema, path, keyword):
    error = refusal(server, schema)
    assert "E1007 BadJsonSchema: json_schema: " + path in error
    assert keyword in error


REPAIRED = {"a remote reference", "a broken pattern", "a reference to itself", "2**53 items"}


@pytest.mark.parametrize("name", [name for name, (schema, *_) in WOULD_HOLD_UP.items() if len(str(schema)) < 3_000])
def test_beside_such_a_tool_the_others_are_called_as_ever(server, name):
    tools = [{"name": "f", "parameters": thing(a=WOULD_HOLD_UP[name][0])}, TOOLS[0]]
    asked = {"prompt": "Hi", "tools": tools, "tool_choice": "required", "max_tokens": 200, "parallel_tool_calls": False}
    metrics = predict(server, **asked, seed=1)["metrics"]
    if name not in REPAIRED:
        assert metrics["tools_unenforced"] == {"f": ["$"]}
    assert len(metrics["tool_calls"] + metrics["tool_call_errors"]) == 1


def test_others_stream_on_while_such_schemas_are_refused(server):
    def pieces_a_second(goes_on):
        began, pieces = time.monotonic(), 0
        while goes_on(pieces):
            next(events)
            pieces += 1
        return pieces / (time.monotonic() - began)

    with ThreadPoolExecutor(1) as caller, streaming(server, **LONG) as events:
        alone = pieces_a_second(lambda pieces: pieces < 50)
        all_refusals = caller.submit(lambda: [refusal(server, schema) for schema, *_ in WOULD_HOLD_UP.values()])
        assert pieces_a_second(lambda _: not all_refusals.done()) > 0.25 * alone


@pytest.mark.parametrize(
    "schema",
    [
        pytest.param(optional(400), id="400 optional properties"),
        pytest.param({"type": "string", "pattern": "^(a+)+$"}, id="catastrophic for backtracking"),
        pytest.param({"type": "string", "pattern": "^((a|b|c){1,500}d){1,500}$"}, id="a huge repeat"),
        pytest.param({"type": "string", "pattern": "^[a-zA-Z ]{0,150}$"}, id="a repeat that once allowed no token"),
        pytest.param({"type": "array", "minItems": 4_096, "items": {"type": "integer"}}, id="never complete"),
        pytest.param({"enum": [f"value {n}" for n in range(2000)]}, id="2,000 values"),
        pytest.param({"type": "string", "maxLength": 100_000}, id="a long string"),
        pytest.param({"type": "string", "pattern": "^(?=a)\\w+$"}, id="a look-ahead"),
        pytest.param({"type": "integer", "minimum": -(10**300), "maximum": 9}, id="a number of 300 digits"),
    ],
)
def test_an_unusual_schema_is_taken(server, schema):
    inputs = {"prompt": "Hi", "prompt_template": "{prompt}", "json_schema": schema, "max_tokens": 40}
    prediction = predict(server, **inputs)
    metrics = prediction["metrics"]
    if metrics["finish_reason"] == "stop":
        valid = Draft202012Validator(schema).is_valid(json.loads(text_of(prediction)))
        assert metrics["json_valid"] == valid
        assert valid or metrics["json_unenforced"] == ["$.pattern"]


@pytest.mark.parametrize(
    "schema",
    [
        pytest.param({"type": "string", "minLength": 300, "maxLength": 10_000}, id="a long string"),
        pytest.param({"type": "string", "pattern": "^[a-zA-Z ]{300,1000}$"}, id="a pattern with a large count"),
        pytest.param({"type": "string", "format": "uri", "minLength": 40, "maxLength": 2_083}, id="an HttpUrl"),
    ],
)
def test_a_long_string_takes_no_longer_than_other_text(server, schema):
    def seconds_per_token(**inputs):
        streamed = stream(server, prompt="Hi", temperature=1, seed=1, max_tokens=40, **inputs)
        return streamed.seconds / streamed.completed["metrics"]["output_token_count"]

    predict(server, prompt="Hi", json_schema=schema, max_tokens=1)  # compiled by now
    # Each with plain text just before it, for a shared machine is faster and slower by turns.
    assert any(seconds_per_token(min_tokens=40) * 1.5 > seconds_per_token(json_schema=schema) for _ in range(4))


@pytest.mark.parametrize(
    ("inputs", "error"),
    [
        ({"messages": [{"role": "bot", "content": "Hi"}]}, "E1005 BadMessages: messages[0].role is 'bot'"),
        ({"messages": [{"role": "user", "content": "Hi"}, {"role": "tool", "content": "1"}]}, "messages[1].role"),
        (
            {"tools": TOOLS[:1], "tool_choice": "required", "min_tokens": 9},
            "E1008 BadSampling: min_tokens is 9 beside tool_choice 'required'",
        ),
        ({"tool_choice": "required"}, "E1006 BadTools: tool_choice is 'required' and there are no tools"),
        ({"tools": TOOLS[:1], "tool_choice": "tool_9"}, "E1006 BadTools: tool_choice is 'tool_9'"),
        ({"json_schema": {}, "min_tokens": 9}, "E1008 BadSampling: min_tokens is 9 beside json_schema"),
    ],
)
def test_inputs_that_cannot_be_meant_are_refused_with_their_place(server, inputs, error):
    assert error in failure(server, prompt="Hi", **inputs)


def test_cog_refuses_what_is_no_list_of_objects(server):
    assert post(server, prompt="Hi", messages="Hello").status_code == 422
    assert post(server, prompt="Hi", truncate="newest").status_code == 422


def test_a_conversation_is_remembered_and_its_oldest_turns_can_be_left_out(server):
    def turns(count):
        said = ("user", "My name is Bob. " * 20), ("assistant", "Nice to meet you, Bob.")
        return [{"role": role, "content": content} for role, content in said * count]

    inputs = {"prompt": "What is my name?", "temperature": 0, "max_tokens": 30}
    assert "Bob" in text_of(predict(server, messages=turns(1), **inputs))
    error = failure(server, messages=turns(60), **inputs)
    assert "max_tokens is 30; the model takes 2048 with at least 1 to generate" in error
    metrics = predict(server, messages=turns(60), **inputs, truncate="oldest_turns")["metrics"]
    assert metrics["dropped_turns"] > 50
    assert 1800 < metrics["input_token_count"] <= 2048 - 30
    assert metrics["max_tokens"] == 30


def test_seeded_prompts_longer_than_a_prefill_step_are_answered(server):
    inputs = {"prompt": "word " * 1500, "min_tokens": 4, "max_tokens": 4, "temperature": 1, "seed": 1}
    with ThreadPoolExecutor(4) as callers:
        long = [callers.submit(predict, server, **inputs) for _ in range(4)]
        assert [answer.result()["metrics"]["output_token_count"] for answer in long] == [4] * 4
