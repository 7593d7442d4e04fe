"""llguidance in the place of the engine: with a token for each byte, and with the real vocabulary."""

import json
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
from llguidance import LLMatcher, LLTokenizer
from tokenizers import Tokenizer

from hermes.json_schema.grammar import Rewriting, enforceable
from hermes.json_schema.limits import dialect
from tests.support import llama3

BYTES = LLTokenizer("byte")


@dataclass(frozen=True)
class RealVocabulary:
    """That of Llama 3, without transformers."""

    engine: LLTokenizer
    tokenizer: Tokenizer

    def ids(self, text):
        return self.tokenizer.encode(text, add_special_tokens=False).ids


@cache
def real_vocabulary():
    """The test skips where it can't be had."""
    text = (llama3.without_weights("absent") / "tokenizer.json").read_text(encoding="utf-8")
    tokenizer = Tokenizer.from_str(text)
    tokenizer.encode_special_tokens = True  # "encode" here is to split a special token like any other text
    return RealVocabulary(LLTokenizer(text, eos_token=llama3.IM_END), tokenizer)


@cache
def vocabularies():
    """The tokenizers of the engine, each with its way from a text to ids."""
    of_bytes = BYTES, lambda text: list(text.encode())
    try:
        real = real_vocabulary()
    except pytest.skip.Exception:  # tests/engine/test_vocabulary.py says so
        return [of_bytes]
    return [of_bytes, (real.engine, real.ids)]


def grammar_of(enforced):
    """The grammar of JSON alone."""
    return LLMatcher.grammar_from_json_schema(dict(enforced.schema))


def matcher_at(grammar, engine) -> Any:
    """A matcher that is at its beginning."""
    matcher = LLMatcher(engine, grammar, log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    return matcher


def accepts(schema, value):
    """Whether the grammar of a schema allows the value, written as Python does."""
    return lark_allows(grammar_of(enforceable(schema)), json.dumps(value, ensure_ascii=False))


def accepts_open(schema, value):
    """The same, of the schema as it is: with no object closed."""
    enforced = Rewriting(schema, dialect(schema), closes=False).enforceable()
    return lark_allows(grammar_of(enforced), json.dumps(value, ensure_ascii=False))


def lark_allows(grammar, text):
    """Whether a grammar of the engine's kind allows the text. All vocabularies have to say the same."""
    answers = [allows(matcher_at(grammar, engine), ids(text)) for engine, ids in vocabularies()]
    assert len({*answers}) == 1, (answers, text, grammar)
    return answers[0]


def allows(matcher, ids):
    return matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting()


def allowed(matcher):
    """The ids of the tokens that may come next, in their order."""
    return np.flatnonzero(mask_of(matcher)).tolist()


def mask_of(matcher):
    """For each token whether it may come next, as an array."""
    return np.unpackbits(np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8), bitorder="little").astype(bool)
