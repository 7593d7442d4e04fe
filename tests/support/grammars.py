"""llguidance with a token for each byte, in the place of the engine's tokenizer."""

import json

from llguidance import LLMatcher, LLTokenizer

from hermes.json_schema.grammar import Rewriting, enforceable
from hermes.json_schema.limits import dialect

BYTES = LLTokenizer("byte")


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
