"""A request is made of the inputs of a prediction, or is refused with a code."""

import ast
from dataclasses import replace
from pathlib import Path

import pytest

from hermes.chat.constraint import tools_constraint
from hermes.chat.request import DEFAULT_SYSTEM_PROMPT, Request
from hermes.chat.sampling import Sampling
from hermes.errors import BadMessages, BadPromptTemplate, EmptyRequest, PromptTooLong, RequestError
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
        "E1001 EmptyRequest: there is no prompt, no messages and no prompt_template; send one of them, "
        'in the body of a POST within {"input": {...}}'
    )


def test_calls_without_their_results_leave_nothing_to_answer_but_a_prompt_beside_them():
    calls = {"role": "assistant", "tool_calls": [{"function": {"name": "clock"}}]}
    with pytest.raises(BadMessages, match=r"E1005 BadMessages: messages\[1\].role is 'assistant', so there is nothing"):
        request(prompt="", messages=[USER, calls])
    assert [turn.role for turn in request(messages=[USER, calls]).messages] == ["user", "assistant", "tool"]


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


def test_one_token_of_room_is_enough():
    assert request(max_tokens=512).fitted(8191, 8192).max_tokens == 1


NOTHING_TO_ANSWER = "so there is nothing to respond to; end with a user turn, or send a prompt"
WHOLE_PROMPT = "can't go with prompt_template, which is the whole prompt; send one of them"
TEMPLATE = "Q: {prompt}"


@pytest.mark.parametrize(
    ("inputs", "problem"),
    [
        ({"messages": [USER], "prompt_template": TEMPLATE}, f"E1005 BadMessages: messages {WHOLE_PROMPT}"),
        ({"tools": [CLOCK], "prompt_template": TEMPLATE}, f"E1006 BadTools: tools {WHOLE_PROMPT}"),
        (
            {"tools": [CLOCK], "json_schema": {}},
            "E1006 BadTools: tools can't go with json_schema: a response is a tool call or JSON; send one of them",
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
        (
            {"prompt": "", "messages": [USER, HELLO]},
            f"E1005 BadMessages: messages[1].role is 'assistant', {NOTHING_TO_ANSWER}",
        ),
        (
            {"prompt": "", "messages": [{"role": "system", "content": ""}]},
            f"E1005 BadMessages: messages[0].role is 'system', {NOTHING_TO_ANSWER}",
        ),
        (
            {"messages": [{"role": "tool", "content": ""}]},
            "E1005 BadMessages: messages[0].role is 'tool' and has no call; "
            "it must follow an assistant turn with calls",
        ),
        (
            {"tools": [{}]},
            "E1006 BadTools: tools[0].name is null; it has to be 1 to 128 letters, digits, '_', '.' or '-'",
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


@pytest.mark.parametrize(
    ("inputs", "error"),
    [
        ({"tools": [CLOCK]}, "E1006 BadTools: tools is too large"),
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
