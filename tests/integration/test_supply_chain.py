"""A weights folder full of traps: whatever it holds, nothing of it is run."""

import json
import shutil
import subprocess
import sys

import pytest

from tests.support.asking import predict
from tests.support.tiny_llama import change, set_traps


@pytest.fixture
def trapped(tiny_model, tmp_path):
    """The tiny model among traps of the test's own; `canary` beside it tells whether one has sprung."""
    shutil.copytree(tiny_model, tmp_path / "model")
    set_traps(tmp_path / "model", tmp_path / "canary")
    yield tmp_path / "model"
    assert not (tmp_path / "canary").exists()


def test_the_traps_do_spring(trapped):
    for code in (
        f"exec(open({str(trapped / 'evil.py')!r}).read())",
        "import pickle, sys; pickle.load(sys.stdin.buffer)",
    ):
        with (trapped / "pytorch_model.bin").open("rb") as pickled:
            subprocess.run([sys.executable, "-c", code], stdin=pickled, check=True, timeout=30)
        (trapped.parent / "canary").unlink()


def test_a_model_among_traps_is_served_and_no_trap_springs(tiny_server, canary):
    metrics = predict(tiny_server, prompt="Hi", max_tokens=5, min_tokens=5, seed=1)["metrics"]
    assert metrics["output_token_count"] == 5
    log = "\n".join(tiny_server.log)
    assert "trust_remote_code=False" in log
    assert "load_format=safetensors" in log
    assert not canary.exists()


def test_a_model_that_is_only_a_pickle_is_refused_and_not_unpickled(starter, trapped):
    (trapped / "model.safetensors").unlink()
    error = starter.refusal(trapped)
    assert error.startswith("E1000 WeightsError: ")
    assert "there are no safetensors among its files, and nothing else is loaded" in error


def test_a_model_that_needs_its_own_code_is_refused(starter, trapped):
    change(trapped / "config.json", model_type="evil", architectures=["Evil"])
    assert starter.refusal(trapped).startswith(
        ("E1200 EngineStartFailed: ", "E1202 InvalidConfiguration: engine_args: ")
    )


def test_a_folder_can_not_ask_for_its_code_to_be_trusted(starter, trapped):
    (trapped / "predictor_config.json").write_text(json.dumps({"engine_args": {"trust_remote_code": True}}))
    assert starter.refusal(trapped).startswith(
        "E1202 InvalidConfiguration: predictor_config.json.engine_args.trust_remote_code: a weights folder may not set"
    )
