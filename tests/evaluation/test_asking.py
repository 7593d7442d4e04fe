"""Kept replies: of the same inputs to the same model, and of nothing else."""

import json
from contextlib import contextmanager

import httpx
import pytest

from evaluation import __main__ as commands
from evaluation import card
from evaluation.asking import Question, ask_all, key_of, model_at
from hermes.cli import main
from hermes.settings import Settings
from hermes.weights import Weights


class Server:
    """Cog servers that answer with their URL, without a network."""

    def __init__(self):
        self.asked = []
        self.logs = "hermes: weights: profile local serves demo from weights/small\nhermes: boot: 1 s\n"

    def answer(self, request):
        if request.url.path == "/health-check":
            return httpx.Response(200, json={"setup": {"logs": self.logs}, "version": {"cog": "1", "python": "3"}})
        self.asked.append(json.loads(request.content)["input"]["prompt"])
        return httpx.Response(200, json={"status": "succeeded", "output": [str(request.url.host)], "metrics": {}})


@pytest.fixture
def server(monkeypatch):
    server = Server()
    for client in (httpx.Client, httpx.AsyncClient):
        plain = client.__init__

        def begin(self, *args, plain=plain, **given):
            plain(self, *args, **given | {"transport": httpx.MockTransport(server.answer)})

        monkeypatch.setattr(client, "__init__", begin)
    return server


def questions(*prompts):
    return [Question(str(number), {"prompt": prompt}) for number, prompt in enumerate(prompts)]


def test_a_reply_is_not_asked_for_again(server, tmp_path):
    for prompts in (("a", "b"), ("a", "b", "c")):
        replies = ask_all("http://one", questions(*prompts), tmp_path / "out.jsonl")
        assert [reply.text for reply in replies.values()] == ["one"] * len(prompts)
    assert sorted(server.asked) == ["a", "b", "c"]


def test_that_of_another_server_or_model_or_to_other_inputs_is_not_taken(server, tmp_path):
    out = tmp_path / "out.jsonl"
    assert ask_all("http://one", questions("a"), out)["0"].text == "one"
    assert ask_all("http://two", questions("a"), out)["0"].text == "two"
    ask_all("http://one", questions("other inputs"), out)
    ask_all("http://one", questions("a"), out, "http://one with another model")
    assert server.asked == ["a", "a", "other inputs", "a"]
    assert ask_all("http://one", questions("a"), out)["0"].text == "one"
    assert len(server.asked) == 4, "each is still there"


def test_replies_of_before_they_had_keys_are_asked_for_again(server, tmp_path):
    out = tmp_path / "out.jsonl"
    old = {"id": "0", "status": "succeeded", "text": "old", "error": None, "metrics": {}, "seconds": 1.0}
    out.write_text(json.dumps(old) + "\n")
    assert ask_all("http://one", questions("a"), out)["0"].text == "one"


def test_a_server_says_which_model_it_has(server):
    assert model_at("http://one") == "local serves demo from weights/small; cog 1; python 3"


@pytest.mark.parametrize(
    "change",
    [
        lambda server, _: setattr(server, "logs", server.logs.replace("small", "large")),
        lambda _, monkeypatch: monkeypatch.setenv("HERMES_ENGINE_ARGS", '{"dtype": "float32"}'),
        lambda _, monkeypatch: monkeypatch.setattr(commands, "installed_build", lambda: "vllm 99"),
    ],
    ids=["another model", "other settings", "another vLLM"],
)
def test_a_changed_server_of_our_own_is_asked_anew(server, monkeypatch, tmp_path, change):
    @contextmanager
    def served(_):
        yield "http://own"

    monkeypatch.setattr(commands, "served", served)
    monkeypatch.setenv("HERMES_PROFILE", "local")
    schemas = tmp_path / "schemas.jsonl"
    schemas.write_text(json.dumps({"id": "x", "schema": {}}) + "\n")
    command = ["json", str(schemas), "--out", str(tmp_path / "out"), "--sample", "5"]
    for _ in range(2):
        main(command, commands.app)
    assert len(server.asked) == 1
    change(server, monkeypatch)
    main(command, commands.app)
    assert len(server.asked) == 2
    assert "demo, profile local; 5 schemas, seed 0" in (tmp_path / "out" / "report.md").read_text()


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """A function that measures, and the orders that went to the harness."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "mine.yaml").write_text("task: mine")
    monkeypatch.setattr(card, "require_devices", lambda _: None)
    monkeypatch.setattr(card, "resolve", lambda _: Weights(tmp_path / "model"))
    orders = []

    def harness(_, *, input, **_others):  # noqa: A002
        orders.append(order := json.loads(input))
        for task in order["tasks"]:
            (card.Path(order["out"]) / f"{task}.json").write_text(json.dumps({"acc,none": len(orders)}))

    monkeypatch.setattr(card.subprocess, "run", harness)

    def measure(include=None, limit=None, seed=0, **settings):
        settings = Settings(profile="local", **settings)
        found = card.measure(settings, ["mine"], tmp_path / "out", tmp_path, include, limit, seed)
        return found["mine"]["acc,none"]

    return measure


def test_a_task_is_measured_anew_for_another_model_part_or_seed(measured, tmp_path):
    assert [measured(), measured()] == [1, 1]
    assert measured(limit=5) == 2, "a part is not the whole"
    assert measured() == 1
    assert measured(seed=1) == 3
    assert measured(engine_args={"max_model_len": 4096}) == 4
    assert measured(include=tmp_path / "tasks") == 5
    (tmp_path / "tasks" / "mine.yaml").write_text("task: mine, changed")
    assert measured(include=tmp_path / "tasks") == 6
    (tmp_path / "model" / "model.safetensors").write_bytes(b"other weights")
    assert measured() == 7


def test_a_key_tells_values_apart():
    assert key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1})
    assert key_of("a", "b") != key_of("ab") != key_of(["a", "b"])


def test_the_report_says_how_much_was_measured():
    assert commands.part_of("questions of each task", None, 0) == "all questions of each task"
    assert commands.part_of("questions of each task", 5, 0) == "5 questions of each task, seed 0"
