import io
import json

import pytest

from hermes.cli import main, server
from hermes.cli.inputs import parse_inputs, read_json
from hermes.client.errors import PredictionRefused
from hermes.devserver.server import ServerFailed

TYPES = {"prompt": "string", "max_tokens": "integer", "temperature": "number", "messages": "array"}


class FakeServer:
    """A server that is ready at once."""

    url = "http://nowhere"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stopped = True

    def wait_until_ready(self):
        pass


@pytest.fixture
def events(monkeypatch):
    """The server's answer, for a test to script; asked for with the inputs in `events.inputs`."""

    class Events(list):
        inputs = None

    script = Events()

    def stream(url, inputs):
        script.inputs = inputs
        for event in script:
            if isinstance(event, Exception):
                raise event
            yield event

    monkeypatch.setattr(server, "local_server", FakeServer)
    monkeypatch.setattr("hermes.client.models.stream_prediction", stream)
    return script


METRICS = {
    "output_token_count": 2,
    "time_to_first_token": 0.125,
    "tokens_per_second": 30.0,
    "finish_reason": "stop",
    "seed": 3,
}


def test_the_answer_goes_to_standard_output_and_the_rest_to_standard_error(events, capsys):
    events += [
        ("start", {}),
        ("output", {"chunk": "Hello"}),
        ("log", {}),
        ("output", {"chunk": " there."}),
        ("completed", {"status": "succeeded", "metrics": METRICS}),
    ]
    assert main(["predict", "-i", "prompt=Hi", "-i", "max_tokens=64"]) == 0
    assert events.inputs == {"prompt": "Hi", "max_tokens": 64}
    out, err = capsys.readouterr()
    assert out == "Hello there.\n"
    assert "2 tokens, the first after 0.12 s, 30 a second; finish_reason stop, seed 3" in err


def test_a_failed_prediction_is_one_line_and_exit_code_1(events, capsys):
    error = "Prediction failed: Generator iteration error: EmptyRequest: E1001 EmptyRequest: prompt is empty"
    events += [("completed", {"status": "failed", "error": error})]
    assert main(["predict"]) == 1
    assert capsys.readouterr().err == "E1001 EmptyRequest: prompt is empty\n"


@pytest.mark.parametrize(
    ("script", "line"),
    [
        ([("completed", {"status": "canceled"})], "canceled\n"),
        ([("error", {"error": "SSE stream lagged"})], "SSE stream lagged\n"),
        ([("output", {"chunk": "a"})], "the stream ended before the prediction was complete\n"),
        ([PredictionRefused(409, "all prediction slots busy")], "the server answered 409: all prediction slots busy\n"),
        ([ServerFailed("E1204 NoAccelerator: none")], "E1204 NoAccelerator: none\n"),
    ],
)
def test_whatever_goes_wrong_is_one_line(events, capsys, script, line):
    events += script
    assert main(["predict", "-i", "prompt=Hi"]) == 1
    assert capsys.readouterr().err == line


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["predikt"], "No such command 'predikt'"),
        (["predict", "-i", "prompt"], "-i prompt: write name=value"),
        (["predict", "-i", "promt=Hi"], "there is no input 'promt'; did you mean 'prompt'?"),
        (["predict", "-i", "max_new_tokens=5"], "there is no input 'max_new_tokens'; did you mean 'max_tokens'?"),
        (["predict", "-i", "xyz=5"], "there is no input 'xyz'; there are prompt, system_prompt"),
        (["predict", "-i", "max_tokens=many"], "max_tokens: 'many' is no integer"),
        (["predict", "-i", "prompt=@/no/such/file"], "/no/such/file"),
        (["predict", "--json", "/no/such/file"], "/no/such/file"),
        (["serve", "--port", "x"], "Invalid value for '--port'"),
        ([], "Missing command"),
    ],
)
def test_misuse_is_exit_code_2_and_starts_nothing(events, capsys, arguments, line):
    assert main(arguments) == 2
    assert line in capsys.readouterr().err
    assert events.inputs is None


def test_strings_stay_as_they_are_and_the_rest_is_json(tmp_path):
    (tmp_path / "prompt.txt").write_text("from a file\n")
    pairs = [f"prompt=@{tmp_path}/prompt.txt", "max_tokens=64", "temperature=0.5", 'messages=[{"role": "user"}]']
    assert parse_inputs(pairs, TYPES) == {
        "prompt": "from a file\n",
        "max_tokens": 64,
        "temperature": 0.5,
        "messages": [{"role": "user"}],
    }


@pytest.mark.parametrize("prompt", ["", "a=b", "3", '"quoted"', "$HOME {x}", "été 😀"])
def test_a_prompt_is_never_interpreted(prompt):
    assert parse_inputs([f"prompt={prompt}"], TYPES) == {"prompt": prompt}


def test_inputs_may_come_as_one_json_object(tmp_path, monkeypatch):
    path = tmp_path / "inputs.json"
    path.write_text(json.dumps({"prompt": "Hi"}))
    monkeypatch.setattr("sys.stdin", io.StringIO('{"prompt": "from stdin"}'))
    assert read_json(str(path)) == read_json(f"@{path}") == {"prompt": "Hi"}
    assert read_json("-") == {"prompt": "from stdin"}


def test_an_unknown_input_in_a_json_object_is_misuse(events, tmp_path, capsys):
    (tmp_path / "inputs.json").write_text('{"prompt": "Hi", "max_new_tokens": 5}')
    assert main(["predict", "--json", str(tmp_path / "inputs.json")]) == 2
    assert "there is no input 'max_new_tokens'; did you mean 'max_tokens'?" in capsys.readouterr().err
    assert events.inputs is None


def test_a_single_input_wins_over_the_json_object(events, tmp_path):
    (tmp_path / "inputs.json").write_text('{"prompt": "Hi", "seed": 1}')
    events += [("completed", {"status": "succeeded", "metrics": METRICS})]
    assert main(["predict", "--json", str(tmp_path / "inputs.json"), "-i", "seed=2"]) == 0
    assert events.inputs == {"prompt": "Hi", "seed": 2}
