"""Grammars are tried with the model's tokenizer before the engine gets them."""

import asyncio

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from hermes.chat.constraint import json_constraint, tools_constraint
from hermes.engine import GrammarRefused, grammar
from hermes.engine.grammar import Grammars
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


def test_what_shows_only_at_the_first_token_is_refused():
    grammars = Grammars(tokenizer(), [])
    with pytest.raises(GrammarRefused, match=r"as where a reference leads back to itself: NoExtensionBias$"):
        lark(grammars, json_constraint({"$ref": "#"}))


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
