"""A request is made of the inputs of a prediction, or is refused with a code."""

import ast
from dataclasses import replace
from pathlib import Path

import pytest

from hermes.chat.constraint import calls_or_json_constraint, json_constraint, tools_constraint
from hermes.chat.request import DEFAULT_SYSTEM_PROMPT, Request
from hermes.chat.sampling import Sampling
from hermes.errors import BadPromptTemplate, EmptyRequest, PromptTooLong, RequestError
from tests.support.conversations import CLOCK, PERSON, WEATHER
from tests.support.fakes import request

USER = {"role": "user", "content": "What time is it?"}
HELLO = {"role": "assistant", "content": "Hello!"}
SEND_VALID = ", which is not text; send valid Unicode"


def test_the_inputs_become_one_value():
    assert request(stop_sequences="END, stop") == Request(
        "Hi", "Be kind.", None, Sampling(seed=1, stop=("END", " stop"))
    )


@pytest.mark.parametrize("template", [None, ""])
def test_nothing_to_answer_is_refused(template):
    with pytest.raises(EmptyRequest) as refused:
        request(prompt="", prompt_template=template)
    assert str(refused.value) == (
        "E1001 EmptyRequest: there is no prompt, no messages, no prompt_template and no prompt_token_ids; "
        "send one of them, "
        'in the body of a POST within {"input": {...}}'
    )


def test_a_conversation_may_end_with_any_turn():
    calls = {"role": "assistant", "tool_calls": [{"function": {"name": "clock"}}]}
    assert [turn.role for turn in request(prompt="", messages=[USER, calls]).messages] == ["user", "assistant", "tool"]
    for last in (HELLO, {"role": "system", "content": ""}, {"role": "developer", "content": "Be brief."}):
        assert len(request(prompt="", messages=[USER, last]).messages) == 2


def test_a_template_may_be_the_whole_prompt():
    assert request(prompt="", prompt_template="Once").prompt_template == "Once"


def test_an_empty_template_is_none():
    assert request(prompt_template="").prompt_template is None


def test_a_bad_template_is_refused():
    with pytest.raises(BadPromptTemplate):
        request(prompt_template="no place")


CONVERSATION = {"messages": [USER, HELLO, USER]}


@pytest.mark.parametrize(
    ("inputs", "what", "advice"),
    [
        ({}, "the prompt", ""),
        ({"truncate": "oldest_turns"}, "the prompt", ""),
        ({"prompt_template": "{prompt}"}, "the prompt", ""),
        (CONVERSATION, "the prompt", ", or set truncate to 'oldest_turns'"),
        (
            {**CONVERSATION, "truncate": "oldest_turns"},
            "the prompt without the turns that may be left out",
            "; the system turns, the last user turn and what follows it stay",
        ),
    ],
)
@pytest.mark.parametrize("prompt_tokens", [8192, 9012])
def test_a_prompt_that_leaves_no_room_is_refused_with_the_numbers_and_what_helps(prompt_tokens, inputs, what, advice):
    with pytest.raises(PromptTooLong) as refused:
        request(**inputs, max_tokens=512).fitted(prompt_tokens, 8192)
    assert str(refused.value) == (
        f"E1002 PromptTooLong: {what} is {prompt_tokens} tokens and max_tokens is 512; the model takes 8192 with at "
        f"least 1 to generate; shorten it by at least {prompt_tokens - 8191} tokens{advice}"
    )


def test_what_is_only_counted_may_be_longer_and_is_never_truncated():
    asked = request(**CONVERSATION, max_tokens=0)
    assert asked.fitted(16_383, 8192) == asked.sampling
    with pytest.raises(PromptTooLong) as refused:
        asked.fitted(16_384, 8192)
    assert str(refused.value).endswith("fewer than 16384 are counted; shorten it by at least 1 tokens")
    assert asked.fitted(131_071, 131_072) == asked.sampling  # what fits can be counted


def test_one_token_of_room_is_enough():
    assert request(max_tokens=512).fitted(8191, 8192).max_tokens == 1


CALLED = {"role": "assistant", "tool_calls": [{"name": "clock"}]}
CONTINUED = {"prompt": "", "messages": [USER, HELLO], "continue_final_message": True}
WHOLE_PROMPT = "can't go with prompt_template, which is the whole prompt; send one of them"
TEMPLATE = "Q: {prompt}"


@pytest.mark.parametrize(
    ("inputs", "problem"),
    [
        ({"messages": [USER], "prompt_template": TEMPLATE}, f"E1005 BadMessages: messages {WHOLE_PROMPT}"),
        ({"tools": [CLOCK], "prompt_template": TEMPLATE}, f"E1006 BadTools: tools {WHOLE_PROMPT}"),
        *(
            (
                {"tools": [CLOCK], "min_tokens": 5, "tool_choice": choice, "parallel_tool_calls": choice != "auto"},
                f"E1008 BadSampling: min_tokens is 5 beside {beside}",
            )
            for choice, beside in {
                "required": "tool_choice 'required'; the response ends after the call",
                "clock": "tool_choice 'clock'; the response ends after the call",
                "auto": "parallel_tool_calls false; the response ends after a call",
            }.items()
        ),
        (
            {"tools": [CLOCK], "json_schema": {"not": {}}},
            "E1007 BadJsonSchema: json_schema: $ makes no grammar: Unsatisfiable schema: schema is false",
        ),
        (
            {"json_schema": {}, "min_tokens": 5},
            "E1008 BadSampling: min_tokens is 5 beside json_schema; JSON ends where it is complete",
        ),
        (
            {"tool_choice": "required"},
            "E1006 BadTools: tool_choice is 'required' and there are no tools to call",
        ),
        (
            {"tool_choice": "clock"},
            "E1006 BadTools: tool_choice is 'clock'; it has to be auto, none, required or one of the tools",
        ),
        (
            {"tool_choice": "fly", "tools": [CLOCK, WEATHER]},
            "E1006 BadTools: tool_choice is 'fly'; it has to be auto, none, required or one of clock, weather",
        ),
        *(
            (
                {**CONTINUED, name: value},
                f"E1005 BadMessages: continue_final_message can't go with {name}; leave one of them out",
            )
            for name, value in {"prompt": "Hi", "json_schema": {}}.items()
        ),
        (
            {**CONTINUED, "messages": [HELLO, USER]},
            "E1005 BadMessages: continue_final_message needs a last message of the assistant's; its role is 'user'",
        ),
        (
            {**CONTINUED, "messages": []},
            "E1001 EmptyRequest: there is no prompt, no messages, no prompt_template and no prompt_token_ids; send one "
            'of them, in the body of a POST within {"input": {...}}',
        ),
        (
            {**CONTINUED, "messages": [USER, CALLED]},
            "E1005 BadMessages: messages[1].tool_calls make a complete turn, and continue_final_message can't go on "
            "with it",
        ),
        *(
            (
                {"prompt": "", "prompt_token_ids": [1], name: value},
                f"{error}: {name} can't go with prompt_token_ids, which is the whole prompt; send one of them",
            )
            for name, value, error in [
                ("prompt", "Hi", "E1005 BadMessages"),
                ("messages", [USER], "E1005 BadMessages"),
                ("prompt_template", "A", "E1005 BadMessages"),
                ("tools", [CLOCK], "E1006 BadTools"),
            ]
        ),
        (
            {"messages": [{"role": "tool", "content": ""}]},
            "E1005 BadMessages: messages[0].role is 'tool' and has no call; "
            "it must follow an assistant turn with calls",
        ),
        (
            {"tools": [{}]},
            "E1006 BadTools: tools[0].name is null; it has to be 1 to 128 characters, without control characters and "
            "tags",
        ),
        (
            {"tool_choice": "fly", "tools": [{"name": f"f{n}" + "x" * 99} for n in range(9)]},
            f"E1006 BadTools: tool_choice is 'fly'; it has to be auto, none, required or one of f0{'x' * 99}, "
            f"f1{'x' * 99}, f2{'x' * 89}...",
        ),
        (
            {"prompt": "a\ud800"},
            f"E1005 BadMessages: prompt holds a lone surrogate (U+D800) at character 2{SEND_VALID}",
        ),
        (
            {"system_prompt": "\ud83d"},
            f"E1005 BadMessages: system_prompt holds a lone surrogate (U+D83D) at character 1{SEND_VALID}",
        ),
        (
            {"prompt_template": "{prompt}\ud800"},
            f"E1005 BadMessages: prompt_template holds a lone surrogate (U+D800) at character 9{SEND_VALID}",
        ),
        (
            {"json_schema": {"not": {}}},
            "E1007 BadJsonSchema: json_schema: $ makes no grammar: Unsatisfiable schema: schema is false",
        ),
    ],
)
def test_inputs_that_cannot_be_meant_are_refused(inputs, problem):
    with pytest.raises(RequestError) as refused:
        request(**inputs)
    assert str(refused.value) == problem


@pytest.mark.parametrize("tool_choice", ["auto", "none", "required", "weather"])
def test_a_tool_choice_is_kept_with_the_grammar_that_it_asks_for(tool_choice):
    asked = request(tools=[CLOCK, WEATHER], tool_choice=tool_choice)
    assert (asked.tool_choice, asked.constraint) == (tool_choice, tools_constraint(asked.functions, tool_choice))


@pytest.mark.parametrize("parallel", [True, False])
def test_beside_tools_a_schema_is_for_a_response_without_calls(parallel):
    both = {"tools": [CLOCK, WEATHER], "json_schema": PERSON, "parallel_tool_calls": parallel}
    asked = request(**both)
    assert asked.constraint == calls_or_json_constraint(asked.functions, PERSON, parallel=parallel)
    assert request(**both, tool_choice="none").constraint == json_constraint(PERSON)
    for choice in ("required", "weather"):
        forced = request(**both, tool_choice=choice)
        assert forced == request(**{**both, "json_schema": None}, tool_choice=choice)
        assert forced.constraint == tools_constraint(forced.functions, choice, parallel=parallel)


@pytest.mark.parametrize("inputs", [{"tool_choice": "none", "parallel_tool_calls": False}, {}])
def test_a_response_that_the_model_ends_may_have_a_least_length(inputs):
    assert request(tools=[CLOCK], min_tokens=5, **inputs).sampling.min_tokens == 5


@pytest.mark.parametrize(
    ("inputs", "error"),
    [
        ({"tools": [CLOCK]}, "E1006 BadTools: tools is too large"),
        ({"tools": [CLOCK], "json_schema": PERSON}, "E1006 BadTools: tools beside json_schema: is too large"),
        (
            {"tools": [CLOCK], "json_schema": PERSON, "tool_choice": "none"},
            "E1007 BadJsonSchema: json_schema: is too large",
        ),
        ({"json_schema": PERSON}, "E1007 BadJsonSchema: json_schema: is too large"),
    ],
)
def test_what_the_engine_refuses_is_the_error_of_the_input_that_asked_for_it(inputs, error):
    assert str(request(**inputs).refused("is too large")) == error


def test_without_tools_a_choice_of_none_asks_for_no_grammar():
    assert request(tools=[], tool_choice="none") == replace(request(), tool_choice="none")


@pytest.mark.parametrize(
    ("inputs", "plain"),
    [
        ({}, True),
        ({"messages": [], "tools": []}, True),
        ({"truncate": "oldest_turns"}, True),
        ({"messages": [USER]}, False),
        ({"tools": [CLOCK]}, False),
        ({"json_schema": {}}, False),
    ],
)
def test_a_plain_request_is_one_prompt_and_nothing_else(inputs, plain):
    assert request(**inputs).is_plain is plain


def test_the_default_system_prompt_is_that_of_predict_py():
    predict = ast.parse((Path(__file__).parents[2] / "predict.py").read_text())
    arguments = next(node.args for node in ast.walk(predict) if getattr(node, "name", None) == "predict")
    (system_prompt,) = (
        default
        for argument, default in zip(arguments.args[-len(arguments.defaults) :], arguments.defaults, strict=True)
        if argument.arg == "system_prompt"
    )
    assert {word.arg: word.value for word in system_prompt.keywords}["default"].value == DEFAULT_SYSTEM_PROMPT


TOOLS = [{"name": "f"}]


@pytest.mark.parametrize(
    ("inputs", "of_engine", "outside_calls"),
    [
        ({}, ("\n",), ()),
        ({"tools": TOOLS}, (), ("\n",)),
        ({"tools": TOOLS, "parallel_tool_calls": False}, (), ("\n",)),
        ({"tools": TOOLS, "tool_choice": "none"}, ("\n",), ()),
        ({"tools": TOOLS, "tool_choice": "required"}, (), ()),
        ({"tools": TOOLS, "tool_choice": "f"}, (), ()),
        ({"json_schema": {}}, (), ()),
        ({"json_schema": {}, "tools": TOOLS}, (), ()),
        ({"json_schema": {}, "tools": TOOLS, "tool_choice": "none"}, (), ()),
    ],
    ids=str,
)
def test_a_stop_string_never_applies_to_what_a_grammar_holds(inputs, of_engine, outside_calls):
    made = request(stop=["\n"], **inputs)
    assert (made.fitted(10, 100).stop, made.stop_outside_calls) == (of_engine, outside_calls)
