"""What can be said of the engine without vLLM; tests/integration runs the real one."""

import json
import subprocess
import sys
import sysconfig
from types import SimpleNamespace

import psutil
import pytest
from tokenizers import AddedToken

from hermes.chat.constraint import json_constraint
from hermes.engine import GrammarRefused
from hermes.engine.engine import end_tokens, shut_down, with_scripts
from hermes.engine.outputs import disorderly_end
from hermes.errors import EngineFailed

SCRIPTS = sysconfig.get_path("scripts")


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/usr/bin:/bin", f"/usr/bin:/bin:{SCRIPTS}"),
        (SCRIPTS, SCRIPTS),
        (f"/usr/bin:{SCRIPTS}:/bin", f"/usr/bin:{SCRIPTS}:/bin"),
    ],
)
def test_the_engine_finds_what_pip_installs_behind_what_the_system_has(path, found):
    assert with_scripts(path) == found


class AddedTokens(SimpleNamespace):
    """The added tokens of a tokenizer."""

    def __init__(self, *added):
        super().__init__(added_tokens_decoder={number: AddedToken(text) for number, text in enumerate(added, 100)})


PLAIN = AddedTokens("<|im_start|>", "<|im_end|>")


def write(folder, name, **values):
    (folder / name).write_text(json.dumps(values))


def test_the_model_may_end_a_turn_in_two_ways(tmp_path):
    write(tmp_path, "generation_config.json", eos_token_id=[128003, 128009])
    write(tmp_path, "config.json", eos_token_id=128003)
    assert end_tokens(tmp_path, PLAIN, 200) == [128003, 128009]


@pytest.mark.parametrize("end", ["<|end_of_text|>", "<|eot_id|>", "</s>", "<|endoftext|>"])
def test_what_ends_any_text_ends_a_response_also_where_the_model_does_not_name_it(tmp_path, end):
    write(tmp_path, "generation_config.json", eos_token_id=101)
    added = AddedTokens("<|im_start|>", "<|im_end|>", end)
    assert end_tokens(tmp_path, added, 103) == [101, 102]
    assert end_tokens(tmp_path, added, 102) == [101], "the model can't write it"


@pytest.mark.parametrize("name", ["generation_config.json", "config.json"])
def test_one_eos_id_is_enough(tmp_path, name):
    write(tmp_path, name, eos_token_id=2)
    assert end_tokens(tmp_path, PLAIN, 200) == [2]


def test_token_zero_is_an_id(tmp_path):
    write(tmp_path, "generation_config.json", eos_token_id=0)
    assert end_tokens(tmp_path, PLAIN, 200) == [0]


def test_a_model_may_have_none(tmp_path):
    write(tmp_path, "config.json")
    assert end_tokens(tmp_path, PLAIN, 200) == []


@pytest.mark.parametrize(
    ("finish_reason", "constraint", "error"),
    [
        ("error", json_constraint({}), GrammarRefused),
        ("error", None, EngineFailed),
        ("abort", json_constraint({}), EngineFailed),
    ],
)
def test_what_would_fail_at_each_try_is_not_said_to_pass(finish_reason, constraint, error):
    problem = disorderly_end(finish_reason, constraint)
    assert isinstance(problem, error)
    assert ("can be sent again" in str(problem)) == (finish_reason == "abort")


def test_a_process_that_ends_by_itself_while_vllm_ends_it_is_no_error():
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
        ended = []

        def shutdown(timeout):
            ended.append(timeout)
            psutil.Process(process.pid).children(recursive=True)  # as vLLM's kill_process_tree does

        shut_down(SimpleNamespace(shutdown=shutdown))
    assert ended == [0]
