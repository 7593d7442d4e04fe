"""Grammars are tried with the model's tokenizer before the engine gets them."""

import asyncio
import re

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from hermes.chat.constraint import Constraint, calls_or_json_constraint, json_constraint, tools_constraint
from hermes.engine import GrammarRefused, grammar
from hermes.engine.grammar import Grammars, Verdict
from hermes.tool_calls.definitions import parse_functions
from tests.support.grammars import allowed, matcher_at

TAGS = ["<tool_call>", "</tool_call>"]


def tokenizer(*special):
    """A token for each byte, and some special ones."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={each: n for n, each in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>")
    made.add_special_tokens({"additional_special_tokens": list(special)})
    return made


def lark(grammars, constraint):
    return asyncio.run(grammars.lark(constraint))


def test_a_grammar_is_compiled_once(monkeypatch):
    grammars, compiled = Grammars(tokenizer(), []), []
    compiles = grammars._compiled
    monkeypatch.setattr(grammars, "_compiled", lambda lark: (compiled.append(lark), compiles(lark))[1])
    constraint = json_constraint({"type": "boolean"})
    assert {lark(grammars, constraint) for _ in range(3)} == {*compiled}
    assert len(compiled) == 1
    assert compiled[0].endswith(constraint.grammar)


def test_no_more_verdicts_are_remembered_than_are_needed(monkeypatch):
    monkeypatch.setattr(grammar, "REMEMBERED", 2)
    grammars = Grammars(tokenizer(), [])
    for number in range(5):
        lark(grammars, json_constraint({"const": number}))
    assert len(grammars._verdicts) == 2


def test_what_takes_too_long_is_refused_each_time(monkeypatch):
    monkeypatch.setattr(grammar, "COMPILE_SECONDS", 0)
    grammars = Grammars(tokenizer(), [])
    for _ in range(2):
        with pytest.raises(GrammarRefused, match=r"takes more than 0 s to make a grammar of; make it smaller"):
            lark(grammars, json_constraint({"type": "boolean"}))


def tool(name, values):
    return {"name": name, "parameters": {"type": "object", "properties": {f"p{name}{n}": {} for n in range(values)}}}


def freed(grammars, constraint):
    unenforced = asyncio.run(grammars.usable(constraint)).tools_unenforced
    return {name for name, paths in unenforced.items() if paths == ("$",)}


@pytest.mark.parametrize("tool_choice", ["auto", "required"])
def test_a_tool_that_takes_too_long_gets_free_arguments_and_the_others_keep_theirs(tool_choice, monkeypatch):
    grammars, tools = Grammars(tokenizer(), []), [tool("light", 1), tool("heavy", 1_000), tool("none", 0)]
    constraint = tools_constraint(parse_functions(tools), tool_choice)
    monkeypatch.setattr(grammar, "COMPILE_SECONDS", grammars._compiled(constraint.lark(grammars._tokens)).seconds / 3)
    with pytest.raises(GrammarRefused, match="takes more than"):
        lark(grammars, constraint)
    assert freed(grammars, constraint) == {"heavy"}
    both = calls_or_json_constraint(parse_functions(tools), {"type": "boolean"})
    assert freed(grammars, both) == {"heavy"}


def test_where_a_document_takes_too_long_no_tool_helps(monkeypatch):
    grammars, document = Grammars(tokenizer(), []), tool("", 1_000)["parameters"]
    constraint = calls_or_json_constraint(parse_functions([{"name": "f"}]), document)
    monkeypatch.setattr(grammar, "COMPILE_SECONDS", grammars._compiled(constraint.lark(grammars._tokens)).seconds / 3)
    with pytest.raises(GrammarRefused, match="takes more than"):
        asyncio.run(grammars.usable(constraint))


@pytest.mark.parametrize(
    ("sizes", "names"),
    [
        ({"a": 50, "b": 40}, ""),
        ({"a": 50, "b": 101, "c": 102}, "bc"),
        ({"a": 50, "b": 40, "c": 30}, "a"),
        ({"a": 20, "b": 60, "c": 20, "d": 50}, "bd"),
        ({"a": 90, "b": 101, "c": 90}, "abc"),
    ],
)
def test_tools_that_take_too_long_together_are_freed_from_the_costliest_on(sizes, names, monkeypatch):
    grammars = Grammars(tokenizer(), [])
    monkeypatch.setattr(grammar, "COMPILE_SECONDS", 100)
    monkeypatch.setattr(grammar, "SEARCH_SECONDS", 10_000)

    def compiled(lark):
        seconds = len({*re.findall(r"p[a-d]\d+", lark)})  # of properties, one each
        return Verdict("too long" if seconds > 100 else None, seconds)

    monkeypatch.setattr(grammars, "_compiled", compiled)
    functions = parse_functions([tool(name, size) for name, size in sizes.items()])
    assert freed(grammars, tools_constraint(functions, "auto")) == {*names}


def test_what_shows_only_at_the_first_token_is_refused():
    grammars = Grammars(tokenizer(), [])
    with pytest.raises(GrammarRefused, match=r"as where a reference leads back to itself: NoExtensionBias$"):
        lark(grammars, Constraint("response: response\n"))


@pytest.mark.parametrize("special", [TAGS, []])
def test_tags_are_tokens_where_the_model_has_them(special):
    constraint = tools_constraint(parse_functions([{"name": "f"}]), "required")
    text = lark(Grammars(tokenizer(*special), []), constraint)
    assert ("<[257]>" in text and "<[258]>" in text) == bool(special)


def test_an_end_may_be_an_ordinary_token():
    newline = sorted(pre_tokenizers.ByteLevel.alphabet()).index("Ċ")
    grammars = Grammars(tokenizer(), [newline])
    matcher = matcher_at(lark(grammars, json_constraint({"const": 1})), grammars._tokenizer)
    (digit,) = allowed(matcher)
    assert matcher.consume_token(digit)
    assert allowed(matcher) == sorted([newline, *grammars._tokenizer.eos_tokens])
