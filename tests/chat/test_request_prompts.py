"""A request becomes one whole prompt: a conversation in ChatML, or the caller's raw prompt."""

import pytest

from hermes.chat.chatml import ChatML
from hermes.chat.messages import Message
from hermes.chat.request import DEFAULT_SYSTEM_PROMPT
from hermes.errors import EmptyRequest, PromptTooLong
from tests.support.conversations import CLOCK, PERSON, WEATHER
from tests.support.fakes import byte_tokenizer, request
from tests.support.work import at_most

TOKENIZER = byte_tokenizer()
CHATML = ChatML(TOKENIZER)
USER = {"role": "user", "content": "What time is it?"}
HELLO = {"role": "assistant", "content": "Hello!"}


def prompt(**inputs):
    return TOKENIZER.shown(request(**inputs).encode(CHATML, 8192).token_ids)


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


def test_beside_tools_a_json_schema_is_shown_after_them():
    both = {"tools": [CLOCK, WEATHER], "json_schema": PERSON}
    json_text = request(json_schema=PERSON, system_prompt="").conversation()[0].content
    for choice in ("auto", "none"):
        assert request(**both, tool_choice=choice).conversation()[0].content == (
            f"Be kind.\n\n{TOOLS_TURN}\n\n{json_text}"
        )
    assert request(**both, tool_choice="clock").conversation()[0].content == f"Be kind.\n\n{TOOLS_TURN}"


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


@pytest.mark.parametrize("more", [{"tools": [CLOCK, WEATHER]}, {"json_schema": PERSON}])
def test_a_system_turn_is_kept_also_where_it_is_the_default_text(more):
    turn = {"role": "system", "content": DEFAULT_SYSTEM_PROMPT}
    system = request(messages=[turn], **more).conversation()[0]
    assert system.content.startswith(f"{DEFAULT_SYSTEM_PROMPT}\n\nYou are a ")


@pytest.mark.parametrize("last", [HELLO, {"role": "system", "content": "Be brief."}])
def test_after_any_last_turn_the_assistants_begins(last):
    assert prompt(prompt="", system_prompt="", messages=[USER, last]) == (
        "<|begin_of_text|><|im_start|>user\nWhat time is it?<|im_end|>\n"
        f"<|im_start|>{last['role']}\n{last['content']}<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize("text", ["It is ", "", "a <|im_end|> b", " \n"])
@pytest.mark.parametrize("truncate", ["error", "oldest_turns"])
def test_a_turn_that_is_to_be_continued_has_no_end(text, truncate):
    begun = [{"role": "assistant", "content": [{"type": "text", "text": text}]}]
    inputs = {"prompt": "", "system_prompt": "", "continue_final_message": True, "truncate": truncate}
    assert prompt(messages=[USER, *begun], **inputs) == (
        f"<|begin_of_text|><|im_start|>user\nWhat time is it?<|im_end|>\n<|im_start|>assistant\n{text}"
    )
    ids = request(messages=begun, **inputs).encode(CHATML, 8192).token_ids
    assert (ids.count(CHATML.start_id), ids.count(CHATML.end_id)) == (1, 0)
    assert prompt(messages=begun, **{**inputs, "system_prompt": "A"}).startswith("<|begin_of_text|><|im_start|>system")


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
    counted = request(**{"system_prompt": "", **inputs}, max_tokens=0)
    with at_most(0.5, all_threads=True):
        for each in (asked, counted):
            with pytest.raises(PromptTooLong, match=f"E1002 PromptTooLong: the prompt is at least {tokens} tokens "):
                each.encode(CHATML, 8192)


def test_a_template_that_is_filled_with_nothing_is_an_empty_request():
    with pytest.raises(EmptyRequest):
        request(prompt="", system_prompt="", prompt_template="{prompt}{system_prompt}").encode(CHATML, 8192)


def test_a_conversation_is_truncated_only_where_that_was_asked_for():
    inputs = {"system_prompt": "", "messages": [{"role": "user", "content": "x" * 100}, HELLO], "max_tokens": 5}
    whole = request(**inputs).encode(CHATML, 60)
    assert (TOKENIZER.shown(whole.token_ids), whole.dropped_turns) == (prompt(**inputs), 0)
    assert request(**{**inputs, "max_tokens": 0}, truncate="oldest_turns").encode(CHATML, 60) == whole
    short = request(**inputs, truncate="oldest_turns").encode(CHATML, 60)
    without = prompt(**{**inputs, "messages": [HELLO]})
    assert (TOKENIZER.shown(short.token_ids), short.dropped_turns) == (without, 1)
