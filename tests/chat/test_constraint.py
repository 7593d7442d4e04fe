"""The grammars for the engine: what they let through, and what they look like where the engine needs it so."""

import json
import time

import pytest

from hermes.chat.constraint import SpecialTokens, calls_or_json_constraint, json_constraint, tools_constraint
from hermes.errors import BadJsonSchema
from hermes.tool_calls.definitions import parse_functions
from tests.support.grammars import lark_allows

pytestmark = pytest.mark.xdist_group("vocabulary")  # each process that has the real one takes 250 MB more

CLOCK = {"name": "clock"}
WEATHER = {
    "name": "weather",
    "parameters": {
        "type": "object",
        "properties": {"city": {"$ref": "#/$defs/city"}, "days": {"type": "integer"}},
        "required": ["city"],
        "$defs": {"city": {"enum": ["Oslo", "Rome"]}},
    },
}
FUNCTIONS = parse_functions([CLOCK, WEATHER])


def call(name, **arguments):
    return f"<tool_call>\n{json.dumps({'arguments': arguments, 'name': name})}\n</tool_call>"


OSLO, TIME = call("weather", city="Oslo"), call("clock")
TEXTS = ["", "Hello <tool_cal", "a </tool_call> b", OSLO, TIME, f"So: {OSLO}\n{TIME} Done.", f"{OSLO} then"]
NEVER = [
    call("weather", city="Paris"),
    call("weather"),
    call("clock", city="Oslo"),
    "<tool_call>",
    OSLO[:-3],
    "a <tool_call> b",
]


SPECIAL = [SpecialTokens(), SpecialTokens({"<tool_call>": 256, "</tool_call>": 257}, visible=(258,), ends=(259,))]
ALONE = [OSLO, TIME, f"{OSLO}\n{TIME}", "\n".join([OSLO, TIME] * 2)]
MORE = ["\n".join([OSLO] * 5), f"{OSLO}{TIME}", f"{OSLO}\n", f"\n{OSLO}"]  # than is wanted where calls stand alone


@pytest.mark.parametrize("special", SPECIAL, ids=["text", "tokens"])
@pytest.mark.parametrize(
    ("tool_choice", "parallel", "texts"),
    [
        ("auto", True, [*TEXTS, *ALONE, *MORE]),
        ("auto", False, [*TEXTS[:3], OSLO, TIME, *ALONE[:2], MORE[3]]),
        ("none", True, TEXTS[:3]),
        ("none", False, TEXTS[:3]),
        ("required", True, [OSLO, TIME, *ALONE]),
        ("required", False, [OSLO, TIME, *ALONE[:2]]),
        ("clock", True, [TIME, TIME]),
        ("clock", False, [TIME, TIME]),
        ("weather", True, [OSLO, OSLO]),
    ],
)
def test_a_call_that_begins_is_valid_and_begins_and_ends_where_tool_choice_says(tool_choice, parallel, texts, special):
    lark = tools_constraint(FUNCTIONS, tool_choice, parallel=parallel).lark(special)
    assert [text for text in [*TEXTS, *ALONE, *MORE] if lark_allows(lark, text)] == texts
    assert not any(lark_allows(lark, text) for text in NEVER)
    assert ('open: "<tool_call>" | <[256]>' in lark) == (special != SPECIAL[0] and tool_choice != "none")


DOCUMENTS = ['{"say": "<tool_call>"}', "{}"]


@pytest.mark.parametrize("special", SPECIAL, ids=["text", "tokens"])
@pytest.mark.parametrize(("parallel", "calls"), [(True, [OSLO, TIME, *ALONE]), (False, [OSLO, TIME, *ALONE[:2]])])
def test_calls_or_a_document_are_one_or_the_other_from_the_first_character(parallel, calls, special):
    schema = {"type": "object", "properties": {"say": {"$ref": "#/$defs/say"}}, "$defs": {"say": {"type": "string"}}}
    lark = calls_or_json_constraint(FUNCTIONS, schema, parallel=parallel).lark(special)
    assert [text for text in [*TEXTS, *ALONE, *MORE, *DOCUMENTS] if lark_allows(lark, text)] == [*calls, *DOCUMENTS]
    mixed = [*NEVER, f"{{}}{OSLO}", f"{{}}\n{OSLO}", f"{OSLO}{{}}", " {}", '{"say": 1}', '{"say":  ""}']
    assert not any(lark_allows(lark, text) for text in mixed)


@pytest.mark.parametrize(
    ("schema", "forces"),
    [
        ({"const": "in the end"}, True),
        ({"const": "a <|im_end|> b"}, False),
        ({"properties": {"<|im_end|>": {}}}, False),
        ({"type": "string", "pattern": "<[|]im_(end)\\|>"}, False),
        ({"type": "string", "pattern": "^[a-z_]+$"}, True),
        ({"const": "<｜fin｜>"}, False),
        ({"properties": {"<｜fin｜>": {"type": "number"}}}, False),
        ({"properties": {'<"end">': {"type": "number"}}}, False),
        ({"properties": {"end": {"type": "number"}}}, True),
    ],
    ids=str,
)
def test_usual_tokens_are_forced_unless_they_may_spell_a_special_one(schema, forces):
    lark = json_constraint(schema).lark(SpecialTokens(texts=("<|im_end|>", "<｜fin｜>", '<"end">')))
    assert ("no_forcing" not in lark) == forces


def test_grammars_with_numbers_stand_beside_each_other():
    number, names = {"type": "number"}, ["first", "second", "response"]
    functions = parse_functions(
        [{"name": name, "parameters": {"properties": {name: number}, "required": [name]}} for name in names]
    )
    schema = {"properties": {"response": number, "document": {}}, "required": ["response"]}
    for grammar in (tools_constraint(functions, "required"), calls_or_json_constraint(functions, schema)):
        lark = grammar.lark(SpecialTokens())
        assert all(lark_allows(lark, call(name, **{name: -1.5e-7})) for name in names)
        assert not lark_allows(lark, call("first", second=1))
    assert lark_allows(lark, '{"response": 0.5, "document": [1]}')
    assert not lark_allows(lark, '{"document": 1}')


def test_white_space_does_not_run_on():
    lark = json_constraint({"type": "array", "items": {"type": "integer"}}).lark(SpecialTokens())
    assert lark_allows(lark, "[1, 2,\n3]")
    assert not any(lark_allows(lark, text) for text in ["[1,  2]", "[1 ,2]", "[ 1]", "[1 ]", " [1]", "[1] "])


def test_the_callers_own_options_for_the_grammar_count_for_nothing():
    schema = {
        "type": "array",
        "items": {"type": "integer"},
        "x-guidance": {"whitespace_flexible": True, "lenient": True},
    }
    lark = json_constraint(schema).lark(SpecialTokens())
    assert not lark_allows(lark, "[1,  2]")
    assert "lenient" not in lark


def nested(levels):
    return {"items": nested(levels - 1)} if levels else {}


@pytest.mark.parametrize(
    ("schema", "unenforced"),
    [
        ({"type": "file"}, ["$.properties.a.type"]),
        ({"$ref": "#/components/schemas/A"}, ["$.properties.a.$ref"]),
        ({"pattern": "(a"}, ["$.properties.a.pattern"]),
        ({"enum": [f"value {number}" for number in range(2_500)]}, ["$"]),
        ({"description": "x" * 70_000}, ["$"]),
        ({"type": "string", "minLength": 3, "maxLength": 2}, ["$.properties.a.maxLength", "$.properties.a.minLength"]),
        ({"minItems": 2**53}, ["$.properties.a.minItems"]),
        ({"if": "x"}, ["$.properties.a.if"]),
        (nested(40), ["$"]),
    ],
    ids=lambda each: str(each)[:40],
)
def test_a_tool_with_a_bad_schema_stays_usable_beside_others(schema, unenforced):
    bad = {"name": "f", "parameters": {"type": "object", "properties": {"a": schema, "b": {"type": "string"}}}}
    constraint = tools_constraint(parse_functions([bad, WEATHER]), "required")
    assert constraint.tools_unenforced == {"f": (*unenforced,), "weather": ()}
    lark = constraint.lark(SpecialTokens())
    texts = [OSLO, call("f", a="anything", b="text"), call("f"), call("weather", city="Paris")]
    assert [lark_allows(lark, text) for text in texts] == [True, True, True, False]
    assert lark_allows(lark, call("f", b=5)) == (unenforced == ["$"])


def test_tools_can_be_freed_of_their_grammars():
    constraint = tools_constraint(FUNCTIONS, "required").freed(["weather"])
    assert constraint.tools_unenforced == {"clock": (), "weather": ("$",)}
    assert lark_allows(constraint.lark(SpecialTokens()), call("weather", city="Paris"))
    assert not lark_allows(constraint.lark(SpecialTokens()), call("clock", city="Paris"))
    both = calls_or_json_constraint(FUNCTIONS, {"const": 1}, parallel=False)
    assert both.freed([]) == both


@pytest.mark.parametrize(
    ("tools", "properties", "bad"),
    [
        (60, 25, {"anyOf": [{"type": "string"}, {"type": "file"}]}),
        (4, 600, {"anyOf": [{"type": "string"}, {"type": "file"}]}),
        (2, 1_000, {"type": "file"}),
    ],
    ids=str,
)
def test_many_faults_cost_little_more_than_as_many_good_schemas(tools, properties, bad):
    def seconds(schema):
        of = {f"p{number}": schema for number in range(properties)}
        given = [{"name": f"f{n}", "parameters": {"title": f"{n}", "properties": of}} for n in range(tools)]
        functions, began = parse_functions(given), time.process_time()
        constraint = tools_constraint(functions, "auto")
        assert schema is not bad or all(constraint.tools_unenforced.values())
        return time.process_time() - began

    assert seconds(bad) < 3 * seconds({"type": "string"}) + 5


def test_a_schema_that_makes_no_grammar_is_refused():
    with pytest.raises(BadJsonSchema) as refused:
        json_constraint({"type": "object", "properties": {"a": False}, "required": ["a"]})
    assert str(refused.value) == (
        "E1007 BadJsonSchema: json_schema: $ makes no grammar: Unsatisfiable schema: required property 'a' is "
        "unsatisfiable"
    )


def test_what_is_left_out_is_named_by_tool():
    unique = {"type": "object", "properties": {"a": {"uniqueItems": True}}}
    functions = parse_functions([CLOCK, {"name": "f", "parameters": unique}])
    left_out = ("$.properties.a.uniqueItems",)
    assert tools_constraint(functions, "auto").tools_unenforced == {"clock": (), "f": left_out}
    assert json_constraint(unique).json_unenforced == left_out
    both = calls_or_json_constraint(parse_functions([{"name": "json_schema"}]), unique)
    assert (both.tools_unenforced, both.json_unenforced) == ({"json_schema": ()}, left_out)
