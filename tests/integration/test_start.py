"""A server that cannot start says why, with a code, at once, and leaves nothing behind."""

import json
import re
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
from safetensors.torch import load_file, save_file

from hermes.devserver import LocalServer, ServerFailed
from hermes.engine.processes import title
from tests.support.asking import refusal, until
from tests.support.endings import is_started_again
from tests.support.servers import ENGINE_ARGS, LOCAL
from tests.support.tiny_llama import change, write_tiny_llama


def test_production_without_gpus_fails_at_once_before_vllm_and_any_download(tmp_path):
    import torch

    if torch.cuda.device_count() >= 2:
        pytest.skip("this machine has two CUDA devices")
    unimportable = tmp_path / "vllm"  # an import of vllm would say so
    unimportable.mkdir()
    (unimportable / "__init__.py").write_text("raise AssertionError('vllm was imported')")
    environment = {
        "HERMES_PROFILE": "production",
        "HERMES_ENGINE_ARGS": "{}",
        "HERMES_WEIGHTS_DIR": str(tmp_path / "weights"),
        "PYTHONPATH": f"{tmp_path}:{LOCAL['PYTHONPATH']}",
    }
    error, seconds, health, _ = refusal(environment)
    assert error.startswith("E1204 NoAccelerator: the production profile needs 2 CUDA devices and 0 were found")
    assert seconds < 5
    assert "vllm was imported" not in health["setup"]["logs"]
    assert not (tmp_path / "weights").exists()


@pytest.mark.parametrize(
    ("environment", "code"),
    [({"HERMES_PROFIL": "local"}, "E1202"), ({"HERMES_PROFILE": "production", "HERMES_ENGINE_ARGS": "{}"}, "E1204")],
)
def test_a_server_that_cannot_start_shows_why_and_then_ends_with_129(environment, code):
    with LocalServer(environment={**LOCAL, **environment, "HERMES_ENGINE_DEATH_GRACE": "1"}) as server:
        with pytest.raises(ServerFailed, match=code):
            server.wait_until_ready(30)
        assert server.health()["status"] == "SETUP_FAILED"
        is_started_again(server)


def test_cogs_variable_names_the_weights():
    error, _, _, _ = refusal({"COG_WEIGHTS": "/no/such/folder"})
    assert error.startswith("E1000 WeightsError: weights '/no/such/folder': there is no such folder")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("ENGINE_ARGS", '{"max_model_length": 9}', "E1201 UnknownEngineArgument: engine_args has 'max_model_l"),
        ("ENGINE_ARGS", '{"model": "other"}', "E1202 InvalidConfiguration: engine_args.model: the weights d"),
        ("ENGINE_ARGS", '{"max_model_len": "x"}', "E1202 InvalidConfiguration: engine_args.max_model_len: "),
        (
            "ENGINE_ARGS",
            '{"speculative_config": {"method": "ngram"}}',
            "E1202 InvalidConfiguration: engine_args.speculative_config.num_speculative_tokens: Field required",
        ),
        ("ENGINE_ARGS", '{"dtype": "float31"}', "E1202 InvalidConfiguration: engine_args: "),
        ("PROFIL", "local", "E1202 InvalidConfiguration: HERMES_PROFIL: there is no such setting"),
        ("PROMPT_TEMPLATE", "Answer:", "E1202 InvalidConfiguration: prompt_template: E1003"),
    ],
)
def test_what_is_wrong_with_the_configuration_is_named(starter, small_model, name, value, message):
    assert starter.refusal(**{f"HERMES_{name}": value}).startswith(message)


def test_weights_that_the_engine_cannot_load_fail_the_start_and_leave_no_process(tiny_model, tmp_path):
    shutil.copytree(tiny_model, tmp_path, dirs_exist_ok=True)
    weights = load_file(tmp_path / "model.safetensors")
    weights["model.layers.0.self_attn.q_proj.weight"] = weights["model.layers.0.self_attn.q_proj.weight"][:7].clone()
    save_file(weights, tmp_path / "model.safetensors")
    error, _, _, names = refusal({"COG_WEIGHTS": str(tmp_path), "VLLM_LOGGING_LEVEL": "ERROR"})
    cause = "start (0) + length (256) exceeds dimension size (7)."  # as its worker logged it
    assert error == f"E1200 EngineStartFailed: vLLM did not start: {cause}; the server's log has more"
    assert not [name for name in names if name.startswith(("VLLM::Engine", "VLLM::Worker"))]


def test_a_predictor_config_in_the_weights_folder_is_used(starter, tiny_model, tmp_path):
    for path in tiny_model.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "predictor_config.json").write_text(json.dumps({"engine_args": {"no_such_argument": 1}}))
    error = starter.refusal(tmp_path)
    assert error.startswith("E1202 InvalidConfiguration: predictor_config.json.engine_args.no_such_argument: a weights")


def engine_of(starter):
    """What vLLM has started there."""
    return [each for each in starter.processes() if "::EngineCore" in title(each) or "::Worker" in title(each)]


@pytest.mark.long  # its depth: tests/engine/test_starting.py has an engine that dies in its first request
def test_an_engine_that_loads_and_dies_in_its_warm_up_has_not_started_and_the_cause_is_told(
    starter, small_model, tmp_path
):
    write_tiny_llama(tmp_path, small_model, hidden_size=128)
    error = starter.refusal(tmp_path)
    cause = "Unsupported CPU attention configuration: head_dim=16 isa=2 kv_cache_idx=0"
    assert error == f"E1200 EngineStartFailed: vLLM did not start: {cause}; the server's log has more"
    assert engine_of(starter) == []


def test_what_fails_behind_the_loaded_engine_ends_the_engine(starter, tiny_model, tmp_path):
    shutil.copytree(tiny_model, tmp_path, dirs_exist_ok=True)
    change(tmp_path / "tokenizer.json", decoder=None)  # which vLLM can do without, and no grammar can
    error = starter.refusal(tmp_path)
    assert error.startswith("E1200 EngineStartFailed: vLLM did not start: can't determine decoder type: None; ")
    assert engine_of(starter) == []


@pytest.mark.parametrize(
    ("workers", "hanging", "lines"),
    [
        (1, "::EngineCore", r"(EngineCore: .+|process \d+: nothing)"),  # it may hang before its first message
        pytest.param(2, "Worker_TP1", "EngineCore: .+; VllmWorker-0: .+; VllmWorker-1: .+", marks=pytest.mark.long),
    ],
)
def test_a_process_that_hangs_ends_the_start_with_the_last_line_of_each(starter, tiny_model, workers, hanging, lines):
    settings = {
        "HERMES_START_TIMEOUT": "300",
        "HERMES_ENGINE_ARGS": json.dumps({**ENGINE_ARGS, "tensor_parallel_size": workers}),
        **({"VLLM_CPU_OMP_THREADS_BIND": "0|1"} if workers == 2 else {}),
    }
    with ThreadPoolExecutor(1) as caller:
        error = caller.submit(starter.refusal, tiny_model, **settings)
        until(lambda: any(hanging in title(each) for each in starter.processes()), 120, "it is there")
        (last,) = [each for each in engine_of(starter) if hanging in title(each)]
        last.suspend()  # the others wait for it
        starter.hurry()
        said = error.result(120)
    assert said.startswith(
        "E1200 EngineStartFailed: vLLM did not start: it was not ready after 300 s; set HERMES_START"
    )
    assert re.search(rf"; its processes logged last: {lines}; the serv", said)
    assert engine_of(starter) == []
