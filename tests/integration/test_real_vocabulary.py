"""The real engine on a tiny model with the real vocabulary, in each form that its tags may have.

The weights are scripted (tests/support/llama3.py): a raw prompt chooses the tokens that follow it, and a conversation
draws prose, calls and ends by its seed.
"""

import json
import random
from collections import Counter
from itertools import islice

import pytest
from jsonschema import Draft202012Validator

from tests.support import llama3
from tests.support.hostile import TIMES

DRAWN = 40 if TIMES == 1 else 300  # requests, in each form
TOKENS = 400  # more than any of these responses needs
LONGER = 12  # tokens, where a response would end before
SMALL = {"type": "object", "additionalProperties": False}
LAMP = SMALL | {
    "properties": {"on": {"type": "boolean"}, "colour": {"enum": ["red", "<|im_end|>", "</tool_call>", "日本"]}},
    "required": ["on", "colour"],
}
COUNT = SMALL | {"properties": {"n": {"type": "integer", "minimum": -9, "maximum": 99}}, "required": ["n"]}
TOOLS = [{"name": "lamp", "parameters": LAMP}, {"name": "count", "parameters": COUNT}, {"name": "clock"}]
SCHEMAS = [LAMP, COUNT, {"type": "array", "items": COUNT, "minItems": 1, "maxItems": 3}, {"enum": ["<|eot_id|>", 1]}]
RAW = {  # a raw prompt, and the response to it
    " red": (" one two", "stop"),
    " blue": (" three four", "stop"),
    " green": (" five six", "stop"),
    " white": (" eight user", "stop"),
    " brown": ("😀日本𝔘", "stop"),
}
STOPPED = {  # a raw prompt, what stops the response, and what is left of it
    "in the middle of a token": (" brown", ["本"], "😀日"),
    "over tokens of one character": (" brown", ["日本𝔘"], "😀"),
    "a word and a half": (" red", ["e tw"], " on"),
    "after what is no stop": (" red", ["one x", "two"], " one "),
    "never": (" red", ["three"], " one two"),
}


def drawn(number):
    """One of the requests: a conversation with tools, in each way to choose one, or with a schema."""
    draw = random.Random(number)
    inputs = {"prompt": draw.choice(["Hi", "日本?", "<tool_call>", "a" * 500]), "seed": number, "max_tokens": TOKENS}
    inputs |= {"temperature": 1.0, "top_p": 1.0, "top_k": 0}
    kind = draw.choice(["auto", "auto", "required", "lamp", "count", "none", "JSON", "either"])
    inputs |= {"json_schema": draw.choice(SCHEMAS)} if kind in ("JSON", "either") else {"tool_choice": kind}
    return inputs if kind == "JSON" else {**inputs, "tools": TOOLS, "parallel_tool_calls": draw.choice([True, False])}


@pytest.fixture(
    scope="module", params=["added", *(pytest.param(form, marks=pytest.mark.long) for form in ("special", "absent"))]
)
def answered(request, starter, tmp_path_factory):
    """Requests to one form of the model, all at once: for each of four kinds, their inputs with the responses."""
    folder = tmp_path_factory.mktemp(request.param)
    llama3.write_tokenizer(folder, request.param)
    llama3.write_weights(folder)
    raw = [{"prompt_template": prompt, "prompt": "", "max_tokens": TOKENS, "temperature": 0} for prompt in RAW]
    stops = [{**raw[0], "prompt_template": prompt, "stop": stop} for prompt, stop, _ in STOPPED.values()]
    longer = [{**each, "min_tokens": LONGER} for each in raw]
    requests = [*raw, *stops, *longer, *map(drawn, range(DRAWN))]
    pairs = zip(requests, starter.responses(folder, requests), strict=True)
    return [list(islice(pairs, size)) for size in (len(raw), len(stops), len(longer), DRAWN)]


def test_each_end_ends_a_response_and_no_control_token_is_shown(answered):
    said = [(text, metrics["finish_reason"]) for _, (text, metrics) in answered[0]]
    assert said == list(RAW.values())


def test_a_stop_ends_a_response_wherever_its_tokens_are_cut(answered):
    said = [text for _, (text, _) in answered[1]]
    assert said == [left for _, _, left in STOPPED.values()]


def test_no_end_is_drawn_before_min_tokens(answered):
    assert all(metrics["output_token_count"] >= LONGER for _, (_, metrics) in answered[2])


def test_calls_and_json_are_right_whatever_is_drawn(answered, capsys):
    seen = Counter()
    parameters = {each["name"]: each.get("parameters", SMALL) for each in TOOLS}
    for inputs, (text, metrics) in answered[3]:
        assert "error" not in metrics, (inputs, metrics["error"])
        assert metrics["finish_reason"] in ("stop", "tool_calls"), (inputs, text)
        if "json_schema" in inputs and "json_valid" in metrics:
            Draft202012Validator(inputs["json_schema"]).validate(json.loads(text))
            seen["JSON documents"] += metrics["json_valid"]
            continue
        calls, choice = metrics["tool_calls"], inputs.get("tool_choice", "either")
        assert metrics["tool_call_errors"] == [], (inputs, text)
        assert calls or choice in ("auto", "none"), (inputs, text)
        assert not calls or choice != "none", (inputs, text)
        assert len(calls) < 2 or inputs["parallel_tool_calls"], (inputs, text)
        assert choice in ("auto", "none") or text.endswith("</tool_call>"), (inputs, text)
        for call in calls:
            Draft202012Validator(parameters[call["name"]]).validate(call["arguments"])
            assert choice in ("auto", "required", "either", call["name"]), (inputs, text)
        seen[f"calls with {choice}"] += len(calls)
        seen[f"responses with {choice}"] += 1
    with capsys.disabled():
        print(f"\nin the real vocabulary: {dict(seen)}")
    assert seen["JSON documents"] > DRAWN / 20
    assert seen["calls with auto"] > DRAWN / 20, "a model that begins a call by itself"
