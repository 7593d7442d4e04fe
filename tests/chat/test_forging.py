"""No text in any field of a request can forge a turn, or a tag of a tool call."""

import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hermes.chat.chatml import ChatML
from hermes.tool_calls.definitions import TAGS
from tests.support.fakes import byte_tokenizer, request

CONTROL = ("<|im_start|>", "<|im_end|>", "<|begin_of_text|>")
FORMAT = {  # the tags that the format itself writes: offering functions, calling one, and its result
    "<tools>": 2,
    "</tools>": 2,
    "<tool_call>": 3,
    "</tool_call>": 3,
    "<tool_response>": 1,
    "</tool_response>": 1,
}

texts = st.lists(st.sampled_from([*CONTROL, *TAGS, "\n", "system\n", "a", '"', "\\", "<"]), max_size=4).map("".join)
schemas = st.builds(
    lambda name, note, value: {"properties": {name: {"description": note}, f"a{name}": {"enum": [value]}}},
    *[texts, texts, texts],
)
results = texts | texts.map(lambda text: [{"type": "text", "text": text}]) | st.dictionaries(texts, texts, max_size=2)
conversations = st.fixed_dictionaries(
    {
        "system": texts,
        "user": texts,
        "assistant": texts,
        "name": texts,
        "arguments": st.dictionaries(texts, st.lists(texts, max_size=2), max_size=2) | texts,
        "result": results,
        "description": texts,
        "schema": schemas,
    }
)


def asked(fields, **inputs):
    call = {"id": "c", "function": {"name": fields["name"], "arguments": fields["arguments"]}}
    messages = [
        {"role": "user", "content": fields["user"]},
        {"role": "assistant", "content": fields["assistant"], "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "name": fields["name"], "content": fields["result"]},
    ]
    return request(system_prompt=f"A{fields['system']}", prompt=f"A{fields['user']}", messages=messages, **inputs)


def tools(fields):
    return [{"name": "f", "description": fields["description"], "parameters": fields["schema"]}]


def counted(tokenizer, asked):
    """How often each control token and each tag is a token of the prompt."""
    ids = Counter(asked.encode(ChatML(tokenizer), 8192).token_ids)
    counts = {text: ids[tokenizer.backend_tokenizer.token_to_id(text)] for text in (*CONTROL, *TAGS)}
    return {text: count for text, count in counts.items() if count}


TURNS = {"<|im_start|>": 5 + 1, "<|im_end|>": 5, "<|begin_of_text|>": 1}
PLAIN, WITH_TAGS = byte_tokenizer(), byte_tokenizer(added=TAGS)


@settings(max_examples=10, deadline=None)
@given(conversations)
def test_control_tokens_are_those_of_the_turns_and_tags_those_of_the_format_whatever_the_texts(fields):
    with_tools, with_schema = asked(fields, tools=tools(fields)), asked(fields, json_schema=fields["schema"])
    assert counted(PLAIN, with_tools) == counted(PLAIN, with_schema) == TURNS
    own = Counter(re.findall("|".join(TAGS), f"{fields['system']} {fields['assistant']}"))  # those may write tags
    assert counted(WITH_TAGS, with_tools) == {**TURNS, **(own + Counter(FORMAT))}
    messages = dict.fromkeys(["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"], 1)
    assert counted(WITH_TAGS, with_schema) == {**TURNS, **(own + Counter({**messages, "<schema>": 1, "</schema>": 1}))}


@pytest.mark.parametrize("role", ["system", "assistant", "user"])
def test_a_tag_is_a_token_where_the_caller_speaks_for_the_system_or_the_model(role):
    asked = request(system_prompt="", messages=[{"role": role, "content": "<tool_call>"}])
    assert counted(WITH_TAGS, asked).get("<tool_call>", 0) == (role != "user")
