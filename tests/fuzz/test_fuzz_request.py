"""Any inputs make a request or an error that a caller can read; any request makes a prompt that fits, or an error."""

import re

from hypothesis import event, given
from hypothesis import strategies as st

from hermes.chat.chatml import ChatML
from hermes.chat.constraint import json_constraint
from hermes.chat.request import Request
from hermes.chat.template import fill
from hermes.errors import BadMessages, EmptyRequest, HermesError, PromptTooLong
from hermes.tool_calls.definitions import TAGS
from tests.support.fakes import INPUTS, byte_tokenizer
from tests.support.hostile import (
    any_schema,
    clean,
    conversations,
    examples,
    huge,
    json_values,
    long,
    numbers,
    quiet,
    sometimes,
    texts,
    tools,
)
from tests.support.work import at_most

pytestmark = quiet

TOKENIZERS = {
    "plain": byte_tokenizer(),
    "tags are tokens": byte_tokenizer(added=TAGS),
    "BOS is <|im_start|>": byte_tokenizer(bos="<|im_start|>"),
    "no BOS": byte_tokenizer(bos=None),
}
json_constraint({})  # the first one imports jsonschema
CHATML = {name: ChatML(tokenizer) for name, tokenizer in TOKENIZERS.items()}

whole = st.integers() | huge
sampling = {
    "min_tokens": sometimes(st.just(0), whole),
    "max_tokens": sometimes(st.integers(0, 99), whole),
    **{
        name: sometimes(st.just(usual), numbers)
        for name, usual in [("temperature", 1), ("top_p", 0.5), ("top_k", 5), ("min_p", 0), ("repetition_penalty", 1)]
    },
}
templates = sometimes(clean, texts) | clean.map(lambda text: text + "{prompt}") | st.just("{prompt}" * 100_000)
inputs = st.fixed_dictionaries(
    {"prompt": sometimes(clean, texts), "system_prompt": sometimes(clean, texts)},
    optional={
        "stop_sequences": st.none() | sometimes(clean, texts),
        "stop": st.none() | st.lists(sometimes(clean, texts), max_size=4),
        "seed": st.none() | st.integers(),
        "messages": conversations,
        "truncate": st.sampled_from(["error", "oldest_turns"]),
        "parallel_tool_calls": st.booleans(),
        "continue_final_message": sometimes(st.just(value=False), st.booleans()),
        **sampling,
    },
)
schemas = sometimes(any_schema, st.dictionaries(texts, json_values, max_size=2))
ids = sometimes(st.integers(0, 255), numbers | huge | json_values)
beside = st.one_of(
    st.just({}),
    st.fixed_dictionaries(
        {"prompt_token_ids": st.none() | st.lists(ids, max_size=70), "prompt": sometimes(st.just(""), texts)}
    ),
    st.fixed_dictionaries({"prompt_template": templates}),
    st.fixed_dictionaries(
        {"tools": tools, "tool_choice": sometimes(st.sampled_from(["auto", "none", "f"]), texts)},
        optional={"json_schema": schemas},
    ),
    st.fixed_dictionaries({"json_schema": schemas}),
)


def readable(error):
    """One short line with a code, which any log or terminal takes."""
    text = str(error)
    assert re.match(r"E1\d\d\d \w+: ", text)
    assert len(text.splitlines()) == 1
    assert len(text) < 800, "it holds more than a short piece of what the caller sent"
    text.encode()


def requested(**given_inputs):
    """The request, or None where it is refused as it should be."""
    try:
        with at_most(4):
            return Request.from_inputs(**{**INPUTS, **given_inputs})
    except HermesError as error:
        readable(error)
        event(error.code)
        return None


def encoded(request, chatml, context_tokens):
    try:
        with at_most(4):
            return request.encode(chatml, context_tokens)
    except (BadMessages, EmptyRequest, PromptTooLong) as error:
        readable(error)
        event(error.code)
        return None


def turns_of(token_ids, chatml, tokenizer):
    """The texts between the control tokens, the last of which the model is to complete."""
    texts, rest = [], list(token_ids)
    while rest:
        assert rest.pop(0) == chatml.start_id
        end = rest.index(chatml.end_id) if chatml.end_id in rest else len(rest)
        texts.append(tokenizer.shown(rest[:end]))
        assert not {chatml.start_id, *chatml.bos_ids} & set(rest[:end])
        rest = rest[end + 1 :]
        assert not rest or tokenizer.shown([rest.pop(0)]) == "\n"
    return texts


def holds(prompt, request, chatml, tokenizer):
    """What is true of every prompt."""
    size = tokenizer.backend_tokenizer.get_vocab_size()
    assert all(type(token_id) is int and 0 <= token_id < size for token_id in prompt.token_ids)
    if request.prompt_token_ids:
        assert tuple(prompt.token_ids) == request.prompt_token_ids
        return
    if request.prompt_template:
        raw = fill(request.prompt_template, request.prompt, request.system_prompt)
        bos = tokenizer.bos_token if chatml.bos_ids else ""
        assert tokenizer.shown(prompt.token_ids) == (raw if bos and raw.startswith(bos) else f"{bos}{raw}")
        return
    assert prompt.token_ids[: len(chatml.bos_ids)] == chatml.bos_ids
    turns = turns_of(prompt.token_ids[len(chatml.bos_ids) :], chatml, tokenizer)
    expected = [f"{turn.role}\n{turn.content}" for turn in request.conversation()]
    assert turns.pop() == (expected.pop() if request.continues else "assistant\n")
    assert len(turns) == len(expected) - prompt.dropped_turns
    left = iter(expected)
    assert all(turn in left for turn in turns), "not in their order"


@examples(150)
@given(inputs, beside, st.sampled_from(sorted(CHATML)), st.sampled_from([64, 8192]))
def test_any_inputs_make_a_prompt_or_an_error_that_can_be_read(usual, others, name, context_tokens):
    request = requested(**{**usual, **others})
    if request:
        event("accepted")
        prompt = encoded(request, CHATML[name], context_tokens)
        if prompt:
            event("encoded")
            holds(prompt, request, CHATML[name], TOKENIZERS[name])


@examples(100)
@given(conversations, tools | st.none(), st.sampled_from(sorted(CHATML)))
def test_any_conversation_makes_the_turns_that_it_has_or_an_error(messages, offered, name):
    request = requested(messages=messages, tools=offered)
    prompt = request and encoded(request, CHATML[name], 100_000)
    if prompt:
        event("encoded")
        holds(prompt, request, CHATML[name], TOKENIZERS[name])


@examples(3)
@given(long.map(lambda text: text[:300_000]), st.sampled_from(sorted(CHATML)), st.booleans())
def test_a_long_user_turn_gives_its_text_back(text, name, truncate):
    request = requested(prompt=text, truncate="oldest_turns" if truncate else "error")
    prompt = request and encoded(request, CHATML[name], 2_000_000)
    if prompt:
        holds(prompt, request, CHATML[name], TOKENIZERS[name])
