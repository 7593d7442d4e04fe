"""The reader takes JSON as a model writes it: with quotes and words of Python, commas too many, braces too few."""

import sys

import pytest

from hermes.tool_calls.judge import ToolCall
from hermes.tool_calls.literal import Ending, object_ending, parse
from tests.support.tool_texts import CALL, NO_TOOL, OSLO, OTHER, ROME, read_shape, shape, tagged, wrote


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": [1, -2.5e3, true, false, null, "x"]}', {"a": [1, -2500.0, True, False, None, "x"]}),
        ("{'a': [True, False, None, true, null]}", {"a": [True, False, None, True, None]}),
        (r"""{'a': 'it\'s "so" \n', "b": "it's \"so\""}""", {"a": 'it\'s "so" \n', "b": 'it\'s "so"'}),
        ("{'a': 'True, None,}'}", {"a": "True, None,}"}),
        ('{"a": [1, 2 ,\n], }', {"a": [1, 2]}),
        ('{"a": "1\n2\t3"}', {"a": "1\n2\t3"}),
        (r'{"a": "\ud83d\ude00"}', {"a": "😀"}),
        ('{"a": 1, "a": 2}', {"a": 2}),
    ],
)
def test_a_literal_is_read(text, value):
    assert parse(text) == value


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "expecting value at its end"),
        ('{"a": oops}', "expecting value at 'oops}'"),
        ('{"a" 1}', "expecting ':' delimiter at '1}'"),
        ('{"a": 1} {"b": 2}', """extra data at '{"b": 2}'"""),
        ("[,]", "expecting value at ',]'"),
        ("[1,,]", "expecting value at ']'"),
        ('{"a": Trueish}', "expecting value at 'Trueish}'"),
        ("{1: 2}", "expecting property name enclosed in double quotes at '1: 2}'"),
        ("['a' 'b']", """expecting ',' delimiter at '"b"]'"""),
        (r"""['\x41']""", r"""invalid \escape at '\\x41"]'"""),
        ("[-Infinity]", "-Infinity is no JSON value"),
        ("[__import__('os')]", """expecting value at '__import__("os")]'"""),
    ],
)
def test_what_is_no_literal_is_refused(text, problem):
    with pytest.raises(ValueError, match=r".") as refused:
        parse(text)
    assert str(refused.value) == problem


@pytest.mark.parametrize(
    ("text", "ending"),
    [
        pytest.param("{} {}", ("closed", 2, 0), id="empty"),
        pytest.param('{"a": [{}]}}', ("closed", 11, 0), id="a bracket too many"),
        pytest.param("""{"}": '{"'}.""", ("closed", 11, 0), id="brackets in strings"),
        pytest.param('{"a": "\\"}"}.', ("closed", 12, 0), id="an escaped quote"),
        pytest.param('{"<tools>": "<tools>"}.', ("closed", 22, 0), id="tags in strings"),
        pytest.param('{"a": [1 <tools>', ("tag", 9, 2), id="a tag"),
        pytest.param('{"a": <tools', ("more", 12, 1), id="half a tag"),
        pytest.param('{"a": "<tools>{" b', ("torn", 7, 1), id="a tag in a string with a word behind it"),
        pytest.param('{"a": "<tools>{" ', ("torn", 7, 1), id="a tag in a string with nothing behind it"),
        pytest.param('{"a": "<tools>{', ("torn", 7, 1), id="a tag in a string without an end"),
        pytest.param('{"a": "b', ("more", 8, 1), id="a string without an end"),
    ],
)
def test_the_end_of_an_object_is_found(text, ending):
    assert object_ending(text, 0, cut=False) == Ending(*ending)


@pytest.mark.parametrize("text", ['{"a": "<tools>{" ', '{"a": "<tools>{"', '{"a": "<tools>{'])
def test_where_a_text_was_cut_off_the_last_string_may_go_on(text):
    assert object_ending(text, 0, cut=True) == Ending("more", len(text), 1)


NOTATIONS = [
    shape(
        "Python",
        tagged("{'name': 'weather', 'arguments': {'city': 'Oslo', 'days': 2}}"),
        [ToolCall("weather", {"city": "Oslo", "days": 2})],
    ),
    shape(
        "Python's words",
        tagged("{'name': 'any', 'arguments': {'a': True, 'b': False, 'c': None}}"),
        [ToolCall("any", {"a": True, "b": False, "c": None})],
    ),
    shape(
        "a mixture",
        tagged('{\'name\': "any", "arguments": {\'a\': true, "b": None}}'),
        [ToolCall("any", {"a": True, "b": None})],
    ),
    shape("an apostrophe", tagged("{'name': 'write', 'arguments': {'text': \"what's True\"}}"), [wrote("what's True")]),
    shape(
        "quotes that are escaped",
        tagged(r"""{'name': 'write', 'arguments': {'text': 'it\'s "so", \\ \u00e9\n'}}"""),
        [wrote('it\'s "so", \\ é\n')],
    ),
    shape(
        "an apostrophe that is escaped in JSON",
        tagged(r'{"name": "write", "arguments": {"text": "it\'s"}}'),
        [wrote("it's")],
    ),
    shape(
        "a trailing comma", tagged('{"name": "any", "arguments": {"a": [1, 2, ],},}'), [ToolCall("any", {"a": [1, 2]})]
    ),
    shape("a missing brace", tagged(CALL[:-1]), [OSLO]),
    shape("two missing braces", tagged(OTHER[:-2]), [ROME]),
    shape("a missing brace and no closing tag", f"<tool_call>{OTHER[:-1]}", ["the JSON object is not finished"]),
    shape("a missing bracket", tagged('{"name": "any", "arguments": {"a": [1, 2'), ["the JSON object is not finished"]),
    shape("more was to come", tagged('{"name": "any", "arguments": {"a": 1,'), ["the JSON object is not finished"]),
    shape("a brace too many", tagged(CALL + "}"), [OSLO]),
    shape("a raw newline", tagged('{"name": "write", "arguments": {"text": "a\n\tb"}}'), [wrote("a\n\tb")]),
    shape(
        "HTML",
        tagged('{"name": "write", "arguments": {"text": "<b>AT&T</b> a < b &amp; {[\'"}}'),
        [wrote("<b>AT&T</b> a < b &amp; {['")],
    ),
    shape(
        "tags inside of a string",
        tagged('{"name": "write", "arguments": {"text": "</tool_call> <tool_call>{} </tool_call>"}}'),
        [wrote("</tool_call> <tool_call>{} </tool_call>")],
    ),
    shape(
        "unicode",
        tagged('{"name": "weather", "arguments": {"city": "東京 🌧 \\ud83d\\ude00"}}'),
        [ToolCall("weather", {"city": "東京 🌧 😀"})],
    ),
    shape(
        "half a surrogate pair",
        tagged(r'{"name": "write", "arguments": {"text": "\ud83d"}}'),
        ["this is not JSON: half of a surrogate pair in a string"],
    ),
    shape(
        "a quote that stays open",
        f'<tool_call>{{"name": "write", "arguments": {{"text": "a</tool_call>\n{tagged(CALL)}',
        ["a string in it is not closed", OSLO],
    ),
    shape(
        "an apostrophe that ends its string",
        tagged("{'name': 'write', 'arguments': {'text': 'what's up'}}", CALL),
        ["a string in it is not closed", OSLO],
    ),
    shape(
        "JSON that is escaped",
        tagged(r"{\"name\": \"clock\", \"arguments\": {}}"),
        [r"""this is not JSON: expecting property name enclosed in double quotes at '\\"name\\": \\"clock\\",'"""],
    ),
    shape("no JSON in the tag", tagged("weather(city='Oslo')"), ["there is no JSON object in the tag"]),
    shape("an empty tag", "<tool_call>\n</tool_call>", ["the tag is empty"]),
    shape("an empty tag that stays open", "Well <tool_call>", ["the tag is empty"], "Well"),
    shape("NaN", tagged('{"name": "any", "arguments": {"a": NaN}}'), ["this is not JSON: NaN is no JSON value"]),
    shape(
        "a number beyond all numbers",
        tagged('{"name": "any", "arguments": {"a": 1e999}}'),
        [ToolCall("any", {"a": sys.float_info.max})],
    ),
    shape(
        "a number of many digits",
        tagged(f'{{"name": "any", "arguments": {{"a": {10**500}}}}}'),
        ["this is not JSON: a number of 501 digits"],
    ),
    shape(
        "nested too deeply",
        tagged('{"name": "any", "arguments": {"a": %s}}' % ("[" * 99 + "]" * 99)),
        ["this is not JSON: nested more than 64 levels deep"],
    ),
    shape(
        "a good call beside broken ones",
        tagged('{"name": weather}\n' + CALL, '{"name": "fly", "arguments": {}}', OTHER),
        ["this is not JSON: expecting value at 'weather}'", OSLO, NO_TOOL, ROME],
    ),
]


@pytest.mark.parametrize(("text", "found", "prose"), NOTATIONS)
def test_a_call_in_any_notation_is_read(text, found, prose):
    assert read_shape(text) == (found, prose)
