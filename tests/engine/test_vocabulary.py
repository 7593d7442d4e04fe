"""The real vocabulary, in each form that its tags may have: prompts, tags, ends, and texts that spell tokens."""

import asyncio
import json
import random
import re

import pytest

from hermes.chat.chatml import ChatML
from hermes.chat.constraint import calls_or_json_constraint, json_constraint, tools_constraint
from hermes.chat.messages import Message
from hermes.engine.engine import end_tokens
from hermes.engine.grammar import Grammars
from hermes.json_schema.validate import Validator
from hermes.tool_calls.definitions import call_block, parse_functions
from hermes.tool_calls.parser import read_tool_calls
from tests.support import llama3
from tests.support.fakes import request
from tests.support.grammars import allowed, matcher_at

pytestmark = pytest.mark.xdist_group("vocabulary")  # each form takes seconds and half a gigabyte

CONVERSATIONS = 340  # in each form
WORDS = [
    "a",
    " the",
    "Été",
    "日本語",
    "😀👩‍👩‍👧",
    "1234",
    "\n\n",
    "  ",
    "\t",
    "'s",
    "it's",
    "{}",
    '"',
    "if a < b: pass",
    "<br>",
    "&amp;",
    "x_1",
    "…",
    "\r\n",
]
CHOICES = ("auto", "required", "clock", "none")
FUNCTIONS = parse_functions(
    [{"name": "clock"}, {"name": "lamp", "parameters": {"properties": {"on": {"type": "boolean"}}}}]
)
CALL = call_block("clock", {})
DOCUMENT = '{"say": "a < b"}'
EITHER = calls_or_json_constraint(FUNCTIONS, {"properties": {"say": {"type": "string"}}, "required": ["say"]})


class ModelVocabulary:
    """One form of the tokenizer, with what the package and the engine make of it."""

    def __init__(self, form):
        self.form = form
        self.tokenizer = llama3.tokenizer(form)
        self.chatml = ChatML(self.tokenizer)
        self.ends = end_tokens(llama3.without_weights(form), self.tokenizer, llama3.CONFIG["vocab_size"])
        self.grammars = Grammars(self.tokenizer, self.ends)

    def matcher(self, constraint):
        """What the engine has at the beginning of a response."""
        return matcher_at(asyncio.run(self.grammars.lark(constraint)), self.grammars._tokenizer)

    def ids(self, text, *, tags=True):
        """A text as the model writes it, with tags as tokens where it has any."""
        ids = []
        for part in llama3.TAG.split(text):
            is_token = tags and self.form != "absent" and llama3.TAG.fullmatch(part)
            token = [self.tokenizer.convert_tokens_to_ids(part)] if is_token else None
            ids += token or self.tokenizer.encode(part, add_special_tokens=False, split_special_tokens=True)
        return ids


@pytest.fixture(scope="module", params=llama3.FORMS)
def vocabulary(request):
    return ModelVocabulary(request.param)


def test_prompts_are_those_of_the_models_own_template(vocabulary):
    """Where no text has a control token or a tag in it; test_forging is about those that have."""
    draw = random.Random(7)
    for _ in range(CONVERSATIONS):
        turns = conversation(draw)
        messages = [{"role": turn.role, "content": turn.content} for turn in turns]
        expected = vocabulary.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        assert vocabulary.chatml.encode(turns) == expected, turns


def conversation(draw):
    """System, users, calls and their results, as requests render them."""
    name, note = draw.choice(WORDS), "".join(draw.choices(WORDS, k=draw.randint(0, 4)))
    tools = [{"name": "f", "description": note, "parameters": {"properties": {name: {"type": "string"}}}}]
    call = {"id": "1", "function": {"name": "f", "arguments": {name: note}}}
    messages = [
        {"role": "user", "content": text(draw)},
        {"role": "assistant", "content": text(draw), "tool_calls": [call] * draw.randint(0, 1)},
    ]
    if messages[1]["tool_calls"]:
        messages.append({"role": "tool", "tool_call_id": "1", "content": draw.choice([text(draw), {name: note}])})
    offered = draw.choice([{"tools": tools}, {"json_schema": {"properties": {name: {}}}}, {}])
    asked = request(
        system_prompt=text(draw), messages=messages[: draw.randint(1, 3)], prompt=f"{text(draw)}?", **offered
    )
    return asked.conversation()


def text(draw):
    return draw.choice(["", " ", "\n"]).join(draw.choices(WORDS, k=draw.randint(0, 30)))


@pytest.mark.parametrize("tags", [True, False], ids=["tags as tokens", "tags as text"])
@pytest.mark.parametrize("choice", CHOICES)
def test_a_call_can_be_written_where_tool_choice_allows_it(vocabulary, choice, tags):
    matcher = vocabulary.matcher(tools_constraint(FUNCTIONS, choice))
    ids = vocabulary.ids(CALL, tags=tags)
    assert (ids[0] in allowed(matcher)) == (choice != "none" or ids[0] not in llama3.TAGS)
    taken = matcher.try_consume_tokens(ids)
    assert (taken == len(ids)) == (choice != "none"), vocabulary.tokenizer.decode(ids[: taken + 1])


@pytest.mark.parametrize(
    ("constraint", "written"),
    [
        (tools_constraint(FUNCTIONS, "auto"), "Hello there"),
        (tools_constraint(FUNCTIONS, "auto"), ""),
        (tools_constraint(FUNCTIONS, "none"), "Hello there"),
        (tools_constraint(FUNCTIONS, "required"), CALL),
        (tools_constraint(FUNCTIONS, "required"), f"{CALL}\n{CALL}"),
        (EITHER, CALL),
        (EITHER, DOCUMENT),
        (tools_constraint(FUNCTIONS, "auto"), f"So: {CALL}\n{CALL} then"),
        (json_constraint({"type": "boolean"}), "true"),
        (json_constraint({"type": "integer"}), "12"),
    ],
    ids=[
        *("prose", "nothing", "no call", "a call", "calls", "call or document", "document or call"),
        *("calls in prose", "JSON", "JSON that could go on"),
    ],
)
def test_each_end_is_allowed_where_a_response_may_end_and_nothing_after_it(vocabulary, constraint, written):
    for end in llama3.ENDS:
        matcher = vocabulary.matcher(constraint)
        for token in vocabulary.ids(written):
            assert matcher.consume_token(token), written
        assert end in allowed(matcher)
        assert matcher.consume_token(end)
        assert allowed(matcher) == [llama3.IM_END], "the engine has ended it before"


@pytest.mark.parametrize(
    ("constraint", "written"),
    [
        (tools_constraint(FUNCTIONS, "clock"), CALL),
        (tools_constraint(FUNCTIONS, "required", parallel=False), CALL),
        (tools_constraint(FUNCTIONS, "auto", parallel=False), f"So: {CALL}"),
        (tools_constraint(FUNCTIONS, "required"), "\n".join([CALL] * 4)),
        (EITHER, "\n".join([CALL] * 4)),
        (EITHER, DOCUMENT),
    ],
    ids=["named", "one", "one in prose", "four", "four or a document", "a document"],
)
def test_after_the_last_call_or_the_document_only_an_end_is_allowed(vocabulary, constraint, written):
    for tags in (True, False):
        matcher = vocabulary.matcher(constraint)
        ids = vocabulary.ids(written, tags=tags)
        assert matcher.try_consume_tokens(ids) == len(ids)
        assert {*allowed(matcher)} == {*llama3.ENDS}


@pytest.mark.parametrize("choice", CHOICES[1:3])
def test_no_end_is_allowed_before_a_required_call_is_whole(vocabulary, choice):
    matcher = vocabulary.matcher(tools_constraint(FUNCTIONS, choice))
    for token in vocabulary.ids(CALL):
        assert not {*allowed(matcher)} & {*llama3.ENDS}
        assert matcher.consume_token(token)


SPELLINGS = {
    "const": lambda text: {"const": {"a": text}},
    "enum": lambda text: {"enum": [text, f"{text}x", f"x{text}"]},
    "key": lambda text: {"properties": {text: {"const": 1}, f"{text}2": {"const": 1}}, "required": [text, f"{text}2"]},
    "pattern": lambda text: {"type": "string", "pattern": f"^{re.escape(text)}$"},
    "classes": lambda text: {"type": "string", "pattern": "^" + "".join(f"[{re.escape(each)}]" for each in text) + "$"},
    "property pattern": lambda text: {
        "type": "object",
        "patternProperties": {f"^{re.escape(text)}$": {"const": 1}},
        "additionalProperties": False,
        "minProperties": 1,
    },
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_schema_may_spell_any_special_token(vocabulary, spelling):
    names = ["<|im_end|>", "<|im_start|>", "<|eot_id|>", "<|reserved_special_token_9|>", *llama3.TAGS.values()]
    for number, name in enumerate(names):
        schema = SPELLINGS[spelling](name)
        written = walk(vocabulary, json_constraint(schema), seed=number)
        assert Validator(schema).problem(json.loads(written)) is None, written
        assert name in json.dumps(json.loads(written))


@pytest.mark.parametrize("spelling", ["const", "enum", "key"])
def test_arguments_may_spell_any_special_token(vocabulary, spelling):
    for number, name in enumerate(("<|im_end|>", "<tool_call>", "</tool_call>", "<tools>")):
        schema = {"type": "object", "properties": {"a": SPELLINGS[spelling](name)}, "required": ["a"]}
        functions = parse_functions([{"name": "f", "parameters": schema}])
        written = walk(vocabulary, tools_constraint(functions, "required"), seed=number)
        reading = read_tool_calls(written, {"f": schema})
        assert reading.bad == ()
        assert name in json.dumps(reading.calls[0].arguments)


def walk(vocabulary, constraint, seed, most=400):
    """A text that the grammar allows, of tokens drawn at random until it may end; then it is cut off."""
    matcher, draw, ids = vocabulary.matcher(constraint), random.Random(seed), []
    while len(ids) < most:
        able = allowed(matcher)
        if llama3.EOT in able:
            return vocabulary.tokenizer.decode(ids)
        assert able, f"no token after {vocabulary.tokenizer.decode(ids)!r}"
        ids.append(draw.choice(able))
        assert matcher.consume_token(ids[-1]), f"{vocabulary.tokenizer.decode(ids)!r} was allowed, then rejected"
    raise AssertionError(f"no end: {vocabulary.tokenizer.decode(ids)!r}")


@pytest.mark.parametrize("choice", ["auto", "none"])
def test_an_added_token_that_is_text_to_transformers_may_stand_in_prose(vocabulary, choice):
    ids = vocabulary.ids("<scratch_pad>a < b</scratch_pad> So")
    matcher = vocabulary.matcher(tools_constraint(FUNCTIONS, choice))
    taken = matcher.try_consume_tokens(ids)
    assert (taken == len(ids)) == (vocabulary.form != "special"), "a special token is none of the prose"


@pytest.mark.parametrize("role", ["user", "system", "assistant", "tool"])
def test_what_a_caller_types_is_text_but_for_tags_in_turns_that_are_not_the_users(vocabulary, role):
    names = [*llama3.NAMES.values(), "<|reserved_special_token_7|>", *llama3.TAGS.values()]
    ids = vocabulary.chatml.encode_turn(Message(role, "".join(names)))
    added = [token for token in ids if token >= llama3.BEGIN]
    tags = [] if role == "user" or vocabulary.form == "absent" else [*llama3.TAGS]
    assert sorted(added) == sorted([llama3.IM_START, *tags, llama3.IM_END])
    assert vocabulary.tokenizer.decode(ids) == f"<|im_start|>{role}\n{''.join(names)}<|im_end|>\n"


def test_the_model_ends_a_response_in_three_ways(vocabulary):
    assert sorted(vocabulary.ends) == sorted(llama3.ENDS)
