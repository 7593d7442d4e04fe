"""Inputs that nobody means well with: texts, JSON values, conversations, tools and schemas.

The tests here run a bounded number of examples, always the same. `make test-long` runs many times as many, and others.
"""

import json
import os
from itertools import chain

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

quiet = pytest.mark.filterwarnings(
    "ignore:Possible (nested set|set):FutureWarning",  # of patterns
    "ignore:Automatically retrieving remote references",  # of jsonschema, which is kept from it
    "ignore:Generating overly large repr",  # of hypothesis
)

TIMES = int(os.environ.get("FUZZ_EXAMPLES", "1"))  # how many times the examples of the bounded run


def examples(number):
    """The settings of a test: the same examples each time, unless there are more than usual."""
    return settings(
        max_examples=number * TIMES,
        derandomize=TIMES == 1,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )


def nested(kind, depth):
    """A value nested so deeply that json could not have read it."""
    value = None
    for _ in range(depth):
        value = [value] if kind == "list" else {"a": value}
    return value


CONTROL = ["<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|eot_id|>", "<|endoftext|>"]
TAGS = [
    *("<tool_call>", "</tool_call>", "<tools>", "</tools>", "<function=any>", "</function>", "<function_call>"),
    *("<tool_response>", "</tool_response>", "</schema>", "<tool_", "call>", "<", "</"),
]
WORDS = [
    *("{prompt}", "{system_prompt}", "{{ x }}", "{% for x in y %}", "{%", "%}", "{0}", "{", "}", "system\n", "user\n"),
    *("\x00", "\x1b[31m", "\x7f", "\x85", "\r\n", "\u2028", "\u200b", "\u200d", "\u202e", "\ufeff", "e\u0301"),
    *("\ud800", "\udfff", "\ud83d", "\\ud83d", "\\u12", "\\", '"', "'", ",", "```json", "\n", " "),
    *("é", "東", "\U0010ffff", "👩‍👩‍👧"),
]
NUMBERS = [0, -1, 1, 2**53, 2**63, 2**64, 10**400, 0.0, -0.0, 1e308, 5e-324]
NO_NUMBERS = [float("nan"), float("inf"), float("-inf")]

any_text = st.text(st.characters())  # surrogates, too
words = st.sampled_from(CONTROL + TAGS + WORDS)
mixed = st.lists(words | st.text(st.characters(), max_size=5), max_size=12).map("".join)
long = st.builds(lambda text, size: text * (size // len(text)), words, st.sampled_from([1_000, 30_000, 1_000_000]))
texts = mixed | any_text | long
clean = mixed.map(lambda text: text.encode(errors="ignore").decode())  # no surrogates
deep = st.builds(nested, st.sampled_from(["list", "dict"]), st.sampled_from([30, 70, 330, 990, 10_000]))
huge = st.sampled_from([1, -1]).map(lambda sign: sign * 10**5_000)  # Python refuses to write it
numbers = st.integers() | st.floats() | st.sampled_from(NUMBERS + NO_NUMBERS) | huge
scalars = st.none() | st.booleans() | numbers | mixed
json_values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(mixed, inner, max_size=4), max_leaves=8
)
anything = json_values | deep | long


def as_json(value):
    try:
        return json.dumps(value)
    except (ValueError, RecursionError):
        return "null"


json_texts = (json_values | deep).map(as_json)


def sometimes(usual, unusual=anything):
    """What is meant to be there, and now and then something else."""
    return st.integers(0, 9).flatmap(lambda number: unusual if number == 7 else usual)


def objects(always, /, **optional):
    """Objects with some keys and perhaps others, one of them unknown now and then."""
    return st.fixed_dictionaries(always, optional={**optional, "surplus": scalars})


names = sometimes(st.sampled_from(["f", "any", "weather"]), texts)
arguments = sometimes(st.dictionaries(mixed, json_values, max_size=3)) | texts | st.just('{"a": [1, "é"]}')
parts = objects({"type": sometimes(st.just("text")), "text": sometimes(clean)})
contents = sometimes(clean | st.lists(parts, max_size=3))
calls = sometimes(
    objects({"function": sometimes(objects({"name": names, "arguments": arguments}))}, id=sometimes(names))
    | objects({"name": names, "arguments": arguments})
)
asked = objects({"role": sometimes(st.sampled_from(["user", "system", "assistant"])), "content": contents})
asked_of_tools = objects(
    {"role": st.just("assistant"), "tool_calls": sometimes(st.lists(calls, min_size=1, max_size=3))},
    content=sometimes(clean),
)
answered = objects(
    {"role": st.just("tool"), "content": sometimes(contents, json_values)},
    tool_call_id=sometimes(st.none(), names),
    name=sometimes(st.none(), names),
)
turns = st.one_of(
    st.lists(asked, min_size=1, max_size=3),
    st.builds(lambda call, result: [call, result], asked_of_tools, answered),
    st.lists(sometimes(asked | asked_of_tools | answered), max_size=3),
)
last = objects({"role": st.just("user"), "content": clean})  # most conversations have to end with it
conversations = st.builds(
    lambda several, end: [*chain(*several), *end],
    st.lists(turns, max_size=3),
    sometimes(last.map(lambda turn: [turn]), st.just([])),
)


def name_of(tool):
    """Two functions of one name are refused."""
    function = tool.get("function", tool) if isinstance(tool, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    return name if isinstance(name, str) else id(tool)


# Schemas: keywords with values that belong there and values that do not.
PATTERNS = [
    *("^a+$", "(a|aa)+$", "(a+)+$", r"\d{3}", r"[^\w\s]", "(?=a)", "(?i)a", "(?P<n>a)(?P=n)", "[[a]", "a{99999}"),
    *("(", "[", "(?P<a b>c)", r"\ud800", "[\ud800-\udfff]", "\x00", "((((a))))", "a{2,1}", "a**", "[z-a]", "(?s:.)"),
    *("$^", "|", ""),
]
patterns = st.sampled_from(PATTERNS) | st.lists(st.sampled_from([*PATTERNS, "\\", "*", "{", "é"]), max_size=6).map(
    "".join
)
counts = sometimes(st.integers(0, 5), scalars)
references = sometimes(
    st.sampled_from(["#", "#/$defs/a", "#/$defs/b", "#/properties/a", "#/enum/0", "file:///x", "#a"]), texts
)
types = st.sampled_from(["object", "array", "string", "number", "integer", "boolean", "null"])


def keywords(inner):
    """Schemas that hold others: what belongs together, or a few keywords of any kind."""
    by_name = st.dictionaries(st.sampled_from(["a", "b"]) | mixed, inner, max_size=3)
    required = sometimes(st.lists(st.sampled_from(["a", "b"]) | mixed, max_size=3))
    several = st.lists(inner, max_size=3)
    known = {
        "type": sometimes(types | st.lists(types, max_size=3)),
        "properties": sometimes(by_name),
        "required": required,
        "prefixItems": several,
        "enum": sometimes(st.lists(json_values, max_size=4)),
        "const": anything,
        "$ref": references,
        "pattern": sometimes(patterns),
        "format": sometimes(st.sampled_from(["date", "uuid", "email", "made up"])),
        "patternProperties": st.dictionaries(patterns, inner, max_size=2),
        "description": texts,
        "$schema": scalars | st.just("https://json-schema.org/draft/2020-12/schema"),
        **dict.fromkeys(["$defs", "definitions"], by_name),
        **dict.fromkeys(["anyOf", "oneOf", "allOf"], several),
        **dict.fromkeys(["additionalProperties", "items", "not", "if", "contains", "unevaluatedProperties"], inner),
        **dict.fromkeys(["minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"], counts),
        **dict.fromkeys(["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"], numbers),
        **dict.fromkeys(["uniqueItems", "$id"], scalars),
    }
    few = st.lists(st.sampled_from(list(known)), max_size=3, unique=True).flatmap(
        lambda chosen: st.fixed_dictionaries({name: known[name] for name in chosen})
    )
    closed = st.booleans() | inner
    return st.one_of(
        few,
        objects({"type": st.just("object")}, properties=by_name, required=required, additionalProperties=closed),
        objects({"type": st.just("array"), "items": inner}, minItems=counts, maxItems=counts, prefixItems=several),
        objects({"type": st.just("string")}, pattern=patterns),
        objects({"type": st.just("string")}, minLength=counts, maxLength=counts),
        objects({"type": st.sampled_from(["number", "integer"])}, minimum=numbers, exclusiveMaximum=numbers),
        objects({"anyOf": several}),
        objects({"$ref": references}, **{"$defs": by_name}),
    )


leaves = st.booleans() | st.builds(lambda name: {"type": name}, types) | st.just({}) | st.just({"$ref": "#/$defs/a"})
schemas = st.recursive(leaves, keywords, max_leaves=6)
any_schema = sometimes(schemas)


def doubled(levels, leaf):
    """A small schema with 2**levels branches: each definition refers to the next one twice."""
    definitions = {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(levels)}
    return {"$ref": "#/$defs/d0", "$defs": {**definitions, f"d{levels}": leaf}}


parameters = sometimes(
    objects({"type": st.just("object")}, properties=st.dictionaries(st.sampled_from(["a", "b"]), leaves, max_size=2)),
    schemas,
)
functions = objects({"name": names}, description=sometimes(clean), parameters=parameters)
tools = sometimes(
    st.lists(
        sometimes(functions | objects({"type": sometimes(st.just("function")), "function": functions})),
        max_size=3,
        unique_by=name_of,
    ),
    st.lists(anything, max_size=3),
)
