"""What is counted of documents."""

import gzip
import json

import pytest

from evaluation.asking import Reply
from evaluation.json_mode import asked, documents, schemas_in

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
PROBLEM = "one: $.a: 'x' is not of type 'integer'"
ONE = {"id": "one", "schema": SCHEMA, "tests": []}


def reply(text, status="succeeded", error=None, **metrics):
    return Reply("one", status, text, error, {"finish_reason": "stop", **metrics}, 2.0)


@pytest.mark.parametrize(
    ("came", "counted"),
    [
        pytest.param(reply('{"a": 1}'), {"valid": 1}, id="valid"),
        pytest.param(reply('{"a": ', finish_reason="length"), {"cut_off": 1}, id="cut off"),
        pytest.param(
            reply('{"a": "x"}'),
            {"invalid": ["one: $.a: 'x' is not of type 'integer'"]}
            | {"invalid_though_enforced": ["one: $.a: 'x' is not of type 'integer'"]},
            id="invalid",
        ),
        pytest.param(
            reply('{"a": "x"}', json_unenforced=["$.a"]),
            {"invalid": [PROBLEM]},
            id="invalid where it was not enforced",
        ),
        pytest.param(reply("", "failed", "E1007 ..."), {"refused": ["one: E1007 ..."], "seconds": []}, id="refused"),
    ],
)
def test_what_came_of_a_schema_is_counted(came, counted):
    empty = {"valid": 0, "invalid": [], "invalid_though_enforced": [], "cut_off": 0, "refused": [], "seconds": [2.0]}
    assert vars(documents([ONE], {"one": came})) == {"schemas": 1, **empty, **counted}


def test_text_that_is_no_json_is_invalid():
    [problem] = documents([ONE], {"one": reply("x")}).invalid
    assert problem.startswith("one: no JSON: ")


@pytest.mark.parametrize("name", ["schemas.jsonl", "schemas.jsonl.gz"])
def test_schemas_are_drawn_by_the_seed(tmp_path, name):
    lines = "".join(json.dumps({**ONE, "id": str(number)}) + "\n" for number in range(20)).encode()
    (tmp_path / name).write_bytes(gzip.compress(lines) if name.endswith("gz") else lines)
    drawn = schemas_in(tmp_path / name, 5, 1)
    assert len(drawn) == 5
    assert drawn == schemas_in(tmp_path / name, 5, 1) != schemas_in(tmp_path / name, 5, 2)
    assert [question.inputs["json_schema"] for question in asked(drawn, 0)] == [SCHEMA] * 5
