"""The evaluation against the real server, with questions of our own."""

import json

import httpx
import pytest

from evaluation import asking, chat, functions, json_mode

WEATHER = {
    "name": "get_weather",
    "description": "The weather of a city.",
    "parameters": {"type": "dict", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


@pytest.fixture
def count(quick_server, monkeypatch):
    """The number of requests that were sent."""
    sent = []
    plain = httpx.AsyncClient.post

    async def post(self, *arguments, **named):
        sent.append(arguments)
        return await plain(self, *arguments, **named)

    monkeypatch.setattr(httpx.AsyncClient, "post", post)
    return lambda: len(sent)


def test_questions_with_tools_are_asked_once_and_read_as_they_are_in_the_text(quick_server, tmp_path, count):
    turns = [[{"role": "user", "content": f"What is the weather in {city}?"}] for city in ("Paris", "Rome", "Oslo")]
    cases = [functions.Case(str(n), "simple_python", turn, [WEATHER], None) for n, turn in enumerate(turns)]
    questions = [case.asked(0) for case in cases]
    short = [
        asking.Question(each.id, {**each.inputs, "max_tokens": 40, "tool_choice": "required"}) for each in questions
    ]
    replies = asking.ask_all(quick_server.url, short[:2], tmp_path / "out.jsonl")
    assert count() == 2
    with (tmp_path / "out.jsonl").open("a") as file:
        file.write('{"id": "2", "stat')  # as if it had been killed while it wrote
    replies = asking.ask_all(quick_server.url, short, tmp_path / "out.jsonl")
    assert (count(), list(replies)) == (3, ["0", "1", "2"])
    found = functions.figures(cases, replies, dict.fromkeys(replies, True))
    assert (found.questions, found.refused, found.invalid, found.differing) == (3, [], [], [])
    assert found.calls + found.cut_off >= 3


def test_documents_are_checked_and_a_refusal_is_told(quick_server, tmp_path):
    schemas = [
        {"id": "good", "schema": {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"]}},
        {"id": "bad", "schema": {"type": "nothing"}},
    ]
    found = json_mode.documents(
        schemas, asking.ask_all(quick_server.url, json_mode.asked(schemas, 0), tmp_path / "json.jsonl")
    )
    assert (found.valid, found.invalid, found.cut_off) == (1, [], 0)
    assert found.refused[0].startswith("bad: Prediction failed: ")
    assert "E1007 BadJsonSchema" in found.refused[0]


def test_two_turns_are_answered_in_fastchats_form(quick_server, tmp_path, monkeypatch):
    monkeypatch.setattr(chat, "MAX_TOKENS", 12)
    questions = [{**each, "turns": list(each["turns"])} for each in asking.read_lines(chat.QUESTIONS)[:2]]
    answers = chat.answered(quick_server.url, questions, tmp_path / "chat.jsonl", "small", 0)
    assert [(each["question_id"], each["model_id"], len(each["choices"][0]["turns"])) for each in answers] == [
        (1, "small", 2),
        (2, "small", 2),
    ]
    second = [line["id"] for line in asking.read_lines(tmp_path / "chat-turn-2.jsonl")]
    assert sorted(second) == ["1", "2"]
    assert json.loads((tmp_path / "chat-turn-1.jsonl").read_text().splitlines()[0])["text"]
