"""The ways in which servers that speak OpenAI's dialect broke their clients, each with the issue that reported it.

Every row asks once for a whole answer and once for a stream, and looks at both as they come over the wire. What is
missing here is elsewhere: 13 in tests/gateway, 20 in test_requests.py, 26 and 31 to 33 in test_gateway_openai.py.
"""

import json
from dataclasses import dataclass
from functools import cache

import httpx
import pytest

from tests.support.gateways import MODEL

USER = {"role": "user", "content": "What is the weather in Oslo? Answer in one sentence."}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Oslo", "Rome"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
CALL = {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'}}
LONG = USER | {"content": "word " * 3000}
PARTS = {"role": "user", "content": [{"type": "text", "text": "Hi"}]}
DEVELOPER = {"role": "developer", "content": "Be brief."}
CALLED = {"role": "assistant", "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "12 degrees"}
SCHEMA = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}},
    "required": ["ok"],
    "additionalProperties": False,
}
JSON = {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}}
CALLS = {"tools": [WEATHER], "tool_choice": "required", "max_tokens": 40}
NAMED = CALLS | {"tool_choice": {"type": "function", "function": {"name": "get_weather"}}}
CUT = CALLS | {"max_tokens": 16}
PLAIN = {"max_tokens": 6}
USAGE = PLAIN | {"stream_options": {"include_usage": True}}


@dataclass
class Answers:
    """What came back, whole and as a stream."""

    status: int
    whole: dict
    lines: list[str]  # of the stream, without the empty ones

    @property
    def choice(self):
        return self.whole["choices"][0]

    @property
    def called(self):
        return self.choice["message"].get("tool_calls", [])

    @property
    def usage(self):
        return self.whole["usage"]

    @property
    def error(self):
        return self.whole["error"]

    @property
    def chunks(self):
        return [json.loads(line.removeprefix("data: ")) for line in self.lines if line != "data: [DONE]"]

    @property
    def deltas(self):
        return [choice["delta"] for chunk in self.chunks for choice in chunk["choices"]]

    @property
    def calls(self):
        return [call for delta in self.deltas for call in delta.get("tool_calls", [])]

    @property
    def begun(self):
        """The deltas that begin a call."""
        return [call for call in self.calls if "id" in call]

    @property
    def joined(self):
        """The calls of the stream, as name and arguments."""
        joined = [[call["function"]["name"], ""] for call in self.begun]
        for call in self.calls:
            joined[call["index"]][1] += call["function"]["arguments"]
        return joined

    @property
    def whole_calls(self):
        """The calls of the whole answer, as name and arguments."""
        return [[call["function"]["name"], call["function"]["arguments"]] for call in self.called]

    @property
    def text(self):
        return "".join(delta.get("content", "") for delta in self.deltas)

    @property
    def reasons(self):
        """Why it ended, whole and as a stream."""
        ended = [choice["finish_reason"] for chunk in self.chunks for choice in chunk["choices"]]
        return {self.choice["finish_reason"], *filter(None, ended)}


def row(number, reported, body, holds, path="/chat/completions"):
    return pytest.param(body, holds, path, id=f"{number} {reported}")


NULLS = dict.fromkeys(["stop", "tools", "seed", "n", "top_p", "response_format"])
NO_CALLS = {"tools": [WEATHER], "tool_choice": "none"}
ONE_CALL = CALLS | {"parallel_tool_calls": False}
PREFIX = {"role": "assistant", "content": "The weather in"}
GOES_ON = {"messages": [USER, PREFIX], "continue_final_message": True, "add_generation_prompt": False}
NESTED_NULLS = {"stream_options": {"include_usage": None}, "response_format": {"type": None}}
ALLOWED = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [WEATHER]}}
TEXT = PLAIN | {"response_format": {"type": "text"}}
ERROR = {"message", "type", "param", "code"}

ROWS = [
    row(
        1,
        "openai-python#2806",
        CALLS,
        lambda a: [call["index"] for call in a.begun] == [*range(len(a.begun))] != [],
    ),
    row(2, "SillyTavern#5811", CALLS, lambda a: all({"id", "type", "function"} < call.keys() for call in a.begun)),
    row(3, "llama.cpp#11992", CALLS, lambda a: all(len(call["id"]) > 8 for call in a.begun) and unique(a)),
    row(4, "vercel/ai#5885", CALLS, lambda a: all([*call["function"]] == ["name", "arguments"] for call in a.begun)),
    row(5, "llama.cpp#20198", CALLS, lambda a: all(json.loads(arguments) for _, arguments in a.joined)),
    row("6 required", "vllm#25054", CALLS, lambda a: a.reasons == {"tool_calls"}),
    row("6 named", "vllm#25054", NAMED, lambda a: a.reasons == {"stop"} and a.calls),
    row(7, "vllm#53269", CUT, lambda a: a.reasons == {"length"} and a.joined == a.whole_calls != [] and not a.text),
    row(8, "unmute#80", PLAIN, lambda a: a.deltas[0] == {"role": "assistant", "content": ""}),
    row(9, "vllm#35705", PLAIN, lambda a: a.deltas[-1] == {}),
    row(10, "vllm#13087", CALLS, lambda a: all(d.get("content") or d.get("tool_calls") for d in a.deltas[1:-1])),
    row("11 asked", "apfel#100", USAGE, lambda a: not a.chunks[-1]["choices"] and a.chunks[-1]["usage"] == a.usage),
    row("11 not asked", "apfel#100", PLAIN, lambda a: not any("usage" in chunk for chunk in a.chunks)),
    row(12, "vllm-mlx#101", PLAIN, lambda a: a.lines[-1] == "data: [DONE]"),
    row(14, "openai-python#2722", PLAIN, lambda a: all(line.startswith("data: ") for line in a.lines)),
    row(15, "vllm#12886", {"n": 0}, lambda a: a.error.keys() == ERROR),
    row(16, "", {"messages": [LONG]}, lambda a: a.error["code"] == "context_length_exceeded"),
    row(17, "", PLAIN | {"unknown": 1, "store": True}, lambda a: a.status == 200),
    row(18, "vllm#47838", PLAIN | NULLS, lambda a: a.status == 200),
    row(19, "", {"max_completion_tokens": 6}, lambda a: a.usage["completion_tokens"] == 6),
    row(21, "", PLAIN | {"messages": [DEVELOPER, USER]}, lambda a: a.text),
    row(22, "", PLAIN | {"messages": [PARTS]}, lambda a: a.text),
    row(
        "23 null", "llama.cpp#13471", PLAIN | {"messages": [USER, CALLED | {"content": None}, RESULT]}, lambda a: a.text
    ),
    row("23 missing", "llama.cpp#13471", PLAIN | {"messages": [USER, CALLED, RESULT]}, lambda a: a.text),
    row(24, "", NAMED, lambda a: [name for name, _ in a.joined] == ["get_weather"]),
    row(25, "", CALLS, lambda a: a.joined == a.whole_calls != []),
    row("allowed", "ogx#3548", CALLS | {"tool_choice": ALLOWED}, lambda a: a.joined == a.whole_calls != []),
    row("26 text", "", TEXT, lambda a: a.text == a.choice["message"]["content"]),
    row("27 none", "vllm#16313", JSON | NO_CALLS, lambda a: json.loads(a.text).keys() == {"ok"}),
    row("27 required", "vllm#16313", JSON | CALLS, lambda a: a.calls),
    row("27 auto", "vllm#16313", JSON | {"tools": [WEATHER]}, lambda a: a.calls or json.loads(a.text).keys() == {"ok"}),
    row(28, "vllm#9451", ONE_CALL, lambda a: len(a.begun) == len(a.called) == 1),
    row(29, "", PLAIN | {"n": 2}, lambda a: [choice["index"] for choice in a.whole["choices"]] == [0, 1]),
    row(30, "", PLAIN | {"logprobs": False, "top_logprobs": 0}, lambda a: a.choice["logprobs"] is None),
    row("last", "inference#4833", PLAIN | {"messages": [USER, PREFIX]}, lambda a: a.text),
    row("goes on", "inference#4833", PLAIN | GOES_ON, lambda a: a.text == a.choice["message"]["content"]),
    row("system", "inference#1317", PLAIN | {"messages": [DEVELOPER]}, lambda a: a.text),
    row("null", "astonish#152", PLAIN | NESTED_NULLS, lambda a: a.status == 200),
    row("no model", "", PLAIN | {"model": None}, lambda a: a.whole["model"] == MODEL),
    row("guided", "vllm#53975", {"guided_json": SCHEMA}, lambda a: json.loads(a.text).keys() == {"ok"}),
    row(
        "schema",
        "",
        {"prompt": "A JSON document: ", **JSON, "max_tokens": 40},
        lambda a: json.loads(a.choice["text"]).keys() == {"ok"},
        path="/completions",
    ),
    row("16 tokens", "", {"prompt": "one two"}, lambda a: a.usage["completion_tokens"] <= 16, path="/completions"),
    row(
        "token ids",
        "lmdeploy#4186",
        {"prompt": [[1, 2, 3], [4, 5]], "max_tokens": 4},
        lambda a: a.usage["prompt_tokens"] == 5,
        path="/completions",
    ),
    row(34, "", {"prompt": "one two one two", "max_tokens": 4}, lambda a: a.choice["text"], path="/completions"),
    row(35, "", {"input": "Hi", "max_output_tokens": 16}, lambda a: a.whole["output"][0]["content"], path="/responses"),
]


def unique(answers):
    ids = [call["id"] for call in [*answers.begun, *answers.called]]
    return len(set(ids)) == len(ids)


@pytest.fixture(scope="module")
def ask(quick_gateway):
    @cache
    def asked(path, written):
        body = {"model": MODEL, "temperature": 0, "seed": 1} | json.loads(written)
        if path == "/chat/completions":
            body = {"messages": [USER]} | body
        not_streamed = {name: value for name, value in body.items() if name != "stream_options"}
        whole = httpx.post(quick_gateway.openai + path, json=not_streamed, timeout=120)
        streamed = httpx.post(quick_gateway.openai + path, json=body | {"stream": True}, timeout=120)
        assert streamed.status_code == whole.status_code
        lines = [line for line in streamed.text.split("\n") if line]
        return Answers(whole.status_code, whole.json(), lines)

    return lambda path, body: asked(path, json.dumps(body))


@pytest.mark.parametrize(("body", "holds", "path"), ROWS)
def test_a_pitfall_is_avoided(ask, body, holds, path):
    answers = ask(path, body)
    assert holds(answers), answers
