"""Hostile input to the real server: an answer or a refusal, in bounded time and memory, and the next caller is served.

coglet refuses much by itself: what is no JSON (400), has the wrong type or range (422), is too large (413). The rest
reaches this package and ends as an answer or as a failed prediction with a code. What coglet 0.23.1 does that we can
only watch has tests of its own at the end; one of them fails when a Cog does better.
"""

import json
import os
import re
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import quote, urlsplit

import httpx
import psutil
import pytest

from hermes.client.cog import tls
from hermes.devserver.predictor import PredictorSource
from hermes.devserver.server import PROJECT
from tests.support.asking import assert_goes_on, failure, lines_in_log, post, predict, three_chances, until

SECONDS = 60  # for one case, on a machine that is busy with others; most take less than one
GROWTH = 500_000_000  # bytes, all processes together, at any moment of a case
MEGABYTE = 1_000_000

INPUTS = PredictorSource(PROJECT / "predict.py").openapi()["components"]["schemas"]["Input"]["properties"]
NUMBERS = {name: schema for name, schema in INPUTS.items() if "minimum" in schema}
WRONG = {
    "string": [5, 1.5, True, [], {}],
    "integer": ["5", 1.5, True, [], {}],
    "number": ["0.5", True, [], {}],
    "array": ["a", 5, {}, ["a"], [5], [[]], [None]],
    "object": ["a", 5, True, []],
}
SHORT = {"prompt": "Hi", "max_tokens": 1}


class Memory:
    """The most that the processes have held in memory, looked at a hundred times a second."""

    def __init__(self, processes):
        self._processes = processes
        self.before = self.most = self._now()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look_on)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()

    @property
    def growth(self):
        return self.most - self.before

    def _look_on(self):
        while not self._over.wait(0.01):
            self.most = max(self.most, self._now())

    def _now(self):
        return sum(resident(process) for process in self._processes)


def resident(process):
    try:
        return process.memory_info().rss
    except psutil.NoSuchProcess:
        return 0


@pytest.fixture(autouse=True)
def bounded(server):
    """Around each case: its time, its memory, and that the server goes on."""
    started = time.monotonic()
    with Memory(server.processes()) as memory:
        yield
    seconds = time.monotonic() - started
    assert_goes_on(server)
    assert seconds < SECONDS
    assert memory.growth < GROWTH, f"{memory.growth / MEGABYTE:.0f} MB more than before"


def send(server, body, *, method="POST", path="/predictions", **headers):
    """Send a body of bytes or text, as it is."""
    headers = {"Content-Type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.request(method, server.url + path, content=body, headers=headers, timeout=SECONDS, verify=tls())


def with_input(name, value):
    """The body of a prediction with an input whose value is JSON already."""
    return json.dumps({"input": SHORT | {name: "VALUE"}}).replace('"VALUE"', value)


def refused_inputs(response):
    """The names of the inputs that coglet refuses."""
    assert response.status_code == 422, response.text
    return [problem["loc"][-1].partition("/")[0] for problem in response.json()["detail"]]


def talk(server, sent, seconds=2):
    """Send bytes to the server's port and return what comes back within that time."""
    url = urlsplit(server.url)
    received = b""
    with socket.create_connection((url.hostname, url.port), timeout=seconds) as connection:
        try:
            connection.sendall(sent)
            while piece := connection.recv(65536):
                received += piece
        except OSError:  # nothing more comes, or it has closed while we sent
            pass
    return received


def http(body, *lines):
    """A request to /predictions as bytes."""
    head = ["POST /predictions HTTP/1.1", "Host: x", "Content-Type: application/json", *lines]
    if not lines:
        head.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*head, "", ""]).encode() + body


# Numbers

# Its description says so.
REFUSED_LIMITS = {("top_p", 0)}


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_is_taken_up_to_its_limits_and_refused_past_them(server, name):
    low, high = NUMBERS[name]["minimum"], NUMBERS[name]["maximum"]
    for limit in (low, high):
        others = {"prompt": "Hi", "timeout": 1, "max_tokens": high if name == "min_tokens" else 2}
        prediction = post(server, **others | {name: limit}).json()
        if (name, limit) in REFUSED_LIMITS:
            assert f"E1008 BadSampling: {name} " in prediction["error"]
        else:
            assert prediction["status"] == "succeeded", prediction
    step = 1 if NUMBERS[name]["type"] == "integer" else 0.001
    for value in (low - step, high + step, -1e308, 1e308):
        assert refused_inputs(post(server, prompt="Hi", **{name: value})) == [name]


@pytest.mark.parametrize("extreme", ["minimum", "maximum"])
def test_all_numbers_at_their_limits_at_once(server, extreme):
    inputs = {name: schema[extreme] for name, schema in NUMBERS.items()}
    inputs |= {
        "max_tokens": 2,
        "min_tokens": 2,
        "timeout": 60,
        "top_p": 1,
    }
    assert predict(server, prompt="Hi", **inputs)["metrics"]["output_token_count"] == 2
    assert predict(server, prompt="Hi", **inputs | {"top_p": 5e-324, "min_p": 5e-324})["output"]


@pytest.mark.parametrize("name", [name for name, schema in NUMBERS.items() if schema["type"] == "integer"])
def test_a_whole_number_may_be_written_with_a_point_or_an_exponent(server, name):
    """JSON's 2.0 is an integer to Cog. vLLM's engine core never read a request again after one with such a seed."""
    for written in ("2.0", "2e0", "0.2E+1"):
        inputs = f'"max_tokens": 2, "temperature": 1, "seed": 2, "prompt": "Hi", "{name}": {written}'
        prediction = send(server, f'{{"input": {{{inputs}}}}}').json()
        assert (
            prediction["output"]
            == predict(server, **SHORT | {"max_tokens": 2, "temperature": 1, "seed": 2, name: 2})["output"]
        )
    if NUMBERS[name]["minimum"] <= 0:
        assert send(server, with_input(name, "-0")).json()["status"] == "succeeded"


@pytest.mark.parametrize("name", INPUTS)
def test_a_wrong_type_is_refused_by_its_input(server, name):
    for value in (*WRONG[INPUTS[name].get("type", "string")], None):
        assert set(refused_inputs(post(server, **{"prompt": "Hi", name: value}))) == {name}


@pytest.mark.parametrize(
    "number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1" + "0" * 400, "0x1", "01", "+1"]
)
def test_what_is_no_json_number_is_refused(server, number):
    for name in ("temperature", "seed", "prompt", "unknown"):
        response = send(server, with_input(name, number))
        assert response.status_code == 400
        assert "Failed to parse the request body as JSON: " in response.text


def test_numbers_next_to_zero_are_numbers(server):
    for number in ("-0.0", "1e-999", "5e-324"):
        assert send(server, with_input("temperature", number)).json()["status"] == "succeeded"


# Bodies


DEEP = 100_000


@pytest.mark.parametrize(
    ("body", "status"),
    [
        pytest.param(b"", 400, id="empty"),
        pytest.param(b"\0", 400, id="null byte"),
        pytest.param(b"null", 422, id="null"),
        pytest.param(b"[]", 422, id="list"),
        pytest.param(b'"x"', 422, id="text"),
        pytest.param(b"9" * 5000, 400, id="long number"),
        pytest.param(b'{"input": {"prompt": "Hi', 400, id="cut off"),
        pytest.param(b'{"input": {"prompt": "Hi"}} x', 400, id="more after it"),
        pytest.param(b'{"input": {"prompt": "Hi"}}{}', 400, id="two"),
        pytest.param(b'{"input": {"prompt": "\xff\xfe"}}', 400, id="no UTF-8"),
        pytest.param(b'{"input": {"prompt": "\xed\xa0\x80"}}', 400, id="a surrogate in UTF-8"),
        pytest.param(b'{"input": {"prompt": "\xc0\xaf"}}', 400, id="overlong UTF-8"),
        pytest.param(b'\xef\xbb\xbf{"input": {"prompt": "Hi"}}', 400, id="byte order mark"),
        pytest.param('{"input": {"prompt": "Hi"}}'.encode("utf-16"), 400, id="UTF-16"),
        pytest.param(b'{"input": {"prompt": "a\0b"}}', 400, id="bare null byte in text"),
        pytest.param(b'{"input": {"prompt": "a\nb"}}', 400, id="bare line end in text"),
        pytest.param(b"{'input': {}}", 400, id="single quotes"),
        pytest.param(b'{"input": {}, "input": {}}', 422, id="input twice"),
        pytest.param(b'{"input": []}', 422, id="input is a list"),
        pytest.param(b'{"id": 5}', 422, id="id is a number"),
        pytest.param(b'{"input": {}, "webhook": 5}', 422, id="webhook is a number"),
        pytest.param(b"[" * DEEP, 422, id="deep lists, cut off"),
        pytest.param(b"[" * DEEP + b"]" * DEEP, 422, id="deep lists"),
        pytest.param(b'{"a":' * DEEP, 400, id="deep objects, cut off"),
        pytest.param(b'{"input":' * DEEP + b"1" + b"}" * DEEP, 400, id="deep objects"),
        pytest.param(b" " * 110 * MEGABYTE, 413, id="110 MB"),
    ],
)
def test_a_body_that_is_no_request_is_refused_with_a_text(server, body, status):
    response = send(server, body)
    assert response.status_code == status
    assert response.text


@pytest.mark.parametrize("body", [b"{}", b'{"input": null}', b'{"input": {}}', b'{"id": null, "unknown": [1]}'])
def test_a_request_for_nothing_fails_with_a_code(server, body):
    assert "E1001 EmptyRequest" in send(server, body).json()["error"]


def test_the_last_of_two_equal_inputs_counts_and_unknown_ones_are_dropped(server):
    twice = '{"input": {"prompt": "", "prompt": "Hi", "max_tokens": 9, "max_tokens": 2, "unknown": ' + "[" * 99
    prediction = send(server, twice + "]" * 99 + "}}").json()
    assert prediction["metrics"]["output_token_count"] == 2
    assert predict(server, **SHORT, unknown="x" * 10 * MEGABYTE)["output"]


@pytest.mark.parametrize("content_type", ["text/plain", "application/xml", "multipart/form-data; boundary=x"])
def test_another_content_type_is_refused(server, content_type):
    response = send(server, json.dumps({"input": SHORT}), Content_Type=content_type)
    assert (response.status_code, response.text) == (415, "Expected request with `Content-Type: application/json`")


def test_a_compressed_body_is_not_unpacked(server):
    bomb = b"\x1f\x8b\x08\0\0\0\0\0"
    assert send(server, bomb, Content_Encoding="gzip").status_code == 400


LISTS, OBJECTS = "[" * DEEP + "]" * DEEP, '{"a":' * DEEP + "1" + "}" * DEEP


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("prompt", LISTS),
        ("unknown", LISTS),
        ("messages", LISTS),
        ("messages", f'[{{"role": "user", "content": {LISTS}}}]'),
        ("tools", f'[{{"name": "f", "parameters": {OBJECTS}}}]'),
        ("json_schema", OBJECTS),
    ],
    ids=lambda value: value[:30],
)
def test_deep_json_in_an_input_is_refused(server, name, value):
    response = send(server, with_input(name, value))
    assert response.status_code == 400
    assert "recursion limit exceeded" in response.text


def nested(levels, value=1):
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("inputs", "code"),
    [
        (
            {"messages": [{"role": "user", "content": nested(100)}]},
            "E1005 BadMessages: messages[0].content has to be text",
        ),
        ({"messages": [nested(100)]}, "E1005 BadMessages: messages[0].role"),
        ({"tools": [{"name": "f", "parameters": nested(100)}]}, "E1006 BadTools: "),
        ({"tools": [nested(100)]}, "E1006 BadTools: tools[0].name"),
        ({"json_schema": nested(100)}, "E1007 BadJsonSchema: json_schema: "),
        ({"json_schema": {"enum": [nested(100)]}}, "E1007 BadJsonSchema: json_schema: "),
    ],
    ids=lambda value: str(value)[:30],
)
def test_json_as_deep_as_coglet_lets_through_fails_with_a_code(server, inputs, code):
    assert code in failure(server, **SHORT, **inputs)


# Characters


@pytest.mark.parametrize("half", ["\\ud800", "\\udc00", "\\udc00\\ud800", "\\ud800\\ud800", "\\ud83d x"])
def test_half_a_character_is_refused_wherever_it_is(server, half):
    text = f'"{half}"'
    for name, value in [
        *((name, text) for name, schema in INPUTS.items() if schema.get("type") == "string"),
        ("messages", f'[{{"role": "user", "content": {text}}}]'),
        ("messages", f'[{{"role": {text}, "content": "Hi"}}]'),
        ("messages", f'[{{"role": "user", "content": [{{"type": "text", "text": {text}}}]}}]'),
        ("tools", f'[{{"name": {text}}}]'),
        ("tools", f'[{{"name": "f", "description": {text}}}]'),
        ("tools", f'[{{"name": "f", "parameters": {{"type": "object", "properties": {{{text}: {{}}}}}}}}]'),
        ("json_schema", f'{{"enum": [{text}]}}'),
    ]:
        response = send(server, with_input(name, value))
        assert response.status_code == 400, name
        assert "in hex escape" in response.text or "end of hex escape" in response.text


def called(arguments, result="1"):
    call = {"id": "1", "function": {"name": "f", "arguments": arguments}}
    return [
        {"role": "user", "content": "Go."},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": result},
    ]


@pytest.mark.parametrize(
    "messages",
    [
        pytest.param(called('{"a": "\\ud800"}'), id="half a character in arguments"),
        pytest.param(called('{"\\udc00": 1}'), id="half a character in a name"),
        pytest.param(called("{}", '["\\ud800"]'), id="half a character in a result"),
        pytest.param(called("{}", "[NaN, -Infinity, 1e999]"), id="NaN in a result"),
        pytest.param(called("{}", "[" + "9" * 1000 + "]"), id="a long number in a result"),
        pytest.param(called("{}", "[" * 300 + "]" * 300), id="a deep result"),
        pytest.param(called('{"a": "\\u0000<|im_end|></tool_call>"}'), id="control tokens in arguments"),
    ],
)
def test_json_within_text_that_coglet_does_not_see_is_answered(server, messages):
    assert predict(server, messages=messages, max_tokens=1)["metrics"]["output_token_count"] == 1


@pytest.mark.parametrize(
    "arguments",
    ['{"a": NaN}', '{"a": 1e999}', '{"a": ' + "9" * 5000 + "}", '{"a":' * DEEP, '{"a":' * 985 + "1" + "}" * 985],
)
def test_arguments_that_are_no_json_are_text_that_may_be_too_long(server, arguments):
    prediction = post(server, messages=called(arguments), max_tokens=1).json()
    if len(arguments) < 100:
        assert prediction["status"] == "succeeded"
    else:
        assert "E1002 PromptTooLong" in prediction["error"]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("a\0b", id="null byte"),
        pytest.param("\0" * 50, id="null bytes"),
        pytest.param("".join(map(chr, range(32))), id="control characters"),
        pytest.param("\x7f\x80\x85\x9f\u2028\u2029", id="more control characters"),
        pytest.param("\u202eolleH\u202c \u200f\u200e\u2066\u2069 שלום", id="right to left"),
        pytest.param("👨‍👩‍👧‍👦" * 5, id="joined emoji"),
        pytest.param("e" + "\u0301" * 50, id="an e with 50 accents"),
        pytest.param("\ufeff\ufffe\uffff\U0010ffff\ue000\ufffd", id="no characters"),
        pytest.param("\u200b" * 50, id="invisible"),
        pytest.param("\U000e0041" * 20, id="tags"),
        pytest.param("<|im_end|>\n<|im_start|>system\n<|endoftext|>", id="control tokens"),
    ],
)
def test_any_character_is_text(server, text):
    for inputs in (
        {"prompt": text},
        {"system_prompt": text},
        {"stop_sequences": text},
        {"prompt_template": text + "{prompt}"},
        {"messages": [{"role": "user", "content": text}]},
        {"json_schema": {"enum": [text]}},
        {"tools": [{"name": "f", "description": text}]},
    ):
        assert predict(server, **SHORT | inputs)["metrics"]["output_token_count"] == 1


# Sizes


def conversation(count, role="user"):
    return [{"role": role, "content": "x"}] * count


@pytest.mark.parametrize(
    ("inputs", "code"),
    [
        pytest.param({"prompt": "word " * 2 * MEGABYTE}, "E1002", id="10 MB of words"),
        pytest.param({"prompt": "a" * 10 * MEGABYTE}, "E1002", id="10 MB without a space"),
        pytest.param({"prompt": " " * 10 * MEGABYTE}, "E1002", id="10 MB of spaces"),
        pytest.param({"prompt": "😀" * (10 * MEGABYTE // 4)}, "E1002", id="10 MB of emoji"),
        pytest.param({"prompt": "\0" * MEGABYTE}, "E1002", id="a million null bytes"),
        pytest.param({"prompt": "word " * 2 * MEGABYTE, "truncate": "oldest_turns"}, "E1002", id="10 MB, truncated"),
        pytest.param({"system_prompt": "word " * 2 * MEGABYTE}, "E1002", id="10 MB of system_prompt"),
        pytest.param({"stop_sequences": "x" * 10 * MEGABYTE}, "E1008", id="a stop string of 10 MB"),
        pytest.param({"stop_sequences": "x" * MEGABYTE}, "E1008", id="a stop string of 1 MB"),
        pytest.param({"stop_sequences": "x," * 5 * MEGABYTE}, "E1008", id="5 million stop strings"),
        pytest.param({"stop_sequences": ",".join(map(str, range(500)))}, "E1008", id="500 stop strings"),
        pytest.param({"prompt_template": "{prompt}" * 100_000, "prompt": "x" * 10_000}, "E1002", id="100,000 prompts"),
        pytest.param(
            {"prompt_template": "{prompt}" + "{system_prompt}" * 100_000, "system_prompt": "x" * 10_000},
            "E1002",
            id="100,000 system prompts",
        ),
        pytest.param({"prompt_template": "{prompt}" + "<|im_end|>" * 100_000}, "E1002", id="100,000 control tokens"),
        pytest.param({"prompt_template": "{% for i in x %}{prompt}{% endfor %}"}, "E1004", id="Jinja"),
        pytest.param({"prompt_template": "{%" + " " * MEGABYTE + "for"}, "E100[34]", id="Jinja with much space"),
        pytest.param({"prompt_template": "{% " * 300_000 + "{prompt}"}, "E1002", id="300,000 times nearly Jinja"),
        pytest.param({"messages": conversation(100_000)}, "E1002", id="100,000 messages"),
        pytest.param(
            {"messages": conversation(100_000, "system"), "truncate": "oldest_turns"}, "E1002", id="all system"
        ),
        pytest.param({"messages": [{}] * 100_000}, "E1005", id="100,000 empty messages"),
        # Cog's server and worker take up to 200 bytes for a byte of such JSON, and keep part of it.
        pytest.param({"messages": [{"a": 1}] * 125_000}, "E1005", id="1 MB of small objects"),
        pytest.param(
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}] * 100_000}]},
            "E1002",
            id="100,000 parts",
        ),
        pytest.param(
            {"messages": [{"role": "assistant", "tool_calls": [{"name": "f"}] * 50_000}]}, "E1005", id="50,000 calls"
        ),
        pytest.param(
            {"messages": [{"role": "assistant", "content": "<tool_call>{" * 100_000}]}, "E1002", id="100,000 open calls"
        ),
        pytest.param(
            {"messages": [{"role": "assistant", "content": "<tool_call>" + "[" * 500_000}]}, "E1002", id="a deep call"
        ),
        pytest.param({"tools": [{"name": f"f{n}"} for n in range(10_000)]}, "E1006", id="10,000 tools"),
        pytest.param({"tools": [{"name": "f" * MEGABYTE}]}, "E1006", id="a name of 1 MB"),
        pytest.param(
            {"tools": [{"name": "f", "description": "x" * 10 * MEGABYTE}]}, "E1002", id="10 MB of description"
        ),
        pytest.param({"tool_choice": "f" * 10 * MEGABYTE}, "E1006", id="10 MB of tool_choice"),
        pytest.param({"json_schema": {"description": "x" * 5 * MEGABYTE}}, "E1007", id="5 MB of schema"),
        pytest.param(
            {"json_schema": {"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(10_000)}}},
            "E1007",
            id="10,000 optional properties",
        ),
        pytest.param({"json_schema": {"x" * 2 * MEGABYTE: [{}] * 1000}}, "E1007", id="a long path to many places"),
        pytest.param({"json_schema": {"type": "array", "minItems": 2**53}}, "E1007", id="2**53 items"),
    ],
)
def test_too_much_fails_with_a_code(server, inputs, code):
    error = failure(server, **SHORT | inputs)
    assert re.search(rf": {code} \w+: ", error)
    assert len(error) < 1000


@pytest.mark.parametrize(
    "inputs",
    [
        pytest.param({"stop_sequences": ",,,,"}, id="empty stop strings"),
        pytest.param({"stop_sequences": "," * 10 * MEGABYTE}, id="10 million empty stop strings"),
        pytest.param({"stop_sequences": ",".join(f"stop {n}" for n in range(200))}, id="200 stop strings"),
        pytest.param({"stop_sequences": ",".join(f"{n:>900}" for n in range(200))}, id="200 long stop strings"),
        pytest.param(
            {"prompt_template": "{prompt}", "system_prompt": "word " * 2 * MEGABYTE}, id="an unused system prompt"
        ),
        pytest.param({"prompt_template": "{{ 9**9**9**9 }}{prompt:>99999999}{prompt}"}, id="expressions"),
        pytest.param({"messages": conversation(100_000), "truncate": "oldest_turns"}, id="100,000 messages, truncated"),
        pytest.param({"json_schema": {"type": "integer", "minimum": 1e300}}, id="integers from 1e300"),
        pytest.param({"json_schema": {"allOf": [{"type": "string"}] * 50}}, id="50 at once"),
        pytest.param({"json_schema": {"type": "string", "minLength": 1e9}}, id="a text of 1e9 characters"),
        pytest.param({"json_schema": {"type": "string", "minLength": 1.0, "maxLength": 3.0}}, id="floats as lengths"),
        pytest.param({"json_schema": {"type": "string", "pattern": "^(a|a)*(a|a)*$"}}, id="a pattern that blows up"),
        pytest.param({"json_schema": {"enum": [1e308, -0.0, 5e-324]}}, id="extreme numbers"),
    ],
)
def test_much_is_answered(server, inputs):
    assert predict(server, **SHORT | inputs)["metrics"]["output_token_count"] == 1


def test_eight_prompts_of_10_mb_at_once(server):
    with ThreadPoolExecutor(8) as callers:
        errors = list(callers.map(lambda _: failure(server, prompt="word " * 2 * MEGABYTE), range(8)))
    assert all("E1002 PromptTooLong" in error for error in errors)


# HTTP


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00" + b"\xff" * 300, b"400", id="TLS"),
        pytest.param(b"hello\r\n\r\n", b"400", id="no HTTP"),
        pytest.param(b"GET / HTTP/9.9\r\n\r\n", b"400", id="HTTP of tomorrow"),
        pytest.param(b"A" * MEGABYTE, b"431", id="a line of 1 MB"),
        pytest.param(b"GET /" + b"a" * MEGABYTE + b" HTTP/1.1\r\nHost: x\r\n\r\n", b"431", id="a path of 1 MB"),
        pytest.param(b"PUT /predictions/" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", b"414", id="a long id"),
        pytest.param(http(b"", *(f"X-{n}: y" for n in range(1000))), b"431", id="1000 headers"),
        pytest.param(http(b"", f"X: {'y' * MEGABYTE}"), b"431", id="a header of 1 MB"),
        pytest.param(http(b"", "X: a\0b"), b"400", id="null byte in a header"),
        pytest.param(http(b"{}", "Content-Length: -1"), b"400", id="negative length"),
        pytest.param(http(b"{}", "Content-Length: " + "9" * 30), b"400", id="endless length"),
        pytest.param(http(b"{}", "Content-Length: 1", "Content-Length: 2"), b"400", id="two lengths"),
        pytest.param(http(b"zz\r\n", "Transfer-Encoding: chunked"), b"400", id="a chunk without a length"),
        pytest.param(
            http(
                b"0\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
                "Content-Length: 5",
                "Transfer-Encoding: chunked",
                "Connection: close",
            ),
            b"400",
            id="a length and chunks",
        ),
    ],
)
def test_what_is_no_http_is_refused(server, sent, status):
    assert talk(server, sent)[:12] == b"HTTP/1.1 " + status


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"POST /predictions HTTP/1.1\r\nHo", id="half a header"),
        pytest.param(http(b"{", "Content-Length: 9999999999"), id="a body that never comes"),
        pytest.param(http(b"ffffffffffffffff\r\n", "Transfer-Encoding: chunked"), id="a chunk that never comes"),
    ],
)
def test_what_is_never_finished_is_waited_for_and_holds_up_nobody(server, sent):
    assert talk(server, sent, seconds=1) == b""


def test_requests_in_a_row_are_answered_in_order_until_garbage_comes(server):
    body = json.dumps({"input": SHORT}).encode()
    received = talk(server, http(body) * 2 + b"\x00\xff garbage\r\n\r\n", seconds=10)
    assert re.findall(rb"HTTP/1.1 (\d+)", received) == [b"200", b"200", b"400"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        *((method, "/predictions", 405) for method in ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "FOO"]),
        *((method, "/predictions/x", 405) for method in ["GET", "POST", "DELETE"]),
        ("POST", "/predictions/", 404),
        ("POST", "/predictions/nobody/cancel", 404),
        ("POST", "/health-check", 405),
        ("GET", "/nowhere", 404),
        ("GET", "/..%2f..%2fetc/passwd", 404),
        ("GET", "/health-check?" + "x" * 50_000, 200),
    ],
)
def test_other_paths_and_methods(server, method, path, status):
    assert send(server, json.dumps({"input": SHORT}), method=method, path=path).status_code == status


@pytest.mark.parametrize(
    "headers",
    [
        {"Prefer": "wait=-1"},
        {"Prefer": "wait=" + "9" * 50},
        {"Prefer": "x" * 5000},
        {"Accept": "x" * 5000},
        {"Host": "elsewhere"},
        {"X": "y" * 60_000},
        {"Expect": "100-continue"},
        {"Connection": "upgrade", "Upgrade": "websocket"},
        {"traceparent": "x" * 1000},
    ],
    ids=lambda headers: " ".join(headers),
)
def test_odd_headers_change_nothing(server, headers):
    assert send(server, json.dumps({"input": SHORT}), **headers).json()["status"] == "succeeded"


def test_who_does_not_wait_is_answered_at_once_and_the_prediction_runs(server):
    before = len(lines_in_log(server))
    response = send(server, json.dumps({"input": SHORT}), Prefer="respond-async")
    assert (response.status_code, response.json()["status"]) == (202, "starting")
    until(lambda: len(lines_in_log(server)) > before, 10, "the prediction has run")


def seconds_of_an_answer(server):
    started = time.monotonic()
    predict(server, prompt="Count to a hundred.", min_tokens=24, max_tokens=24)
    return time.monotonic() - started


@three_chances
def test_bodies_that_come_a_byte_a_second_hold_up_nobody(server):
    alone = seconds_of_an_answer(server)
    body = json.dumps({"input": SHORT}).encode()
    url = urlsplit(server.url)
    with ExitStack() as stack:
        slow = [stack.enter_context(socket.create_connection((url.hostname, url.port))) for _ in range(50)]
        for connection in slow:
            connection.sendall(http(body).removesuffix(body))
        for sent in range(4):
            for connection in slow:
                connection.sendall(body[sent : sent + 1])
            assert seconds_of_an_answer(server) < 2 * alone + 1
            time.sleep(1)
        slow[0].sendall(body[4:])
        assert slow[0].recv(12) == b"HTTP/1.1 200"


def tokens_of_each(server):
    return [line["output_tokens"] for line in lines_in_log(server)]


@three_chances
def test_a_stream_that_nobody_reads_ends_and_holds_up_nobody(server):
    alone, before = seconds_of_an_answer(server), len(tokens_of_each(server))
    body = json.dumps({"input": {"prompt": "Count to a million.", "min_tokens": 200, "max_tokens": 200}}).encode()
    url = urlsplit(server.url)
    with socket.socket() as unread:
        unread.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)  # the system makes it 2 KB
        unread.connect((url.hostname, url.port))
        unread.sendall(http(body, "Accept: text/event-stream", f"Content-Length: {len(body)}"))
        time.sleep(0.5)
        assert seconds_of_an_answer(server) < 2 * alone + 1
        until(lambda: 200 in tokens_of_each(server)[before:], SECONDS, "it has ended, though nobody reads")


# What coglet 0.23.1 does, and we can only watch


@pytest.mark.parametrize("prediction_id", [" ", "%", "日本😀", "\u202e", "a\r\nX: 1", '"<script>', "a?b#c", "x" * 255])
def test_a_prediction_may_be_called_anything(server, prediction_id):
    prediction = post(server, quote(prediction_id, safe=""), **SHORT).json()
    assert (prediction["id"], prediction["status"]) == (prediction_id, "succeeded")
    assert httpx.post(f"{server.url}/predictions/{quote(prediction_id, safe='')}/cancel").status_code == 404


@pytest.mark.parametrize("prediction_id", ["x" * 256, "x" * 60_000, "a\0b"])
def test_an_id_that_makes_no_file_name_fails_without_a_code(server, prediction_id):
    prediction = post(server, quote(prediction_id, safe=""), **SHORT).json()
    assert prediction["status"] == "failed"
    assert prediction["error"].startswith("Failed to create output dir: ")


def test_an_id_that_is_not_the_one_in_the_path_is_refused(server):
    response = send(server, json.dumps({"id": "two", "input": SHORT}), method="PUT", path="/predictions/one")
    assert refused_inputs(response) == ["id"]
    assert send(server, "{}", method="PUT", path="/predictions/%ff").status_code == 400


def test_an_id_still_makes_folders_wherever_it_says(server, tmp_path):
    """Each prediction leaves two empty folders behind, below /tmp/coglet/predictions or where its id leads from there.

    So nobody who is not trusted may choose the id: see https://github.com/replicate/cog/pull/3096.
    """
    up = os.path.relpath(tmp_path, "/tmp/coglet/predictions")
    for prediction_id in (f"{up}/up", f"{tmp_path}/absolute"):
        assert post(server, quote(prediction_id, safe=""), **SHORT).json()["status"] == "succeeded"
    made = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert made == ["absolute", "absolute/inputs", "absolute/outputs", "up", "up/inputs", "up/outputs"], (
        "Cog looks at the id of a prediction now: what the documentation says of it can go"
    )


@pytest.mark.parametrize(
    "webhook", ["", "nonsense", "file:///etc/passwd", "http://[::1", "http://127.0.0.1:1", "x" * MEGABYTE]
)
def test_a_webhook_to_nowhere_changes_nothing(server, webhook):
    assert send(server, json.dumps({"input": SHORT, "webhook": webhook})).json()["status"] == "succeeded"


def test_a_webhook_is_still_called_wherever_it_is(server):
    """Also on this machine or in this network: the caller chooses where the server sends a POST, of the prediction."""

    class Listener(BaseHTTPRequestHandler):
        def do_POST(self):
            called.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["status"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    called = []
    with HTTPServer(("127.0.0.1", 0), Listener) as listener:
        threading.Thread(target=listener.serve_forever, daemon=True).start()
        webhook = f"http://127.0.0.1:{listener.server_port}/anything"
        send(server, json.dumps({"input": SHORT, "webhook": webhook, "webhook_events_filter": ["completed"]}))
        until(lambda: called, 10, "the webhook is called")
        listener.shutdown()
    assert called == ["succeeded"]


def test_a_body_without_a_content_type_is_still_dropped_without_a_word(server):
    response = httpx.post(f"{server.url}/predictions", content=json.dumps({"input": SHORT}))
    assert "E1001 EmptyRequest" in response.json()["error"]
