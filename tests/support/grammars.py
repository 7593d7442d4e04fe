"""llguidance with a token for each byte, in the place of the engine's tokenizer."""

import json
import random

from llguidance import LLMatcher, LLTokenizer

from hermes.json_schema.grammar import Rewriting, enforceable
from hermes.json_schema.limits import dialect

BYTES = LLTokenizer("byte")
CLOSING = set(b'"}],0')  # drawn more often, so that texts end


def matcher_of(enforced):
    """A matcher of JSON that is at its beginning."""
    matcher = LLMatcher(BYTES, LLMatcher.grammar_from_json_schema(dict(enforced.schema)), log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    return matcher


def accepts(schema, value):
    """Whether the grammar of a schema allows the value, written as Python does."""
    return allows(matcher_of(enforceable(schema)), json.dumps(value, ensure_ascii=False))


def accepts_open(schema, value):
    """The same, of the schema as it is: with no object closed."""
    rewriting = Rewriting(schema, dialect(schema), closes=False)
    return allows(matcher_of(rewriting.enforceable()), json.dumps(value, ensure_ascii=False))


def lark_allows(lark, text):
    """Whether a grammar of the engine's kind allows the text."""
    matcher = LLMatcher(BYTES, lark, log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    return allows(matcher, text)


def allows(matcher, text):
    tokens = list(text.encode())
    return matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()


def write(matcher, seed, most=200):
    """A random text that the grammar allows, or None when it did not end in time."""
    draw, written = random.Random(seed), bytearray()
    while len(written) < most:
        mask = int.from_bytes(matcher.compute_bitmask(), "little")
        if matcher.is_error():  # the engine finds out before it begins
            assert not written, matcher.get_error()
            return None
        allowed = [token for token in range(BYTES.vocab_size) if mask >> token & 1]
        assert allowed, f"the grammar leads nowhere after {written!r}"
        if BYTES.eos_token in allowed and (len(allowed) == 1 or draw.random() < 0.5):
            return written.decode()
        closing = [token for token in allowed if token in CLOSING] if draw.random() < 0.6 else []
        token = draw.choice(closing or [token for token in allowed if token != BYTES.eos_token])
        assert matcher.consume_token(token)
        written.append(token)
    return None
