"""Requests, and the whole prompts that their inputs become."""

import ast
import time
from dataclasses import replace
from pathlib import Path

import pytest

from hermes.chat.chatml import ChatML
from hermes.chat.messages import Message
from hermes.chat.request import DEFAULT_SYSTEM_PROMPT, Request, Sampling, split_stop_sequences
from hermes.errors import BadMessages, BadPromptTemplate, BadSampling, EmptyRequest, PromptTooLong, RequestError
from tests.support.fakes import byte_tokenizer, request

TOKENIZER = byte_tokenizer()
CHATML = ChatML(TOKENIZER)
CLOCK = {"type": "function", "function": {"name": "clock", "description": "The time.", "parameters": {}}}
WEATHER = {"name": "weather", "parameters": {"properties": {"city": {"type": "string"}}}}
USER = {"role": "user", "content": "What time is it?"}
HELLO = {"role": "assistant", "content": "Hello!"}
SEND_VALID = ", which is no text; send valid Unicode"
PERSON = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}


def prompt(**inputs):
    return TOKENIZER.shown(request(**inputs).encode(CHATML, 8192).token_ids)


def test_the_inputs_become_one_value():
    assert request(stop_sequences="END, stop") == Request(
        "Hi", "Be kind.", None, Sampling(seed=1, stop=("END", " stop"))
    )


def test_zero_is_a_seed_and_none_draws_one():
    assert request(seed=0).sampling.seed == 0
    assert len({request(seed=None).sampling.seed for _ in range(20)}) > 1


def test_each_drawn_seed_can_be_sent_again_also_where_integers_have_32_bits():
    assert max(request(seed=None).sampling.seed for _ in range(100)) < 2**31


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


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_tokens": 0}, "max_tokens is 0; ask for at least 1"),
        ({"min_tokens": 20, "max_tokens": 10}, "min_tokens is 20; it must be from 0 to max_tokens, 10"),
        ({"min_tokens": -1}, "min_tokens is -1"),
        ({"top_p": 0.0}, "top_p is 0.0; it must be above 0"),
        ({"top_p": float("nan")}, "top_p is NaN"),
        (
            {"temperature": float("nan")},
            "temperature is NaN; it must be a number of at most 9007199254740992 either way",
        ),
        ({"presence_penalty": float("-inf")}, "presence_penalty is -Infinity; it must be a number"),
        ({"max_tokens": -(10**5_000)}, "max_tokens is a number of very many digits; it must be a number"),
        ({"min_tokens": 10**5_000, "json_schema": {}}, "min_tokens is a number of very many digits beside json_schema"),
        ({"seed": 2**63}, "seed is 9223372036854775808; it must be a number of at most 9007199254740992 either way"),
    ],
)
def test_sampling_values_that_cannot_be_meant_are_refused(values, message):
    with pytest.raises(BadSampling, match=message) as refused:
        request(**values)
    assert refused.value.code == "E1008"


@pytest.mark.parametrize(
    ("text", "sequences"),
    [
        (None, ()),
        ("", ()),
        (",,", ()),
        ("END", ("END",)),
        ("END,\n\n", ("END", "\n\n")),
        ("<end>, <stop>,", ("<end>", " <stop>")),
    ],
)
def test_stop_sequences_keep_their_spaces_and_are_never_empty(text, sequences):
    assert split_stop_sequences(text) == sequences


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a," * 257, "stop_sequences has 257 texts; at most 256"),
        ("a," + "x" * 1_001, "stop_sequences has a text of 1001 characters; at most 1000"),
        ("a\udfff", f"stop_sequences holds a lone surrogate (U+DFFF) at character 2{SEND_VALID}"),
    ],
)
def test_stop_sequences_that_would_slow_or_break_the_engine_are_refused(text, problem):
    with pytest.raises(BadSampling) as refused:
        request(stop_sequences=text)
    assert str(refused.value) == f"E1008 BadSampling: {problem}"


def test_max_tokens_is_lowered_to_what_the_context_still_takes():
    fitted = Sampling(seed=1, max_tokens=512, min_tokens=300).fitted(prompt_tokens=8000, context_tokens=8192)
    assert (fitted.max_tokens, fitted.min_tokens) == (192, 192)
    assert Sampling(seed=1, max_tokens=5).fitted(10, 8192).max_tokens == 5


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
            "what has to stay of the prompt",
            "; that is the system turns, the last user turn and what follows it",
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


def test_a_prompt_is_a_conversation_or_the_callers_raw_prompt():
    assert prompt() == (
        "<|begin_of_text|><|im_start|>system\nBe kind.<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    raw = request(prompt_template="{system_prompt}<|im_end|>{prompt}", truncate="oldest_turns").encode(CHATML, 10)
    assert TOKENIZER.shown(raw.token_ids) == "<|begin_of_text|>Be kind.<|im_end|>Hi"
    assert CHATML.end_id in raw.token_ids


TOOLS_TURN = """\
You are a function calling AI model. You are provided with function signatures within <tools></tools> XML tags. You may call one or more functions to assist with the user query. Don't make assumptions about what values to plug into functions. Here are the available tools:
<tools>
{"type": "function", "function": {"name": "clock", "description": "The time.", "parameters": {"type": "object", "properties": {}}}}
{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}
</tools>
Use the following pydantic model json schema for each tool call you will make:
{"properties": {"arguments": {"title": "Arguments", "type": "object"}, "name": {"title": "Name", "type": "string"}}, "required": ["arguments", "name"], "title": "FunctionCall", "type": "object"}
For each function call return a json object with function name and arguments within <tool_call></tool_call> XML tags as follows:
<tool_call>
{"arguments": <args-dict>, "name": <function-name>}
</tool_call>"""  # noqa: E501  the trained text, letter for letter


@pytest.mark.parametrize("system_prompt", ["", DEFAULT_SYSTEM_PROMPT])
def test_tools_are_offered_in_the_system_turn_that_was_trained(system_prompt):
    assert prompt(tools=[CLOCK, WEATHER], system_prompt=system_prompt) == (
        f"<|begin_of_text|><|im_start|>system\n{TOOLS_TURN}<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )


def test_the_callers_own_system_prompt_stands_before_the_tools():
    assert prompt(tools=[CLOCK, WEATHER], tool_choice="none") == (
        f"<|begin_of_text|><|im_start|>system\nBe kind.\n\n{TOOLS_TURN}<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize(
    ("system_prompt", "own"), [("", ""), (DEFAULT_SYSTEM_PROMPT, ""), ("Be kind.", "Be kind.\n\n")]
)
def test_a_json_schema_is_shown_in_the_system_turn_that_was_trained(system_prompt, own):
    assert prompt(json_schema=PERSON, system_prompt=system_prompt) == (
        f"<|begin_of_text|><|im_start|>system\n{own}"
        "You are a helpful assistant that answers in JSON. Here's the json schema you must adhere to:\n"
        "<schema>\n"
        '{"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}\n'
        "</schema><|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_system_turn_in_messages_wins_and_the_prompt_comes_after_them():
    assert prompt(messages=[{"role": "system", "content": "Be brief."}, USER, HELLO]) == (
        "<|begin_of_text|>"
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nWhat time is it?<|im_end|>\n"
        "<|im_start|>assistant\nHello!<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


@pytest.mark.parametrize(
    ("inputs", "turns"),
    [
        pytest.param(
            {"messages": [USER]}, [Message("system", "Be kind."), Message("user", "What time is it?")], id="none"
        ),
        pytest.param(
            {"messages": [{"role": "system", "content": ""}, USER]}, [Message("user", "What time is it?")], id="empty"
        ),
        pytest.param({"system_prompt": "", "messages": [USER]}, [Message("user", "What time is it?")], id="neither"),
        pytest.param(
            {"tools": [CLOCK, WEATHER], "messages": [{"role": "system", "content": "Be brief."}, USER]},
            [Message("system", f"Be brief.\n\n{TOOLS_TURN}"), Message("user", "What time is it?")],
            id="with tools",
        ),
        pytest.param(
            {"messages": [USER, {"role": "system", "content": "Be brief."}, USER]},
            [
                Message("system", "Be kind."),
                Message("user", "What time is it?"),
                Message("system", "Be brief."),
                Message("user", "What time is it?"),
            ],
            id="later",
        ),
    ],
)
def test_system_turns_beside_the_system_prompt(inputs, turns):
    assert request(prompt="", **inputs).conversation() == turns


def test_results_of_a_call_are_something_to_answer():
    call = {"role": "assistant", "tool_calls": [{"name": "clock", "arguments": {}}]}
    asked = request(prompt="", system_prompt="", messages=[USER, call, {"role": "tool", "content": "noon"}])
    assert asked.conversation() == [
        Message("user", "What time is it?"),
        Message("assistant", '<tool_call>\n{"arguments": {}, "name": "clock"}\n</tool_call>'),
        Message("tool", '<tool_response>\n{"name": "clock", "content": "noon"}\n</tool_response>\n'),
    ]


NOTHING_TO_ANSWER = "so there is nothing to answer; end with a user turn, or send a prompt"
WHOLE_PROMPT = "can't go with prompt_template, which is the whole prompt; send one of them"
TEMPLATE = "Q: {prompt}"


@pytest.mark.parametrize(
    ("inputs", "problem"),
    [
        ({"messages": [USER], "prompt_template": TEMPLATE}, f"E1005 BadMessages: messages {WHOLE_PROMPT}"),
        ({"tools": [CLOCK], "prompt_template": TEMPLATE}, f"E1006 BadTools: tools {WHOLE_PROMPT}"),
        (
            {"tools": [CLOCK], "json_schema": {}},
            "E1006 BadTools: tools can't go with json_schema: an answer is a tool call or JSON; send one of them",
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
            "E1005 BadMessages: messages[0].role is 'tool' and answers no call; "
            "it has to follow an assistant turn with calls",
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
    assert (asked.tool_choice, asked.constraint.source) == (tool_choice, "tools")


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


FAR_TOO_LONG = [
    pytest.param({"prompt": "東" * 4_000_000}, 705_885, id="a prompt of 12 MB"),
    pytest.param(
        {"prompt": "x" * 10_000, "prompt_template": "{prompt}" * 100_000}, 58_823_529, id="a template of 1 GB"
    ),
    pytest.param({"messages": [USER] * 20_000}, 80_003, id="many messages"),
]


@pytest.mark.parametrize(("inputs", "tokens"), FAR_TOO_LONG)
def test_a_prompt_that_can_never_fit_is_refused_before_it_is_filled_or_encoded(inputs, tokens):
    asked = request(**{"system_prompt": "", **inputs})
    before = time.process_time()
    with pytest.raises(PromptTooLong, match=f"E1002 PromptTooLong: the prompt is at least {tokens} tokens "):
        asked.encode(CHATML, 8192)
    assert time.process_time() - before < 0.5


def test_a_template_that_is_filled_with_nothing_is_an_empty_request():
    with pytest.raises(EmptyRequest):
        request(prompt="", system_prompt="", prompt_template="{prompt}{system_prompt}").encode(CHATML, 8192)


def test_a_conversation_is_truncated_only_where_that_was_asked_for():
    inputs = {"system_prompt": "", "messages": [{"role": "user", "content": "x" * 100}, HELLO], "max_tokens": 5}
    whole = request(**inputs).encode(CHATML, 60)
    assert (TOKENIZER.shown(whole.token_ids), whole.dropped_turns) == (prompt(**inputs), 0)
    short = request(**inputs, truncate="oldest_turns").encode(CHATML, 60)
    without = prompt(**{**inputs, "messages": [HELLO]})
    assert (TOKENIZER.shown(short.token_ids), short.dropped_turns) == (without, 1)


def test_a_whole_number_is_an_integer_however_json_wrote_it():
    sampling = Sampling(seed=7.0, min_tokens=-0.0, max_tokens=5e1, top_k=1.0)
    assert sampling == Sampling(seed=7, min_tokens=0, max_tokens=50, top_k=1)
    numbers = (sampling.seed, sampling.min_tokens, sampling.max_tokens, sampling.top_k)
    assert {type(number) for number in numbers} == {int}
