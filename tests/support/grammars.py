"""llguidance in the place of the engine: with a token for each byte, and with the real vocabulary."""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
from llguidance import LLMatcher, LLTokenizer
from tokenizers import Tokenizer

from hermes.json_schema.grammar import Rewriting, enforceable
from hermes.json_schema.lark import LarkRules
from hermes.json_schema.limits import dialect
from tests.support import llama3

CLOSING = '"}],0'  # drawn more often, so that texts end


@dataclass(frozen=True)
class Encoding:
    """A tokenizer of the engine, and the ids of a text."""

    engine: LLTokenizer
    ids: Callable[[str], list[int]]


BYTES = Encoding(LLTokenizer("byte"), lambda text: list(text.encode()))


@cache
def vocabularies():
    """Bytes, and that of Llama 3 where it can be had: tests/engine/test_vocabulary.py skips and says so."""
    try:
        spec = (llama3.without_weights("absent") / "tokenizer.json").read_text(encoding="utf-8")
    except pytest.skip.Exception:
        return [BYTES]
    tokenizer = Tokenizer.from_str(spec)
    tokenizer.encode_special_tokens = True  # "encode" here is to split a special token like any other text
    engine = LLTokenizer(spec, eos_token=llama3.IM_END)
    return [BYTES, Encoding(engine, lambda text: tokenizer.encode(text, add_special_tokens=False).ids)]


def grammar_of(enforced):
    """The grammar of JSON alone."""
    rules = LarkRules()
    return f"start: {rules.json(enforced.schema)}{rules.text()}\n"


def matcher_of(enforced, vocabulary=BYTES):
    """A matcher of JSON that is at its beginning."""
    return matcher_at(grammar_of(enforced), vocabulary.engine)


def matcher_at(grammar, engine) -> Any:
    """A matcher of any grammar that is at its beginning."""
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
    answers = [allows(matcher_at(grammar, each.engine), text, each) for each in vocabularies()]
    assert len({*answers}) == 1, (answers, text, grammar)
    return answers[0]


def allows(matcher, text, vocabulary=BYTES):
    ids = vocabulary.ids(text)
    return matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting()


def allowed(matcher):
    """The ids of the tokens that may come next, in their order."""
    return np.flatnonzero(_mask(matcher)).tolist()


def _mask(matcher):
    return np.unpackbits(np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8), bitorder="little").astype(bool)


def write(matcher, seed, vocabulary=BYTES, most=200):
    """A random text that the grammar allows, or None when it did not end in time."""
    engine, closing = vocabulary.engine, np.array([vocabulary.ids(each)[0] for each in CLOSING])
    draw, written = random.Random(seed), []
    while len(written) < most:
        mask = _mask(matcher)
        if matcher.is_error():  # the engine finds out before it begins
            assert not written, matcher.get_error()
            return None
        assert mask.any(), f"the grammar leads nowhere after {engine.decode_bytes(written)!r}"
        if mask[engine.eos_token] and (mask.sum() == 1 or draw.random() < 0.5):
            return engine.decode_bytes(written).decode()
        mask[engine.eos_token] = False
        ending = closing[mask[closing]] if draw.random() < 0.6 else ()
        written.append(int(draw.choice(ending if len(ending) else np.flatnonzero(mask))))
        assert matcher.consume_token(written[-1])
    return None
