import pytest

from hermes.json_schema.validate import Patience, Validator
from hermes.text import shown
from tests.support.work import at_most

SLOW = "^(a|aa)+$"
LONG = "a" * 50 + "!"
PERSON = {
    "type": "object",
    "properties": {
        "age": {"type": "integer", "minimum": 0},
        "colour": {"enum": ["red", "green"]},
        "mail": {"type": "string", "format": "email", "pattern": "@"},
        "tags": {"type": "array", "items": {"type": ["string", "null"]}, "uniqueItems": True},
        "home": {"$ref": "#/$defs/home"},
    },
    "required": ["age"],
    "additionalProperties": False,
    "$defs": {"home": {"type": "object", "properties": {"zip code": {"type": "string"}}}},
}


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        pytest.param({"age": 4, "colour": "red", "tags": ["a", None], "home": {}}, None, id="valid"),
        pytest.param({"age": "four"}, "$.age: expected integer, got 'four'", id="type"),
        pytest.param({"age": True}, "$.age: expected integer, got true", id="a boolean is no number"),
        pytest.param({"age": 1.0}, None, id="a whole number is an integer"),
        pytest.param({"age": 4, "tags": ["a", 5]}, "$.tags[1]: expected string or null, got 5", id="several types"),
        pytest.param([1], "$: expected object, got [1]", id="the value itself"),
        pytest.param({}, "$: 'age' is missing", id="required"),
        pytest.param({"age": 4, "colour": "pink"}, "$.colour: 'pink' is not one of 'red', 'green'", id="enum"),
        pytest.param(
            {"age": 4, "extra": 1}, "$.extra: the schema does not allow this property", id="additionalProperties"
        ),
        pytest.param({"age": -1}, "$.age: -1 is less than the minimum of 0", id="another keyword"),
        pytest.param({"age": 4, "mail": "x"}, "$.mail: 'x' does not match the pattern '@'", id="pattern"),
        pytest.param({"age": 4, "mail": "@"}, None, id="formats are not asserted"),
        pytest.param({"age": 4, "tags": ["a", "a"]}, '$.tags: ["a", "a"] has the same item twice', id="uniqueItems"),
        pytest.param(
            {"age": 4, "home": {"zip code": 1}}, "$.home['zip code']: expected string, got 1", id="a name with a space"
        ),
        pytest.param({"age": "x" * 999}, f"$.age: expected integer, got '{'x' * 56}...", id="a long value is cut"),
        pytest.param({"age": "a\nb"}, r"$.age: expected integer, got 'a\nb'", id="a problem is one line"),
    ],
)
def test_a_problem_names_the_path_and_what_is_wrong(value, problem):
    assert Validator(PERSON).problem(value) == problem


@pytest.mark.parametrize(
    ("schema", "value", "problem"),
    [
        pytest.param({}, {"a": 1}, None, id="an empty schema"),
        pytest.param(
            {"patternProperties": {"^n": {"type": "integer"}}, "additionalProperties": {"type": "string"}},
            {"n1": 1, "s": 2},
            "$.s: expected string, got 2",
            id="additionalProperties go by patterns too",
        ),
        pytest.param(
            {"patternProperties": {"^n": {"type": "integer"}}},
            {"n1": "x"},
            "$.n1: expected integer, got 'x'",
            id="patterns",
        ),
        pytest.param({"uniqueItems": True}, [1, True, "1", [1], {"a": 1}, {"a": True}], None, id="1 is not true"),
        pytest.param({"uniqueItems": True}, [1, 1.0], "$: [1, 1.0] has the same item twice", id="1 is 1.0"),
        pytest.param({"enum": [1, {"a": [1]}]}, {"a": [1.0]}, None, id="enum goes by value"),
        pytest.param({"enum": [1]}, True, "$: true is not one of 1", id="true is not 1"),
        pytest.param(
            {"anyOf": [{"type": "string"}, {"properties": {"a": {"type": "integer"}}}]},
            {"a": "x"},
            "$.a: expected integer, got 'x'",
            id="the branch that nearly fits",
        ),
        pytest.param(
            {"$ref": "#/$defs/none"}, 1, "$: the schema refers to '/$defs/none', which is not in it", id="no such place"
        ),
        pytest.param({"$ref": "#"}, 1, "$: nested too deeply to be checked", id="a circle"),
        pytest.param(
            {"type": "int"},
            1,
            "$: can't be checked against the schema (SchemaProblem: $.type is not valid in a JSON schema:",
            id="an unknown type",
        ),
        pytest.param({"minimum": "x"}, 1, "$: can't be checked against the schema (SchemaProblem:", id="not a schema"),
        pytest.param({"pattern": "("}, "x", None, id="not a pattern"),
        pytest.param(
            {"multipleOf": 0.5}, 10**400, "$: can't be checked against the schema (OverflowError:", id="a huge number"
        ),
        pytest.param(
            {"unevaluatedProperties": False, "patternProperties": {SLOW: {}}},
            {},
            "$: can't be checked against the schema (NotImplementedError: unevaluatedProperties beside",
            id="patterns that would have no time limit",
        ),
    ],
)
def test_other_schemas(schema, value, problem):
    found = Validator(schema).problem(value)
    assert found == problem or (found and problem and problem.count("(") and found.startswith(problem)), found


@pytest.mark.parametrize(
    ("schema", "value", "path"),
    [
        pytest.param({"properties": {"x": {"pattern": SLOW}}}, {"x": LONG}, "$.x", id="pattern"),
        pytest.param({"not": {"items": {"pattern": SLOW}}}, [LONG], "$[0]", id="inside of a keyword that negates"),
        pytest.param({"propertyNames": {"pattern": SLOW}}, {LONG: 1}, f"$['{LONG}']", id="propertyNames"),
        pytest.param({"patternProperties": {SLOW: False}}, {LONG: 1}, f"$['{LONG}']", id="patternProperties"),
        pytest.param(
            {"additionalProperties": False, "patternProperties": {SLOW: {}}},
            {LONG: 1},
            f"$['{LONG}']",
            id="additionalProperties",
        ),
        pytest.param(
            {"items": {"$schema": "https://json-schema.org/draft/2020-12/schema", "items": {"pattern": SLOW}}},
            [[LONG]],
            "$[0][0]",
            id="a subschema that says which draft it is",
        ),
    ],
)
def test_a_pattern_that_takes_for_ever_is_a_problem_when_its_time_is_up(schema, value, path, monkeypatch):
    monkeypatch.setattr("hermes.json_schema.validate.PATTERN_SECONDS", 0.01)
    assert Validator(schema).problem(value) == f"{path}: matching its pattern takes too long"


def test_all_patterns_of_a_value_together_may_take_a_tenth_of_a_second():
    with at_most(10):  # 999 patterns, each for its own tenth, would take longer
        problem = Validator({"items": {"items": {"pattern": SLOW}}}).problem([["a", LONG] * 999])
    assert problem == "$[0][1]: matching its pattern takes too long"


def doubling(levels):
    """A schema that 5 satisfies, but only after 2**levels ways in which it does not."""
    definitions = {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(levels)}
    definitions[f"d{levels}"] = {"const": "no"}
    return {"anyOf": [{"$ref": "#/$defs/d0"}, {"type": "integer"}], "$defs": definitions}


TOO_LONG = "$: checking it against the schema takes too long"


def test_a_small_schema_of_a_billion_branches_is_a_problem_when_its_time_is_up(monkeypatch):
    assert Validator(doubling(3)).problem(5) is None
    monkeypatch.setattr("hermes.json_schema.validate.CHECK_SECONDS", 0.05)
    assert Validator(doubling(30)).problem(5) == TOO_LONG


def test_the_values_of_one_text_share_the_time_for_their_checks():
    patience = Patience(0.05)
    slow, quick = Validator(doubling(30), patience), Validator({}, patience)
    assert quick.problem(5) is None
    assert [slow.problem(5), quick.problem(5)] == [TOO_LONG] * 2


@pytest.mark.filterwarnings("ignore")  # of jsonschema, which would follow it
def test_no_reference_is_followed_out_of_the_schema(tmp_path):
    file = tmp_path / "schema.json"
    file.write_text("{}")
    problem = Validator({"$ref": file.as_uri()}).problem(1)
    assert problem == f"$: the schema refers to {shown(file.as_uri())}, which is not in it"


def test_a_value_nested_too_deeply_is_a_problem():
    value = []
    for _ in range(10_000):
        value = [value]
    assert Validator({"items": {"$ref": "#"}}).problem(value) == "$: nested too deeply to be checked"
    assert Validator({"type": "object"}).problem(value) == f"$: expected object, got {'[' * 57}..."
    assert Validator({"uniqueItems": True}).problem(value) == "$: nested too deeply to be checked"
    while value:  # or Python frees it by recursion
        value = value.pop()


def test_many_items_are_compared_in_no_time():
    items = [{"a": number} for number in range(20_000)]
    with at_most(1, all_threads=True):
        assert Validator({"uniqueItems": True}).problem(items) is None


def test_the_schema_itself_is_not_changed_and_not_kept_from_other_values():
    validator = Validator({"type": "integer"})
    assert [validator.problem(value) for value in (1, "x", 2)] == [None, "$: expected integer, got 'x'", None]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("it's", '"it\'s"'),
        ("a\u2028b", r"'a\u2028b'"),
        ("x" * 99, f"'{'x' * 56}..."),
        ({"é": [None, True, 1.5]}, '{"é": [null, true, 1.5]}'),
        (["a\u2028b"], '["a b"]'),
        (["\ud83d"], r'["\ud83d"]'),
        ([10**5_000], "a number of very many digits"),
        ([list(range(99))], "[[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 1..."),
    ],
)
def test_a_value_is_shown_on_one_short_line_that_can_be_encoded(value, text):
    assert shown(value) == text
