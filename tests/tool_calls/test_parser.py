"""Every shape of a tool call that the model may write, and what is read from it: the table documents the reader."""

import json
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hermes.tool_calls.judge import BadToolCall, ToolCall
from hermes.tool_calls.parser import Reading, read_tool_calls

SCHEMAS = {
    "weather": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "clock": {"type": "object", "properties": {}},
    "write": {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
    "any": {},
}
OSLO = ToolCall("weather", {"city": "Oslo"})
ROME = ToolCall("weather", {"city": "Rome"})
CALL = '{"arguments": {"city": "Oslo"}, "name": "weather"}'
OTHER = '{"name": "weather", "arguments": {"city": "Rome"}}'
SIGNATURE = json.dumps({"type": "function", "function": {"name": "any", "parameters": SCHEMAS["clock"]}})
NO_TOOL = "no tool is called 'fly'; there are: weather, clock, write, any"


def wrote(text):
    return ToolCall("write", {"text": text})


def tagged(*contents):
    return "\n".join(f"<tool_call>\n{content}\n</tool_call>" for content in contents)


def shape(name, text, found, prose=""):
    """A row: what is found (a string is the problem of a bad call), and the prose without the space around it."""
    return pytest.param(text, found, prose, id=name)


def answer(name, text):
    return shape(name, text, [], text)


SHAPES = [
    shape("the trained format", tagged(CALL), [OSLO]),
    shape("two calls", tagged(CALL, OTHER), [OSLO, ROME]),
    shape("name first", tagged(OTHER), [ROME]),
    shape("prose before and after", f"Let me see.\n{tagged(CALL)}\nOne moment.", [OSLO], "Let me see.\n\nOne moment."),
    answer("no call at all", "It is 5 < 7 and {x} is [1]."),
    answer("nothing", ""),
    # where the tags are not what they should be
    shape("no closing tag", f"<tool_call>{CALL}", [OSLO]),
    shape("no closing tag and prose behind", f"<tool_call>{CALL}\nThere.", [OSLO], "There."),
    shape("two opens and one close", f"<tool_call>{CALL}<tool_call>{OTHER}</tool_call>", [OSLO, ROME]),
    shape("an open that stutters", f"<tool_call>\n<tool_call>{CALL}</tool_call>", [OSLO]),
    shape("no opening tag", f"{CALL}</tool_call>", [OSLO]),
    shape("two closes", f"<tool_call>{CALL}</tool_call>\n</tool_call>", [OSLO]),
    shape("half a closing tag", f"<tool_call>{CALL}</tool_", [OSLO], "</tool_"),
    answer("half an opening tag", "So <tool_ca"),
    shape("two objects in one tag", tagged(f"{CALL}\n{OTHER}"), [OSLO, ROME]),
    shape("a list in one tag", tagged(f"[{CALL}, {OTHER}]"), [OSLO, ROME]),
    shape("a fence inside the tag", tagged(f"```json\n{CALL}\n```"), [OSLO]),
    shape("a fence inside a tag that stays open", f"<tool_call>\n```json\n{CALL}\n```\nDone.", [OSLO], "Done."),
    shape("a fence around the tag", f"So:\n```xml\n{tagged(CALL)}\n```\nDone.", [OSLO], "So:\n\nDone."),
    shape("a fence instead of the tag", f"So:\n```json\n{CALL}\n```\nDone.", [OSLO], "So:\n\nDone."),
    shape("a list in a fence", f"```json\n[\n{CALL},\n{OTHER}\n]\n```", [OSLO, ROME]),
    shape("function_call", f"<function_call>{CALL}</function_call>", [OSLO]),
    shape(
        "function_call, an unknown tool", '<function_call>{"name": "fly", "arguments": {}}</function_call>', [NO_TOOL]
    ),
    shape("tools", f"<tools>\n{CALL}\n{OTHER}\n</tools>", [OSLO, ROME]),
    shape("function=NAME", 'A <function=weather>{"city": "Oslo"}</function> B', [OSLO], "A  B"),
    shape(
        "function=NAME inside the tag", '<tool_call><function=weather>{"city": "Oslo"}</function></tool_call>', [OSLO]
    ),
    shape(
        "function=NAME around a call of another",
        '<function=clock>{"name": "any", "arguments": {"a": 1}}</function>',
        [ToolCall("clock", {"name": "any", "arguments": {"a": 1}})],
    ),
    shape("function=NAME around a whole call", f"<function=weather>{CALL}</function>", [OSLO]),
    shape("a wrapper that is only mentioned", f"I have <tools>, see? {CALL}", [OSLO], "I have <tools>, see?"),
    answer("the tools said back", f"<tools>{SIGNATURE}</tools>"),
    answer("the tools said back without a tag", f"I know {SIGNATURE}"),
    shape("a tool described in the tag", tagged(SIGNATURE), ["this describes a tool and does not call it"]),
    # no tag at all
    shape("bare JSON", f"So: {CALL} Done.", [OSLO], "So:  Done."),
    shape(
        "bare JSON, its arguments wrong",
        '{"name": "weather", "arguments": {"city": 5}}',
        ["$.city: expected string, got 5"],
    ),
    answer("bare JSON that names no tool is an answer", '{"name": "Ada", "arguments": {}}'),
    answer("bare JSON without arguments is an answer", '{"name": "clock"}'),
    answer("a call inside of an answer is none", f'{{"plan": [{CALL}]}}'),
    answer("a tag inside of an answer is none", json.dumps({"answer": tagged(CALL)})),
    answer("bare JSON that is broken is an answer", '{"name": "weather", "arguments": {oops}}'),
    shape(
        "a call behind a brace that stays open",
        f'A dict is {{"a": 1 ... {tagged(CALL)}',
        [OSLO],
        'A dict is {"a": 1 ...',
    ),
    shape("a call behind a quote that stays open", f'I type {{"a": "b {tagged(CALL)}', [OSLO], 'I type {"a": "b'),
    # the object is not JSON
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
    # the object is not the call that it should be
    shape("arguments as a string", tagged(r'{"name": "weather", "arguments": "{\"city\": \"Oslo\"}"}'), [OSLO]),
    shape(
        "arguments as a string that is no JSON",
        tagged('{"name": "weather", "arguments": "Oslo"}'),
        ["the string 'arguments' is not JSON: expecting value at 'Oslo'"],
    ),
    shape(
        "arguments encoded twice",
        tagged(json.dumps({"name": "weather", "arguments": json.dumps(json.dumps({"city": "Oslo"}))})),
        ['the arguments have to be an object, not \'{"city": "Oslo"}\''],
    ),
    shape(
        "arguments as a list",
        tagged('{"name": "weather", "arguments": ["Oslo"]}'),
        ['the arguments have to be an object, not ["Oslo"]'],
    ),
    shape("parameters", tagged('{"name": "weather", "parameters": {"city": "Oslo"}}'), [OSLO]),
    shape("no arguments where none are needed", tagged('{"name": "clock"}'), [ToolCall("clock", {})]),
    shape(
        "no arguments where one is needed",
        tagged('{"name": "weather"}'),
        ["it has no arguments, and $: 'city' is missing"],
    ),
    shape(
        "arguments beside the name",
        tagged('{"name": "any", "city": "Oslo"}'),
        ["'city' is no part of a call"],
    ),
    shape(
        "an argument that went astray",
        tagged('{"arguments": {"city": "Oslo"}, "days": 2, "name": "weather"}'),
        ["'days' is no part of a call"],
    ),
    shape(
        "arguments and parameters",
        tagged('{"name": "any", "arguments": {}, "parameters": {"a": 1}}'),
        ["it has both 'arguments' and 'parameters'"],
    ),
    shape(
        "arguments outside of the function",
        tagged('{"function": {"name": "any"}, "arguments": {"a": 1}}'),
        ["'function' is no part of a call"],
    ),
    shape("the name in the arguments", tagged('{"arguments": {"name": "weather", "city": "Oslo"}}'), [OSLO]),
    shape("the call in the arguments", tagged(f'{{"arguments": {CALL}}}'), [OSLO]),
    shape(
        "OpenAI's shape",
        tagged(
            r'{"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{\"city\": \"Oslo\"}"}}'
        ),
        [OSLO],
    ),
    shape("no name", tagged('{"arguments": {"city": "Oslo"}}'), ["it names no tool"]),
    shape(
        "a name that is none",
        tagged('{"name": ["weather"], "arguments": {}}'),
        ["'name' has to be a string, not [\"weather\"]"],
    ),
    shape("an unknown tool", tagged('{"name": "fly", "arguments": {}}'), [NO_TOOL]),
    shape(
        "arguments that the schema refuses",
        tagged('{"name": "weather", "arguments": {"city": "Oslo", "days": "two"}}'),
        ["$.days: expected integer, got 'two'"],
    ),
    shape(
        "a name that needs escaping",
        tagged('{"name": "a\\n</tool_response>", "arguments": {}}'),
        ["no tool is called 'a\\n</tool_response>'; there are: weather, clock, write, any"],
    ),
]
TEXTS = [row.values[0] for row in SHAPES]


def read(text, cut=False):
    """All that is found, in its order, and the prose."""
    reading = read_tool_calls(text, SCHEMAS, cut)
    return list(reading.found), reading.text


@pytest.mark.parametrize(("text", "found", "prose"), SHAPES)
def test_a_shape_is_read(text, found, prose):
    read_found, read_prose = read(text)
    assert [each.problem if isinstance(each, BadToolCall) else each for each in read_found] == found
    assert read_prose.strip() == prose


fragments = st.sampled_from(
    [
        *("<tool_call>", "</tool_call>", "<tools>", "</tools>", "<function=any>", "</function>"),
        *("<tool_", "call>", "<"),
        *("{", "}", "[", "]", ":", ",", '"', "'", "\\", "\n", " ", "```", "```json", "1", "-", "1e9", "true", "None"),
        *('"name"', '"arguments"', "'any'", '"any"', "x", "é", "🌧", "\\u12", "\\'", "\x00", "\ud83d", CALL, OTHER),
        *('{"name": "any", "arguments": ', '{"a": "', "{'a': '", '"</tool_call>"', '"\\"'),
    ]
)
nasty = st.lists(fragments, max_size=30)


@settings(max_examples=120, deadline=None)
@given(nasty, st.booleans())
def test_no_text_breaks_the_reader(parts, cut):
    found, _ = read("".join(parts), cut)
    assert all(len(each.problem.splitlines()) == 1 for each in found if isinstance(each, BadToolCall))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.dictionaries(st.text(), json_values, max_size=4), max_size=3), st.booleans())
def test_any_arguments_in_the_trained_format_come_back_as_they_were(several, ascii_only):
    texts = [json.dumps({"arguments": each, "name": "any"}, ensure_ascii=ascii_only) for each in several]
    calls = tuple(ToolCall("any", each) for each in several)
    assert read_tool_calls(tagged(*texts), SCHEMAS) == Reading(calls, "")


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(st.text(), json_values, max_size=4))
def test_any_arguments_written_as_python_come_back_as_they_were(arguments):
    text = repr({"name": "any", "arguments": arguments})
    if "\\x" not in text and "\\U" not in text:  # escapes of Python that JSON does not have are not read
        assert read(tagged(text))[0] == [ToolCall("any", arguments)]


@pytest.mark.parametrize(
    ("text", "bad"),
    [
        pytest.param("<tool_call>", "<tool_call>", id="after the tag"),
        pytest.param("<tool_call>\nwea", "<tool_call>\nwea", id="before the object"),
        pytest.param(f"<tool_call>{CALL[:-1]}", CALL[:-1], id="before the last brace"),
        pytest.param("<tool_call>" + CALL[:20], CALL[:20], id="inside of a string"),
        pytest.param("<tool_call>{'a': '</tool_call> b", "{'a': '</tool_call> b", id="behind a tag in a string"),
        pytest.param(f"<tools>{CALL[:-1]}", CALL[:-1], id="another wrapper"),
        pytest.param(OTHER[:-1], OTHER[:-1], id="no tag"),
    ],
)
def test_a_call_that_max_tokens_cut_off_is_never_completed(text, bad):
    found, _ = read(f"{tagged(OTHER)}\n{text}", cut=True)
    assert found[0] == ROME
    assert [(each.text, each.problem) for each in found[1:]] == [(bad, "cut off before its end")]


def test_a_call_that_was_finished_before_max_tokens_is_a_call():
    assert read(f"<tool_call>{CALL}", cut=True)[0] == [OSLO]
    assert read(tagged(CALL[:-1]), cut=True)[0] == [OSLO]


def test_an_answer_that_max_tokens_cut_off_is_an_answer():
    assert read('{"plan": [{"name": "weather", "arguments": {', cut=True) == (
        [],
        '{"plan": [{"name": "weather", "arguments": {',
    )


def test_a_bad_call_says_which_tool_it_names_where_that_can_be_seen():
    texts = [
        '{"name": "weather", "arguments": {}}',
        '{"arguments": {"name": "Bob", city}, "name": "weather"}',
        '{"name": "fly", "arguments": {}}',
        "weather",
    ]
    assert [bad.name for bad in read_tool_calls(tagged(*texts), SCHEMAS).bad] == ["weather", "weather", "fly", None]


def test_what_is_kept_of_a_bad_call_is_cut():
    (bad,) = read_tool_calls(tagged('{"name": "' + "x" * 999 + '", "arguments": {}}'), SCHEMAS).bad
    assert len(bad.text) < 210
    assert len(bad.problem) < 310
    assert bad.name == "x" * 128


def test_more_calls_than_a_context_holds_are_not_read():
    found, prose = read("A" + f"<function=any>{'{}' * 600}</function>" * 3 + "B")
    assert found[:1000] == [ToolCall("any", {})] * 1000
    assert [bad.problem for bad in found[1000:]] == ["more than 1000 calls; the rest is not read"]
    assert prose == "A"


def begun(text):
    return '<tool_call>{"name": "any", "arguments": {"a": ' + text


HOSTILE = [
    *("<tool_call>", '<tool_call>{"a":', "<tool_call>{'a': '", '<tool_call>{\\"', "<tools>", "<", "</tool_call>"),
    *("{", "[", '"', "'", "\\", "`", '{"a":', '{"a": "', "{}", "[],", "<tool_call>{}", "<tool_call>[", CALL),
]
HOSTILE_ARGUMENTS = ["[", "{", '"', "\\", "1", "1,", "[],", '"",', "'\"", "x", "<", " ", '{"a":', "</tool_call>"]


def text_of(fragment, size):
    return fragment * (size // len(fragment))


def cpu_seconds(text):
    """Processor time to read a text; that of other programs does not count."""
    before = time.process_time()
    read(text)
    return time.process_time() - before


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(text_of("<tool_call>", 1_000_000), id="open tags"),
        pytest.param(text_of('{"a":', 1_000_000), id="nested objects"),
        pytest.param(begun("1" + text_of("0", 1_000_000) + "}}</tool_call>"), id="an integer"),
        pytest.param(begun('"' + text_of("a", 1_000_000)), id="a string that stays open"),
        pytest.param(begun('"' + text_of("\\", 1_000_000)), id="backslashes"),
    ],
)
def test_a_megabyte_that_was_meant_to_hang_the_server_takes_less_than_a_second(text):
    assert cpu_seconds(text) < 1


def test_reading_time_grows_no_faster_than_the_text():
    def seconds(length):
        texts = [text_of(each, length) for each in HOSTILE]
        return sum(map(cpu_seconds, texts + [begun(text_of(each, length)) for each in HOSTILE_ARGUMENTS]))

    assert min(seconds(60_000) for _ in range(2)) < 3.5 * min(seconds(30_000) for _ in range(2))
