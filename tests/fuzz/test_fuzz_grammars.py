"""What the real grammar lets through: random texts, drawn token by token, are valid where nothing is left out."""

import json
from collections import Counter
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes.json_schema.grammar import enforceable
from hermes.json_schema.limits import SchemaProblem, dialect
from hermes.json_schema.validate import Validator
from tests.support.grammars import allows, matcher_of, vocabularies, write
from tests.support.hostile import TIMES, examples

pytestmark = pytest.mark.xdist_group("vocabulary")  # each process that has the real one takes 250 MB more

SCHEMAS = 200
NAMES = st.sampled_from(["a", "b", "naïve", "日本", 'q"\n', "", "x y"])
SMALL = st.integers(0, 4)
BOUNDS = st.one_of(st.integers(-20, 20), st.floats(-20, 20, width=16))
VALUES = st.one_of(st.none(), st.booleans(), st.integers(-99, 99), st.text('aé日𝔘"\\\n', max_size=4))


def some(**keywords):
    """Objects with any of the keywords."""
    return st.fixed_dictionaries({}, optional=keywords)


def objects(inner):
    return some(
        properties=st.dictionaries(NAMES, inner, max_size=3),
        additionalProperties=inner | st.just(False),
        patternProperties=st.dictionaries(st.sampled_from(["^a", "b$", "^x "]), inner, max_size=2),
        propertyNames=some(pattern=st.sampled_from(["^[ab]+$", "^a"]), type=st.just("string")),
        required=st.lists(NAMES, max_size=2, unique=True),
        maxProperties=SMALL,
        minProperties=SMALL,
    )


def schemas():
    """JSON schemas over all keywords that are taken, alone and together, sensible and not."""
    texts = some(minLength=SMALL, maxLength=st.integers(0, 9))
    patterns = some(
        pattern=st.sampled_from(["^a+$", "b", '^[^"a]{1,3}$', "\\s", "^\\D\\W\\S$", "(x|^y)", "^.$", "\\\\", "^(?=a)"]),
        format=st.sampled_from(["date", "time", "date-time", "uuid", "ipv4", "email", "colour", "regex"]),
    )
    numbers = some(
        minimum=BOUNDS, maximum=BOUNDS, exclusiveMinimum=BOUNDS, exclusiveMaximum=BOUNDS, multipleOf=st.integers(1, 3)
    )
    constants = st.one_of(some(const=VALUES), some(enum=st.lists(VALUES, min_size=1, max_size=4)))
    leaves = st.one_of(st.just({}), st.just(True), texts, patterns, numbers, constants)

    def nest(inner):
        several = st.lists(inner, min_size=1, max_size=3)
        arrays = some(items=inner, prefixItems=several, minItems=SMALL, maxItems=SMALL, uniqueItems=st.booleans())
        unions = some(anyOf=several, oneOf=several, allOf=several)
        conditions = some(
            **{"not": inner, "if": inner, "then": inner, "else": inner},
            dependentRequired=st.dictionaries(NAMES, st.lists(NAMES, max_size=2, unique=True), max_size=2),
            dependentSchemas=st.dictionaries(NAMES, inner, max_size=1),
        )
        references = st.just({"$ref": "#/$defs/shared~1part"})
        alone = st.one_of(objects(inner), arrays, unions, conditions, references)
        return st.one_of(alone, st.builds(lambda one, other: {**one, **other}, alone, alone))

    names = st.sampled_from(["object", "array", "string", "number", "integer", "boolean", "null"])
    types = st.one_of(st.none(), names, st.lists(names, min_size=1, max_size=3, unique=True))

    def typed(schema, types):
        return schema if schema is True or types is None else {**schema, "type": types}

    return st.recursive(
        st.builds(typed, leaves, types), lambda inner: st.builds(typed, nest(inner), types), max_leaves=6
    )


def test_every_text_of_the_grammar_is_valid_where_nothing_is_left_out(capsys):
    drawn = Counter()

    @given(schema=schemas(), shared=schemas(), seed=st.integers(0, 999))
    @examples(SCHEMAS)
    def check(schema, shared, seed):
        schema = {"$defs": {"shared/part": shared}, **({} if schema is True else schema)}
        try:
            enforced = enforceable(schema)
        except SchemaProblem:
            drawn["refused schemas"] += 1
            return
        drawn["schemas of which something is left out"] += bool(enforced.unenforced)
        for number in range(3):
            vocabulary = vocabularies()[-(number == 2)]  # one of three texts is of real tokens
            text = write(matcher_of(enforced, vocabulary), seed + number, vocabulary)
            drawn["texts" if text is not None else "unfinished texts"] += 1
            if text is None:
                continue
            problem = Validator(schema).problem(value := json.loads(text))
            if problem and "nested too deeply" in problem:  # a condition that leads back to itself
                continue
            assert problem is None or enforced.unenforced, (problem, schema, dict(enforced.schema), text)
            drawn["valid texts"] += problem is None
            assert dialect(schema)(schema).is_valid(value) == (problem is None), (problem, schema, text)

    check()
    with capsys.disabled():
        print(f"\ndrawn at random from the grammars of {SCHEMAS * TIMES} schemas: {dict(drawn)}")
    assert drawn["valid texts"] > SCHEMAS


ENDS = st.one_of(
    st.integers(-(10**6), 10**6), st.decimals(-2000, 2000, places=3).map(float), st.floats(-20, 20, width=16)
)
RANGES = some(minimum=ENDS, maximum=ENDS, exclusiveMinimum=ENDS, exclusiveMaximum=ENDS)
USUAL = st.one_of(
    st.integers(-(10**19), 10**19).map(str),
    st.decimals(-3000, 3000, places=4).map("{:f}".format),
    st.floats(allow_nan=False, allow_infinity=False)
    .filter(lambda value: value == 0 or 1e-270 < abs(value) < 1e307)
    .map(json.dumps),
    st.sampled_from(["1e-5", "-2.5E-7", "1.5e300", "-0.25", "0", "-0", "0.1", "1e+21"]),
)


@given(RANGES, st.sampled_from(["number", "integer"]), st.lists(USUAL, min_size=5, max_size=5), st.integers(0, 99))
@examples(200)
def test_the_grammar_of_a_range_has_the_usual_texts_of_its_numbers_and_no_others(bounds, kind, texts, seed):
    schema = {"type": kind, **bounds}
    try:
        enforced = enforceable(schema)
    except SchemaProblem:
        return
    validator, matcher = Validator(schema), matcher_of(enforced)
    ends = [f"{Decimal(str(end)):f}" for end in bounds.values()]
    for text in [*texts, *ends]:
        is_valid = validator.problem(json.loads(text)) is None
        if kind == "integer":
            assert text == "-0" or allows(matcher.deep_copy(), text) == (is_valid and text.lstrip("-").isdigit()), (
                schema,
                text,
            )
        elif "e" in text.lower() and {*bounds.values()} - {0}:
            assert is_valid or not allows(matcher.deep_copy(), text), (schema, text)
        else:
            assert allows(matcher.deep_copy(), text) == is_valid, (schema, text)
    for number in range(3):
        if text := write(matcher.deep_copy(), seed + number):
            assert validator.problem(json.loads(text)) is None, (schema, text)
