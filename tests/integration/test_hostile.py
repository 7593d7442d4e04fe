"""Hostile input to the real server: an answer or a refusal, in bounded time and memory, and the next caller is served.

coglet refuses much by itself: what is no JSON (400), has the wrong type or range (422), is too large (413). The rest
reaches this package and ends as an answer or as a failed prediction with a code. Bodies, texts, HTTP and what coglet
does by itself have files of their own beside this one.
"""

import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.asking import failure, post, predict, text_of
from tests.support.hostile_requests import DEEP, INPUTS, MEGABYTE, SHORT, refused_inputs, send, with_input

pytestmark = pytest.mark.usefixtures("bounded")

NUMBERS = {name: schema for name, schema in INPUTS.items() if "minimum" in schema}
WRONG = {
    "string": [5, 1.5, True, [], {}],
    "integer": ["5", 1.5, True, [], {}],
    "number": ["0.5", True, [], {}],
    "boolean": ["true", 0, 1.5, [], {}],
    "array": ["a", 5, {}],
    "object": ["a", 5, True, []],
}
REFUSED_LIMITS = {("top_p", 0)}  # its description says so


def wrong_values(schema):
    """Values of other types; in a list, also items of other types."""
    items = WRONG[schema["items"]["type"]] if "items" in schema else []
    return [*WRONG[schema.get("type", "string")], *([item] for item in items), *([[None]] if items else []), None]


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_is_taken_up_to_its_limits_and_refused_past_them(quick_server, name):
    low, high = NUMBERS[name]["minimum"], NUMBERS[name]["maximum"]
    for limit in (low, high):
        others = {"prompt": "Hi", "timeout": 1, "max_tokens": high if name == "min_tokens" else 2}
        prediction = post(quick_server, **others | {name: limit}).json()
        if (name, limit) in REFUSED_LIMITS:
            assert f"E1008 BadSampling: {name} " in prediction["error"]
        else:
            assert prediction["status"] == "succeeded", prediction
    step = 1 if NUMBERS[name]["type"] == "integer" else 0.001
    for value in (low - step, high + step, -1e308, 1e308):
        assert refused_inputs(post(quick_server, prompt="Hi", **{name: value})) == [name]


@pytest.mark.parametrize("extreme", ["minimum", "maximum"])
def test_all_numbers_at_their_limits_at_once(quick_server, extreme):
    inputs = {name: schema[extreme] for name, schema in NUMBERS.items()}
    inputs |= {
        "max_tokens": 2,
        "min_tokens": 2,
        "timeout": 60,
        "top_p": 1,
    }
    assert predict(quick_server, prompt="Hi", **inputs)["metrics"]["output_token_count"] == 2
    assert predict(quick_server, prompt="Hi", **inputs | {"top_p": 5e-324, "min_p": 5e-324})["output"]


@pytest.mark.parametrize("name", [name for name, schema in NUMBERS.items() if schema["type"] == "integer"])
def test_a_whole_number_may_be_written_with_a_point_or_an_exponent(quick_server, name):
    """JSON's 2.0 is an integer to Cog. vLLM's engine core never read a request again after one with such a seed."""
    for written in ("2.0", "2e0", "0.2E+1"):
        inputs = f'"max_tokens": 2, "temperature": 1, "seed": 2, "prompt": "Hi", "{name}": {written}'
        prediction = send(quick_server, f'{{"input": {{{inputs}}}}}').json()
        whole = predict(quick_server, **SHORT | {"max_tokens": 2, "temperature": 1, "seed": 2, name: 2})
        assert text_of(prediction) == text_of(whole)
    if NUMBERS[name]["minimum"] <= 0:
        assert send(quick_server, with_input(name, "-0")).json()["status"] == "succeeded"


@pytest.mark.parametrize("name", INPUTS)
def test_a_wrong_type_is_refused_by_its_input(quick_server, name):
    for value in wrong_values(INPUTS[name]):
        assert set(refused_inputs(post(quick_server, **{"prompt": "Hi", name: value}))) == {name}


@pytest.mark.parametrize(
    "number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1" + "0" * 400, "0x1", "01", "+1"]
)
def test_what_is_no_json_number_is_refused(quick_server, number):
    for name in ("temperature", "seed", "prompt", "unknown"):
        response = send(quick_server, with_input(name, number))
        assert response.status_code == 400
        assert "Failed to parse the request body as JSON: " in response.text


def test_numbers_next_to_zero_are_numbers(quick_server):
    for number in ("-0.0", "1e-999", "5e-324"):
        assert send(quick_server, with_input("temperature", number)).json()["status"] == "succeeded"


# Deep JSON


LISTS, OBJECTS = "[" * DEEP + "]" * DEEP, '{"a":' * DEEP + "1" + "}" * DEEP


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("prompt", LISTS),
        ("unknown", LISTS),
        ("messages", LISTS),
        ("messages", f'[{{"role": "user", "content": {LISTS}}}]'),
        ("tools", f'[{{"name": "f", "parameters": {OBJECTS}}}]'),
        ("json_schema", OBJECTS),
    ],
    ids=lambda value: value[:30],
)
def test_deep_json_in_an_input_is_refused(quick_server, name, value):
    response = send(quick_server, with_input(name, value))
    assert response.status_code == 400
    assert "recursion limit exceeded" in response.text


def nested(levels, value=1):
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("inputs", "code"),
    [
        (
            {"messages": [{"role": "user", "content": nested(100)}]},
            "E1005 BadMessages: messages[0].content has to be text",
        ),
        ({"messages": [nested(100)]}, "E1005 BadMessages: messages[0].role"),
        ({"tools": [nested(100)]}, "E1006 BadTools: tools[0].name"),
        ({"json_schema": nested(100)}, "E1007 BadJsonSchema: json_schema: "),
        ({"json_schema": {"enum": [nested(100)]}}, "E1007 BadJsonSchema: json_schema: "),
    ],
    ids=lambda value: str(value)[:30],
)
def test_json_as_deep_as_coglet_lets_through_fails_with_a_code(quick_server, inputs, code):
    assert code in failure(quick_server, **SHORT, **inputs)


# Sizes


def conversation(count, role="user"):
    return [{"role": role, "content": "x"}] * count


@pytest.mark.parametrize(
    ("inputs", "code"),
    [
        pytest.param({"prompt": "word " * 2 * MEGABYTE}, "E1002", id="10 MB of words"),
        pytest.param({"prompt": "a" * 10 * MEGABYTE}, "E1002", id="10 MB without a space"),
        pytest.param({"prompt": " " * 10 * MEGABYTE}, "E1002", id="10 MB of spaces"),
        pytest.param({"prompt": "😀" * (10 * MEGABYTE // 4)}, "E1002", id="10 MB of emoji"),
        pytest.param({"prompt": "\0" * MEGABYTE}, "E1002", id="a million null bytes"),
        pytest.param({"prompt": "word " * 2 * MEGABYTE, "truncate": "oldest_turns"}, "E1002", id="10 MB, truncated"),
        pytest.param({"system_prompt": "word " * 2 * MEGABYTE}, "E1002", id="10 MB of system_prompt"),
        pytest.param({"stop_sequences": "x" * 10 * MEGABYTE}, "E1008", id="a stop string of 10 MB"),
        pytest.param({"stop_sequences": "x" * MEGABYTE}, "E1008", id="a stop string of 1 MB"),
        pytest.param({"stop_sequences": "x," * 5 * MEGABYTE}, "E1008", id="5 million stop strings"),
        pytest.param({"stop_sequences": ",".join(map(str, range(500)))}, "E1008", id="500 stop strings"),
        pytest.param({"prompt_template": "{prompt}" * 100_000, "prompt": "x" * 10_000}, "E1002", id="100,000 prompts"),
        pytest.param(
            {"prompt_template": "{prompt}" + "{system_prompt}" * 100_000, "system_prompt": "x" * 10_000},
            "E1002",
            id="100,000 system prompts",
        ),
        pytest.param({"prompt_template": "{prompt}" + "<|im_end|>" * 100_000}, "E1002", id="100,000 control tokens"),
        pytest.param({"prompt_template": "{% for i in x %}{prompt}{% endfor %}"}, "E1004", id="Jinja"),
        pytest.param({"prompt_template": "{%" + " " * MEGABYTE + "for"}, "E100[34]", id="Jinja with much space"),
        pytest.param({"prompt_template": "{% " * 300_000 + "{prompt}"}, "E1002", id="300,000 times nearly Jinja"),
        pytest.param({"prompt": "", "prompt_token_ids": [1] * 500_000}, "E1002", id="500,000 token ids"),
        pytest.param(
            {"prompt": "", "prompt_token_ids": [1] * 500_000, "max_tokens": 0}, "E1002", id="500,000 ids to be counted"
        ),
        pytest.param({"prompt": "x" * 10 * MEGABYTE, "max_tokens": 0}, "E1002", id="10 MB to be counted"),
        pytest.param({"messages": conversation(100_000)}, "E1002", id="100,000 messages"),
        pytest.param(
            {"messages": conversation(100_000, "system"), "truncate": "oldest_turns"}, "E1002", id="all system"
        ),
        pytest.param({"messages": [{}] * 100_000}, "E1005", id="100,000 empty messages"),
        # Cog's server and worker take up to 200 bytes for a byte of such JSON, and keep part of it.
        pytest.param({"messages": [{"a": 1}] * 125_000}, "E1005", id="1 MB of small objects"),
        pytest.param(
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}] * 100_000}]},
            "E1002",
            id="100,000 parts",
        ),
        pytest.param(
            {"messages": [{"role": "assistant", "tool_calls": [{"name": "f"}] * 50_000}]}, "E1005", id="50,000 calls"
        ),
        pytest.param(
            {"messages": [{"role": "assistant", "content": "<tool_call>{" * 100_000}]}, "E1002", id="100,000 open calls"
        ),
        pytest.param(
            {"messages": [{"role": "assistant", "content": "<tool_call>" + "[" * 500_000}]}, "E1002", id="a deep call"
        ),
        pytest.param({"tools": [{"name": f"f{n}"} for n in range(10_000)]}, "E1006", id="10,000 tools"),
        pytest.param({"tools": [{"name": "f" * MEGABYTE}]}, "E1006", id="a name of 1 MB"),
        pytest.param(
            {"tools": [{"name": "f", "description": "x" * 10 * MEGABYTE}]}, "E1002", id="10 MB of description"
        ),
        pytest.param({"tool_choice": "f" * 10 * MEGABYTE}, "E1006", id="10 MB of tool_choice"),
        pytest.param({"json_schema": {"description": "x" * 5 * MEGABYTE}}, "E1007", id="5 MB of schema"),
        pytest.param(
            {"json_schema": {"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(10_000)}}},
            "E1007",
            id="10,000 optional properties",
        ),
        pytest.param({"json_schema": {"x" * 2 * MEGABYTE: [{}] * 1000}}, "E1007", id="a long path to many places"),
        pytest.param({"json_schema": {"type": "array", "minItems": 2**53}}, "E1007", id="2**53 items"),
    ],
)
def test_too_much_fails_with_a_code(quick_server, inputs, code):
    error = failure(quick_server, **SHORT | inputs)
    assert re.search(rf": {code} \w+: ", error)
    assert len(error) < 1000


@pytest.mark.parametrize(
    "inputs",
    [
        pytest.param({"stop_sequences": ",,,,"}, id="empty stop strings"),
        pytest.param({"stop_sequences": "," * 10 * MEGABYTE}, id="10 million empty stop strings"),
        pytest.param({"stop_sequences": ",".join(f"stop {n}" for n in range(200))}, id="200 stop strings"),
        pytest.param({"stop_sequences": ",".join(f"{n:>900}" for n in range(200))}, id="200 long stop strings"),
        pytest.param(
            {"prompt_template": "{prompt}", "system_prompt": "word " * 2 * MEGABYTE}, id="an unused system prompt"
        ),
        pytest.param({"prompt_template": "{{ 9**9**9**9 }}{prompt:>99999999}{prompt}"}, id="expressions"),
        pytest.param({"messages": conversation(100_000), "truncate": "oldest_turns"}, id="100,000 messages, truncated"),
        pytest.param({"json_schema": {"type": "integer", "minimum": 1e300}}, id="integers from 1e300"),
        pytest.param({"json_schema": {"allOf": [{"type": "string"}] * 50}}, id="50 at once"),
        pytest.param({"json_schema": {"type": "string", "minLength": 1e9}}, id="a text of 1e9 characters"),
        pytest.param({"json_schema": {"type": "string", "minLength": 1.0, "maxLength": 3.0}}, id="floats as lengths"),
        pytest.param({"json_schema": {"type": "string", "pattern": "^(a|a)*(a|a)*$"}}, id="a pattern that blows up"),
        pytest.param({"json_schema": {"enum": [1e308, -0.0, 5e-324]}}, id="extreme numbers"),
    ],
)
def test_much_is_answered(quick_server, inputs):
    assert predict(quick_server, **SHORT | inputs)["metrics"]["output_token_count"] == 1


def test_eight_prompts_of_10_mb_at_once(quick_server):
    with ThreadPoolExecutor(8) as callers:
        errors = list(callers.map(lambda _: failure(quick_server, prompt="word " * 2 * MEGABYTE), range(8)))
    assert all("E1002 PromptTooLong" in error for error in errors)
