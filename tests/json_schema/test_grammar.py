"""Which schemas make no grammar, and in which order and how often a grammar has names."""

import pytest

from hermes.json_schema.grammar import enforceable
from hermes.json_schema.limits import SchemaProblem
from tests.support.grammars import accepts, grammar_of, lark_allows

pytestmark = pytest.mark.xdist_group("vocabulary")  # each process that has the real one takes 250 MB more

INTEGER = {"type": "integer"}


def thing(**properties):
    return {"type": "object", "properties": properties}


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        pytest.param({"type": "int"}, "$.type is not valid in a JSON schema: 'int' is not valid under", id="no type"),
        pytest.param({"$ref": "https://example.com/a"}, "$: '$ref' to 'https://example.com/a' is not in", id="remote"),
        pytest.param({"items": {"$ref": "#/$defs/a"}}, "$.items: '$ref' to '#/$defs/a' is not in", id="nowhere"),
        pytest.param(
            {"default": {"minimum": "x"}, "items": {"$ref": "#/default"}},
            "$.items: '$ref' to '#/default' does not lead to a schema",
            id="no schema",
        ),
        pytest.param(
            {"$ref": "#/$defs/a", "$defs": {"a": {"pattern": 5}}},
            "$: '$ref' to '#/$defs/a' does not lead to a schema",
            id="a holder of schemas that the draft does not know",
        ),
        pytest.param(
            {"$ref": "#/$defs/a%2Fdefault", "$defs": {"a": {"default": 5}}},
            "$: '$ref' to '#/$defs/a%2Fdefault' does not lead to a schema",
            id="an encoded way",
        ),
        pytest.param(
            {"minItems": 2**53}, "$: 'minItems' is 9007199254740992; a response holds at most 4096", id="items"
        ),
        *(
            pytest.param(schema, "$ has a wrong value for a keyword of a later draft; set $schema", id=str(schema))
            for schema in [
                {"prefixItems": "string"},
                {"properties": {"a": {"prefixItems": 5}}},
                {"dependentRequired": 5},
                {"dependentSchemas": ["a"]},
            ]
        ),
        pytest.param({"pattern": "(a"}, "$: 'pattern' '(a' is refused: missing )", id="no pattern"),
        *(
            pytest.param(
                schema | {least: low, most: high},
                f"$: {least!r} is {low} and {most!r} is {high}; nothing satisfies both",
                id=f"{least} {low} and {most} {high}",
            )
            for least, low, most, high, schema in [
                ("minLength", 5, "maxLength", 3, {}),
                ("minLength", 1, "maxLength", 0, {"type": ["string", "null"]}),
                ("minItems", 3, "maxItems", 2, {"type": "array"}),
                ("minProperties", 3, "maxProperties", 2, {"type": "object"}),
                ("minContains", 3, "maxContains", 1, {"contains": {}}),
                ("minimum", 5, "maximum", 4.5, {"type": "integer"}),
                ("minimum", 5, "exclusiveMaximum", 5, {}),
                ("exclusiveMinimum", 5, "maximum", 5, {}),
                ("exclusiveMinimum", 1, "exclusiveMaximum", 1, {"type": "number"}),
            ]
        ),
        pytest.param(
            thing(a=thing(b={"minLength": 5, "maxLength": 3})),
            "$.properties.a.properties.b: 'minLength' is 5 and 'maxLength' is 3",
            id="limits at an optional place",
        ),
        pytest.param(
            {"anyOf": [{"minimum": 1, "maximum": 0}, {"minItems": 1, "maxItems": 0}]},
            "$.anyOf[0]: 'minimum' is 1",
            id="limits in all branches",
        ),
        *(
            pytest.param(schema, f"{at}: 'pattern' '(' is refused: missing )", id=f"no pattern at {at}")
            for schema, at in [
                ({"propertyNames": {"anyOf": [{"pattern": "("}, {"pattern": "a"}]}}, "$.propertyNames.anyOf[0]"),
                ({"contains": {"pattern": "("}}, "$.contains"),
                ({"not": {"pattern": "("}}, "$.not"),
                ({"if": {"pattern": "("}, "then": {"type": "string"}}, "$.if"),
                ({"items": [{"properties": {"a": {"pattern": "("}}}]}, "$.items[0].properties.a"),
            ]
        ),
        pytest.param({"pattern": "a" * 4_001}, "it has 4001 characters; at most 4000", id="a long pattern"),
        pytest.param({"enum": [1], "type": "string"}, "$ makes no grammar: Unsatisfiable schema", id="no value"),
        pytest.param(
            {
                "$ref": "#/$defs/0",
                "$defs": {f"{n}": {"items": {"$ref": f"#/$defs/{n + 1}"}} for n in range(999)} | {"999": {}},
            },
            "is more than 50 schemas deep, with references followed",
            id="a long way",
        ),
        pytest.param(
            {
                "$ref": "#/$defs/0",
                "$defs": {f"{n}": {"allOf": [{"$ref": f"#/$defs/{n + 1}"}]} for n in range(99)} | {"99": {}},
            },
            "is more than 50 schemas deep, with references followed",
            id="a long way in place",
        ),
    ],
)
def test_what_makes_no_grammar_is_refused_with_its_place(schema, problem):
    with pytest.raises(SchemaProblem) as refused:
        enforceable(schema)
    assert problem in str(refused.value)


NOTHING = {"type": "string", "minLength": 5, "maxLength": 3}


@pytest.mark.parametrize(
    "schema",
    [
        {"anyOf": [NOTHING, INTEGER]},
        {"oneOf": [INTEGER, {**thing(a=NOTHING), "required": ["a"]}]},
        {"anyOf": [{"$ref": "#/$defs/n"}, {"allOf": [{"$ref": "#/$defs/n"}]}, INTEGER], "$defs": {"n": NOTHING}},
        {"type": "integer", "minLength": 5, "maxLength": 3},
        {"type": "integer", "minimum": 1, "maximum": 1},
    ],
    ids=str,
)
def test_limits_that_exclude_each_other_cost_no_more_than_their_branch(schema):
    assert not enforceable(schema).unenforced
    assert [accepts(schema, value) for value in (1, "a", "aaaa", "aaaaaa", {"a": ""})] == [True] + [False] * 4


@pytest.mark.parametrize(
    ("names", "required", "order"),
    [
        pytest.param("abc", "cb", "cba", id="sorted, as coglet does"),
        pytest.param("bac", "c", "bac", id="an order that is somebody's"),
        pytest.param("abc", "", "abc", id="nothing required"),
    ],
)
def test_the_order_of_properties(names, required, order):
    schema = thing(**dict.fromkeys(names, INTEGER)) | {"required": list(required)}
    assert accepts(schema, dict.fromkeys(order, 1))
    assert not accepts(schema, dict.fromkeys([order[1], order[0], order[2]], 1))


def test_a_map_does_not_run_on():
    for schema in ({"type": "object"}, {"additionalProperties": INTEGER}, {"patternProperties": {"^x": INTEGER}}):
        assert accepts(schema, {f"x{number}": 1 for number in range(64)})
        assert not accepts(schema, {f"x{number}": 1 for number in range(65)})
    assert accepts({"type": "object", "maxProperties": 65}, {f"x{number}": 1 for number in range(65)})
    assert accepts({"type": "object", "minProperties": 65}, {f"x{number}": 1 for number in range(65)})


def test_no_name_that_is_declared_is_written_twice():
    grammar = grammar_of(enforceable(thing(a=INTEGER) | {"additionalProperties": INTEGER}))
    assert lark_allows(grammar, '{"a": 1, "b": 2, "b": 3}')
    assert not lark_allows(grammar, '{"a": 1, "a": 2}')
    assert not lark_allows(grammar, '{"a": 1, "b": 2, "a": 3}')
