"""What the real grammar lets through: random texts, drawn token by token from it, satisfy the schema as it was sent."""

import json
import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from hermes.conversation.schema import narrowed
from hermes.conversation.schema_limits import SchemaProblem

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def grammar(small_model):
    return Grammar(small_model)


class Grammar:
    """xgrammar with the small model's tokens, and a random writer in the place of the model."""

    def __init__(self, folder):
        import xgrammar
        from transformers import AutoTokenizer

        self.xgrammar = xgrammar
        tokenizer = AutoTokenizer.from_pretrained(folder)
        self.size, self.end, self.decode = len(tokenizer), tokenizer.eos_token_id, tokenizer.decode
        starts = (tokenizer.decode([token])[:1] for token in range(self.size))
        self.closing = np.array([start in ('"', "}", "]", ",", "0") for start in starts])  # so that texts end
        info = xgrammar.TokenizerInfo.from_huggingface(tokenizer, vocab_size=self.size, stop_token_ids=[self.end])
        self.compiler = xgrammar.GrammarCompiler(info, max_threads=2)

    def write(self, schema, seed, most=150):
        """A random text that the grammar of the schema allows, or None when it did not end in time."""
        content = {"type": "json_schema", "json_schema": schema, "max_whitespace_cnt": 1}
        compiled = self.compiler.compile_structural_tag(json.dumps({"type": "structural_tag", "format": content}))
        matcher = self.xgrammar.GrammarMatcher(compiled)
        mask = self.xgrammar.allocate_token_bitmask(1, self.size)
        draw, tokens = random.Random(seed), []
        while len(tokens) < most:
            matcher.fill_next_token_bitmask(mask)
            bits = np.unpackbits(mask.numpy().view(np.uint8), bitorder="little")[: self.size]
            allowed = np.flatnonzero(bits)
            assert allowed.size, f"the grammar leads nowhere after {self.decode(tokens)!r}"
            if bits[self.end] and draw.random() < 0.5:
                return self.decode(tokens)
            closing = np.flatnonzero(bits & self.closing) if draw.random() < 0.6 else allowed
            token = int(draw.choice(closing if closing.size else allowed))
            if token == self.end:
                return self.decode(tokens)
            assert matcher.accept_token(token)
            tokens.append(token)
        return None


NAMES = st.sampled_from(["a", "b", "naïve", "日本", 'q"\n', "", "x y"])
SMALL = st.integers(0, 4)
BOUNDS = st.one_of(st.integers(-20, 20), st.floats(-20, 20, width=16))
VALUES = st.one_of(st.none(), st.booleans(), st.integers(-99, 99), st.text('aé日𝔘"\\\n', max_size=4))


def some(**keywords):
    """Objects with any of the keywords."""
    return st.fixed_dictionaries({}, optional=keywords)


def objects(inner):
    properties = st.dictionaries(NAMES, inner, max_size=3)
    counts = {"required": st.lists(NAMES, max_size=2, unique=True), "maxProperties": SMALL, "minProperties": SMALL}
    return some(properties=properties, additionalProperties=inner, **counts)


def schemas():
    """JSON schemas over all keywords that are taken, alone and together, sensible and not."""
    texts = some(minLength=SMALL, maxLength=st.integers(0, 9))
    patterns = some(
        pattern=st.sampled_from(["^a+$", "b", '^[^"a]{1,3}$', "\\s", "^\\D\\W\\S$", "(x|^y)", "^.$", "\\\\"])
    )
    formats = some(format=st.sampled_from(["date", "time", "date-time", "uuid", "ipv4", "email", "colour"]))
    numbers = some(minimum=BOUNDS, maximum=BOUNDS, exclusiveMinimum=BOUNDS, exclusiveMaximum=BOUNDS)
    constants = st.one_of(some(const=VALUES), some(enum=st.lists(VALUES, min_size=1, max_size=4)))
    leaves = st.one_of(st.just({}), st.just(True), texts, patterns, formats, numbers, constants)

    def nest(inner):
        arrays = some(items=inner, prefixItems=st.lists(inner, min_size=1, max_size=2), minItems=SMALL, maxItems=SMALL)
        unions = st.one_of(
            some(anyOf=st.lists(inner, min_size=1, max_size=3)),
            some(oneOf=st.lists(inner, min_size=1, max_size=2)),
            some(allOf=st.lists(inner, min_size=1, max_size=1)),
            st.just({"$ref": "#/$defs/shared~1part"}),
        )
        return st.one_of(objects(inner), arrays, unions)

    names = st.sampled_from(["object", "array", "string", "number", "integer", "boolean", "null"])
    types = st.one_of(st.none(), names, st.lists(names, min_size=1, max_size=3, unique=True))

    def typed(schema, types):
        return schema if schema is True or types is None else {**schema, "type": types}

    return st.recursive(
        st.builds(typed, leaves, types), lambda inner: st.builds(typed, nest(inner), types), max_leaves=6
    )


def test_every_text_of_the_grammar_satisfies_the_schema(grammar, capsys):
    drawn = Counter()

    @given(schema=schemas(), shared=schemas(), seed=st.integers(0, 999))
    @settings(max_examples=800, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    def check(schema, shared, seed):
        schema = {"$defs": {"shared/part": shared}, **({} if schema is True else schema)}
        try:
            narrow = narrowed(schema)
        except SchemaProblem:
            drawn["refused schemas"] += 1
            return
        for number in range(3):
            text = grammar.write(narrow, seed + number)
            drawn["valid texts" if text is not None else "unfinished texts"] += 1
            if text is not None:
                Draft202012Validator(schema).validate(json.loads(text))

    check()
    with capsys.disabled():
        print(f"\ndrawn at random from the grammars of 800 schemas: {dict(drawn)}")
    assert drawn["valid texts"] > 1000
