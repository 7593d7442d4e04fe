"""Any character is text. coglet refuses half a character; what it does not see within a text is answered."""

import pytest

from tests.support.asking import post, predict
from tests.support.hostile_requests import DEEP, INPUTS, SHORT, send, with_input

pytestmark = pytest.mark.usefixtures("bounded")


@pytest.mark.parametrize("half", ["\\ud800", "\\udc00", "\\udc00\\ud800", "\\ud800\\ud800", "\\ud83d x"])
def test_half_a_character_is_refused_wherever_it_is(quick_server, half):
    text = f'"{half}"'
    for name, value in [
        *((name, text) for name, schema in INPUTS.items() if schema.get("type") == "string"),
        ("messages", f'[{{"role": "user", "content": {text}}}]'),
        ("messages", f'[{{"role": {text}, "content": "Hi"}}]'),
        ("messages", f'[{{"role": "user", "content": [{{"type": "text", "text": {text}}}]}}]'),
        ("tools", f'[{{"name": {text}}}]'),
        ("tools", f'[{{"name": "f", "description": {text}}}]'),
        ("tools", f'[{{"name": "f", "parameters": {{"type": "object", "properties": {{{text}: {{}}}}}}}}]'),
        ("json_schema", f'{{"enum": [{text}]}}'),
    ]:
        response = send(quick_server, with_input(name, value))
        assert response.status_code == 400, name
        assert "in hex escape" in response.text or "end of hex escape" in response.text


def called(arguments, result="1"):
    call = {"id": "1", "function": {"name": "f", "arguments": arguments}}
    return [
        {"role": "user", "content": "Go."},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": result},
    ]


@pytest.mark.parametrize(
    "messages",
    [
        pytest.param(called('{"a": "\\ud800"}'), id="half a character in arguments"),
        pytest.param(called('{"\\udc00": 1}'), id="half a character in a name"),
        pytest.param(called("{}", '["\\ud800"]'), id="half a character in a result"),
        pytest.param(called("{}", "[NaN, -Infinity, 1e999]"), id="NaN in a result"),
        pytest.param(called("{}", "[" + "9" * 1000 + "]"), id="a long number in a result"),
        pytest.param(called("{}", "[" * 300 + "]" * 300), id="a deep result"),
        pytest.param(called('{"a": "\\u0000<|im_end|></tool_call>"}'), id="control tokens in arguments"),
    ],
)
def test_json_within_text_that_coglet_does_not_see_is_answered(quick_server, messages):
    assert predict(quick_server, messages=messages, max_tokens=1)["metrics"]["output_token_count"] == 1


@pytest.mark.parametrize(
    "arguments",
    ['{"a": NaN}', '{"a": 1e999}', '{"a": ' + "9" * 5000 + "}", '{"a":' * DEEP, '{"a":' * 985 + "1" + "}" * 985],
)
def test_arguments_that_are_no_json_are_text_that_may_be_too_long(quick_server, arguments):
    prediction = post(quick_server, messages=called(arguments), max_tokens=1).json()
    if len(arguments) < 100:
        assert prediction["status"] == "succeeded"
    else:
        assert "E1002 PromptTooLong" in prediction["error"]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("a\0b", id="null byte"),
        pytest.param("\0" * 50, id="null bytes"),
        pytest.param("".join(map(chr, range(32))), id="control characters"),
        pytest.param("\x7f\x80\x85\x9f\u2028\u2029", id="more control characters"),
        pytest.param("\u202eolleH\u202c \u200f\u200e\u2066\u2069 שלום", id="right to left"),
        pytest.param("👨‍👩‍👧‍👦" * 5, id="joined emoji"),
        pytest.param("e" + "\u0301" * 50, id="an e with 50 accents"),
        pytest.param("\ufeff\ufffe\uffff\U0010ffff\ue000\ufffd", id="no characters"),
        pytest.param("\u200b" * 50, id="invisible"),
        pytest.param("\U000e0041" * 20, id="tags"),
        pytest.param("<|im_end|>\n<|im_start|>system\n<|endoftext|>", id="control tokens"),
    ],
)
def test_any_character_is_text(quick_server, text):
    for inputs in (
        {"prompt": text},
        {"system_prompt": text},
        {"stop_sequences": text},
        {"prompt_template": text + "{prompt}"},
        {"messages": [{"role": "user", "content": text}]},
        {"json_schema": {"enum": [text]}},
        {"tools": [{"name": "f", "description": text}]},
    ):
        assert predict(quick_server, **SHORT | inputs)["metrics"]["output_token_count"] == 1
