"""The reader finds tool calls in the text of a model, whatever stands around them. The table has every shape."""

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hermes.tool_calls.judge import BadToolCall, ToolCall
from hermes.tool_calls.parser import Reading, read_tool_calls
from tests.support.tool_texts import CALL, NO_TOOL, OSLO, OTHER, ROME, SCHEMAS, answer, read, read_shape, shape, tagged

SIGNATURE = json.dumps({"type": "function", "function": {"name": "any", "parameters": SCHEMAS["clock"]}})

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
    shape("a closing tag before the first opening one", f"{CALL}{OTHER}</tool_call>{tagged(CALL)}", [OSLO, ROME, OSLO]),
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
]


@pytest.mark.parametrize(("text", "found", "prose"), SHAPES)
def test_a_shape_is_read(text, found, prose):
    assert read_shape(text) == (found, prose)


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


@pytest.mark.parametrize(
    "prose",
    [
        pytest.param(f"\n\nThe call is:\n```json\n{CALL}\n```", id="an example in a fence"),
        pytest.param(f"\n\ndef call():\n    return {CALL}\n", id="in a program"),
        pytest.param(f" I called it with {CALL}.", id="in a sentence"),
    ],
)
def test_an_object_without_a_tag_is_no_call_where_the_model_has_written_tags(prose):
    """Seen of SmolLM2 on questions of BFCL: it explains its call, and three calls were read where it made one."""
    found, text = read(tagged(OTHER) + prose)
    assert (found, text.strip()) == ([ROME], prose.strip())
    found, text = read(prose + "\n" + tagged(OTHER))
    assert (found, text.strip()) == ([ROME], prose.strip())
    found, _ = read(f"{tagged(OTHER)}\n{CALL[:-1]}", cut=True)
    assert found == [ROME]


def test_a_call_whose_opening_tag_was_forgotten_is_one():
    found, _ = read(f"{tagged(OTHER)}\n\n{OTHER}\n</tool_call>")
    assert found == [ROME, ROME]


def test_a_call_without_any_tag_that_max_tokens_cut_off_is_told():
    found, _ = read(OTHER[:-1], cut=True)
    assert [(each.text, each.problem) for each in found] == [(OTHER[:-1], "cut off before its end")]
