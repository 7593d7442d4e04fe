"""What can be said of the engine without vLLM; tests/integration runs the real one."""

import json

import pytest

from hermes.engine.engine import eos_token_ids


def write(folder, name, **values):
    (folder / name).write_text(json.dumps(values))


def test_the_model_may_end_a_turn_in_two_ways(tmp_path):
    write(tmp_path, "generation_config.json", eos_token_id=[128003, 128009])
    write(tmp_path, "config.json", eos_token_id=128003)
    assert eos_token_ids(tmp_path) == [128003, 128009]


@pytest.mark.parametrize("name", ["generation_config.json", "config.json"])
def test_one_eos_id_is_enough(tmp_path, name):
    write(tmp_path, name, eos_token_id=2)
    assert eos_token_ids(tmp_path) == [2]


def test_token_zero_is_an_id(tmp_path):
    write(tmp_path, "generation_config.json", eos_token_id=0)
    assert eos_token_ids(tmp_path) == [0]


def test_a_model_may_have_none(tmp_path):
    write(tmp_path, "config.json")
    assert eos_token_ids(tmp_path) == []
