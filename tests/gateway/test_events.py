"""Events: what a client reads in a line is one line, however it splits them."""

import asyncio
import json

import pytest

from hermes.devserver import PROJECT, PredictorSource
from hermes.gateway.events import event
from tests.support.asgi_gateway import FakeUpstream, serving


@pytest.mark.parametrize(
    "text", ["a\u2028b", "a\u2029b", "a\x85b", "a\n\r\x0b\x0c\x1c\x1d\x1e\x7fb", "日本\u2028😀", "é"]
)
@pytest.mark.parametrize("written", [False, True], ids=["a body", "a body that is JSON already"])
def test_no_character_of_a_text_ends_a_line(text, written):
    body = {text: text, "\x85": [text]}
    sent = event(json.dumps(body, ensure_ascii=False) if written else body, "delta")
    name, data, *end = sent.splitlines()
    assert (name, end) == ("event: delta", [""])
    assert json.loads(data.removeprefix("data: ")) == body
    assert sent.endswith("}\n\n")


def test_other_characters_are_sent_as_they_are():
    assert event({"a": "日本 é\x7f😀"}) == 'data: {"a":"日本 é\x7f😀"}\n\n'


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}]}),
        ("/v1/completions", {"prompt": "Hi"}),
        ("/v1/responses", {"input": "Hi", "metadata": {"a": "x\u2028y\x85"}}),
    ],
)
def test_each_event_of_a_stream_is_one_line_in_each_dialect(path, asked):
    async def main():
        document = PredictorSource(PROJECT / "predict.py").openapi()
        async with serving(FakeUpstream("one\u2028", "two\x85\u2029", "three", document=document)) as (_, client):
            return (await client.post(path, json={"model": "local/model", "stream": True, **asked})).text

    lines = [line for line in asyncio.run(main()).splitlines() if line and line != "data: [DONE]"]
    assert all(line.startswith(("data: ", "event: ")) for line in lines)
    bodies = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    assert "two\x85\u2029" in json.dumps(bodies, ensure_ascii=False)
