import json
from pathlib import Path

import pytest

from hermes.chat.inputs import Inputs
from hermes.devserver.predictor import PredictorSource
from hermes.devserver.server import PROJECT
from hermes.errors import InvalidConfiguration

COG = Path(__file__).parents[1] / "data" / "cog"

OUR_INPUTS = {
    "messages": None,
    "tools": None,
    "tool_choice": "auto",
    "json_schema": None,
    "repetition_penalty": 1.0,
    "min_p": 0.0,
    "truncate": "error",
    "timeout": None,
    "stop": None,
    "parallel_tool_calls": True,
    "continue_final_message": False,
    "prompt_token_ids": None,
}
THE_LISTINGS_INPUTS = {
    "prompt": "",
    "system_prompt": "You are a helpful assistant.",
    "min_tokens": 0,
    "max_tokens": 512,
    "temperature": 0.6,
    "top_p": 0.9,
    "top_k": 50,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "stop_sequences": None,
    "prompt_template": None,
    "seed": None,
}


def source(tmp_path, inputs, head="", decorators=""):
    path = tmp_path / "predict.py"
    path.write_text(f"{head}\nclass Predictor:\n{decorators}    async def predict(self, {inputs}): ...\n")
    return PredictorSource(path)


def inputs_of(document):
    return document["components"]["schemas"]["Input"]


def test_the_document_equals_what_cogs_own_parser_writes():
    expected = json.loads((COG / "example_openapi.json").read_text())
    assert PredictorSource(COG / "example_predictor.py").openapi() == expected


def test_predict_py_has_the_inputs_of_the_listing_first_in_order_with_its_defaults():
    properties = inputs_of(PredictorSource(PROJECT / "predict.py").openapi())["properties"]
    assert {name: schema["default"] for name, schema in properties.items()} == THE_LISTINGS_INPUTS | OUR_INPUTS
    assert list(properties) == [*THE_LISTINGS_INPUTS, *OUR_INPUTS]
    assert [schema["x-order"] for schema in properties.values()] == list(range(len(properties)))


def test_the_inputs_that_a_request_is_made_of_are_those_of_predict_py():
    properties = inputs_of(PredictorSource(PROJECT / "predict.py").openapi())["properties"]
    assert list(Inputs.__annotations__) == list(properties)


def test_predict_py_streams_in_32_slots_and_describes_every_input():
    predictor = PredictorSource(PROJECT / "predict.py")
    document = predictor.openapi()
    assert predictor.max_concurrency() == 32
    assert document["paths"]["/predictions"]["post"]["x-cog-streaming"] is True
    assert all(schema["description"] for schema in inputs_of(document)["properties"].values())


def test_an_input_without_a_default_is_required(tmp_path):
    inputs = "a: str, b: int = Input(ge=-2), c: bool = False, d: str = Input(default=None)"
    assert inputs_of(source(tmp_path, inputs).openapi()) == {
        "properties": {
            "a": {"title": "A", "type": "string", "x-order": 0},
            "b": {"minimum": -2, "title": "B", "type": "integer", "x-order": 1},
            "c": {"default": False, "title": "C", "type": "boolean", "x-order": 2},
            "d": {"title": "D", "type": "string", "x-order": 3},
        },
        "required": ["a", "b", "d"],
        "title": "Input",
        "type": "object",
    }


def test_optional_may_be_written_either_way(tmp_path):
    properties = inputs_of(source(tmp_path, "a: Optional[str] = None, b: str | None = None").openapi())["properties"]
    assert {**properties["a"], "title": "B", "x-order": 1} == properties["b"]


def test_without_the_decorators_there_is_one_slot_and_no_streaming(tmp_path):
    plain = source(tmp_path, "a: str")
    assert plain.max_concurrency() == 1
    assert "x-cog-streaming" not in plain.openapi()["paths"]["/predictions"]["post"]


def test_a_name_of_the_file_may_be_a_default_or_a_description(tmp_path):
    inputs = "a: str = Input(default=HELLO, description=HELLO)"
    schema = inputs_of(source(tmp_path, inputs, head='HELLO = "Hello"').openapi())["properties"]["a"]
    assert (schema["default"], schema["description"]) == ("Hello", "Hello")


@pytest.mark.parametrize(
    ("inputs", "problem"),
    [
        pytest.param('a: str = Input(description="one " "two")', "one plain literal in one piece", id="two pieces"),
        pytest.param('a: str = Input(description=("one"))', "without parentheses", id="parentheses"),
        pytest.param(r'a: str = Input(description="one\ntwo")', "without escapes", id="an escape"),
        pytest.param('a: str = Input(description=f"{1}")', "must be a literal", id="an f-string"),
        pytest.param("a: str = Input(default=IMPORTED)", "IMPORTED must be a literal", id="an imported name"),
        pytest.param("a: int = Input(le=LIMIT)", "LIMIT must be a literal", id="a name as limit"),
        pytest.param("a: int = Input(gt=3)", "Input() takes no 'gt' here", id="an unknown keyword"),
        pytest.param('a: str = Input("x")', "read by keyword only", id="a positional argument"),
        pytest.param("a: bytes", "bytes is not an input type", id="an unknown type"),
        pytest.param("a", "no type is not an input type", id="no type"),
    ],
)
def test_what_cogs_parser_would_drop_or_garble_is_refused(tmp_path, inputs, problem):
    with pytest.raises(InvalidConfiguration, match=r"E1202 .*predict.py line \d") as refused:
        source(tmp_path, inputs, head="LIMIT = 5")
    assert problem in str(refused.value)


def test_a_file_without_a_predictor_is_refused(tmp_path):
    (tmp_path / "predict.py").write_text("class Other: ...")
    with pytest.raises(InvalidConfiguration, match=r"no method Predictor\.predict"):
        PredictorSource(tmp_path / "predict.py")


def test_the_document_is_written_where_coglet_looks(tmp_path):
    predictor = source(tmp_path, "a: str")
    assert predictor.write_openapi() == tmp_path / ".cog" / "openapi_schema.json"
    assert json.loads((tmp_path / ".cog" / "openapi_schema.json").read_text()) == predictor.openapi()


def test_a_project_that_can_not_be_written_is_named(tmp_path):
    (tmp_path / "predict.py").write_text((PROJECT / "predict.py").read_text())
    (tmp_path / ".cog").touch()
    with pytest.raises(
        InvalidConfiguration, match=r"openapi_schema.json: can't be written \(File exists\); run this in"
    ):
        PredictorSource(tmp_path / "predict.py").write_openapi()
