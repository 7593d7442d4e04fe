"""Any JSON schema makes a grammar or an error, and any value can be checked against any schema, in bounded time."""

import json
import re

import pytest
from hypothesis import event, given
from hypothesis import strategies as st
from llguidance import LLMatcher

from hermes.chat.constraint import SpecialTokens, json_constraint
from hermes.errors import BadJsonSchema
from hermes.json_schema.validate import CHECK_SECONDS, Validator
from hermes.text import shown
from tests.support.hostile import (
    any_schema,
    anything,
    deep,
    doubled,
    examples,
    json_values,
    mixed,
    quiet,
    schemas,
    sometimes,
)
from tests.support.work import at_most

pytestmark = quiet

json_constraint({})  # the first one imports jsonschema
values = sometimes(json_values, deep)


@examples(300)
@given(sometimes(any_schema, st.dictionaries(mixed, anything, max_size=3)))
def test_any_schema_makes_a_grammar_or_an_error_of_one_line(schema):
    try:
        with at_most(4):
            constraint = json_constraint(schema)
    except BadJsonSchema as error:
        event("refused")
        text = str(error)
        assert len(text) < 800
        assert len(text.splitlines()) == 1
        text.encode()
    else:
        event("accepted")
        for written in re.findall("%json (.*)", constraint.grammar):
            assert isinstance(json.loads(written, parse_constant=pytest.fail), dict)
        assert not LLMatcher.validate_grammar(constraint.lark(SpecialTokens()))


@examples(300)
@given(any_schema, values)
def test_any_value_meets_any_schema_or_has_a_problem_of_one_line(schema, value):
    with at_most(CHECK_SECONDS + 3):
        problem = Validator(schema).problem(value)
    event("has a problem" if problem else "has none")
    assert problem is None or (problem.startswith("$") and len(problem) < 800 and len(problem.splitlines()) == 1)
    (problem or "").encode()


@examples(5)
@given(schemas.filter(lambda schema: isinstance(schema, dict)), st.integers(2, 12) | st.just(40), values)
def test_a_schema_that_doubles_takes_bounded_time(leaf, levels, value):
    with at_most(CHECK_SECONDS + 3):
        Validator(doubled(levels, leaf)).problem(value)


@examples(200)
@given(anything)
def test_any_value_is_shown_on_one_short_line(value):
    text = shown(value)
    assert len(text) <= 60
    assert len(text.splitlines()) <= 1
    text.encode()
