"""`python -m hermes plan` prints a plan, or says in one line why there is none."""

import json
from functools import partial

import pytest

from hermes.weights.remote import Patience
from tests.support.commands import MODEL, WEIGHTS, assert_misuse
from tests.support.faults import Truncate

MISUSE = {
    "no such GPU": (
        ["plan", MODEL, "--gpus", "3090"],
        "'3090' is not a number of known GPUs, such as 2xA100-80GB; known",
    ),
    "no method": (
        ["plan", MODEL, "--quantization", "int3"],
        "quantization is 'int3'; known are fp8_per_block, fp8_per_channel",
    ),
    "too long": (
        ["plan", MODEL, "--max-model-len", "9000"],
        "max_model_len is 9,000; the context of the model is 8,192",
    ),
    "no number": (["plan", "--max-num-seqs", "many"], "Invalid value for '--max-num-seqs'"),
    "no share": (
        ["plan", "--gpu-memory-utilization", "95"],
        "gpu_memory_utilization is 95.0; it must be above 0 and at most",
    ),
}


@pytest.mark.parametrize(("arguments", "line"), MISUSE.values(), ids=MISUSE)
def test_misuse_is_exit_code_2_and_one_line(run, arguments, line):
    assert_misuse(run, arguments, line)


def test_a_plan_for_what_is_known_by_heart_needs_no_network(run, server):
    code, out, err = run("plan")
    assert (code, err, server.requests) == (0, "", [])
    assert out.startswith("LlamaForCausalLM, 70,553,706,496 parameters in 16 bits, on 2x A100-80GB\n")
    assert "\nfits\n" in out


def test_a_plan_is_made_from_config_json_alone(run, server):
    code, out, _ = run("plan", MODEL, "--gpus", "2xH100", "--json", "--max-model-len", "4096")
    planned = json.loads(out)
    wanted = ("gpu", "count", "max_model_len", "parameters", "fits", "problem")
    assert (code, [planned[name] for name in wanted]) == (0, ["H100", 2, 4096, 70_553_706_496, True, None])
    assert planned["bytes_per_gpu"]["weights"] == len(WEIGHTS) // 2  # the safetensors, as they are
    assert {asked.path.rpartition("/")[2] for asked in server.requests if asked.method == "GET"} >= {"config.json"}
    assert not [asked for asked in server.requests if "safetensors" in asked.path]


def test_a_model_that_does_not_fit_is_exit_code_1_and_still_a_plan(run):
    known = "hf://NousResearch/Hermes-2-Theta-Llama-3-70B"
    code, out, err = run("plan", known, "--gpus", "A100-80GB")
    assert (code, err) == (1, "")
    assert "does not fit: needs 135.1 GiB, has 75.2 GiB" in out
    code, out, _ = run("plan", known, "--gpus", "A100-80GB", "--json")
    assert (code, json.loads(out)["fits"]) == (1, False)


def test_a_plan_for_what_is_here_needs_no_network(run, server, fetched):
    server.clear()
    plans = {run("plan", source) for source in (MODEL, fetched)}
    assert ([code for code, _, _ in plans], server.requests) == ([0], [])


def test_a_plan_goes_on_when_the_hub_falters(run, server, monkeypatch):
    monkeypatch.setattr("hermes.cli.plan.Patience", partial(Patience, first_wait=0))
    server.fail("config.json", Truncate(20), times=2)
    assert run("plan", MODEL)[0] == 0


def test_the_plan_is_of_the_arguments_that_the_engine_gets(run, monkeypatch):
    monkeypatch.setenv("HERMES_SPECULATION", "ngram")
    monkeypatch.setenv("HERMES_ENGINE_ARGS", '{"max_model_len": "4096", "kv_cache_dtype": "fp8"}')
    planned = json.loads(run("plan", "--json")[1])
    assert (planned["max_model_len"], planned["num_speculative_tokens"], planned["not_planned"]) == (4096, 4, [])
    assert (len(planned["capture_sizes"]), planned["kv_bytes_per_token_per_gpu"]) == (42, 80 * 1024)
    monkeypatch.setenv("HERMES_PROFILE", "production-fp8")
    assert json.loads(run("plan", "--json")[1])["capture_sizes"] == [5, 10, 20, 40, 80, 120, 160]


def test_an_argument_that_is_not_counted_is_named_instead_of_a_plan(run, monkeypatch):
    monkeypatch.setenv("HERMES_ENGINE_ARGS", '{"cpu_offload_gb": 8, "max_num_seqs": 4, "enable_lora": true}')
    assert run("plan") == (1, "not planned: cpu_offload_gb, enable_lora\n", "")
    code, out, _ = run("plan", "--json")
    assert (code, json.loads(out)) == (1, {"fits": None, "not_planned": ["cpu_offload_gb", "enable_lora"]})


def test_a_draft_of_the_option_comes_before_the_engine_arguments(run, monkeypatch):
    monkeypatch.setenv("HERMES_ENGINE_ARGS", '{"speculative_config": {"method": "ngram", "num_speculative_tokens": 2}}')
    planned = json.loads(run("plan", "--draft", "hf://NousResearch/Hermes-2-Theta-Llama-3-8B", "--json")[1])
    assert planned["num_speculative_tokens"] == 3
    assert planned["bytes_per_gpu"]["draft"] > 0


def test_the_local_profile_plans_as_production_does(run, monkeypatch):
    whole = run("plan")
    monkeypatch.setenv("HERMES_PROFILE", "local")
    assert run("plan") == whole


def test_a_price_is_in_the_json_too(run):
    planned = json.loads(run("plan", "--json", "--price", "10.08")[1])
    cost = planned["dollars_per_million_tokens"]
    assert cost["one client"] == pytest.approx(10.08 / 3_600 / planned["decode_tokens_per_second"] * 1e6, rel=0.01)
    assert f"${cost['all clients']:,.2f}" in run("plan", "--price", "10.08")[1]
    assert_misuse(run, ["plan", "--price", "-3"], "'--price': Input should be greater than or equal to 0")


def test_fewer_tokens_a_step_than_requests_are_misuse_as_vllm_refuses_them(run, monkeypatch):
    monkeypatch.setenv("HERMES_ENGINE_ARGS", '{"max_num_batched_tokens": 10}')
    assert_misuse(run, ["plan"], "max_num_batched_tokens is 10; vLLM wants one for each of max_num_seqs 32")


def test_a_plan_for_other_gpus_than_the_profiles_says_what_to_set(run, monkeypatch):
    out = run("plan", "--gpus", "1xA100-80GB", "--quantization", "awq")[1]
    assert out.endswith("\nfits\n- a server does this with tensor_parallel_size 1 in HERMES_ENGINE_ARGS\n")
    monkeypatch.setenv("HERMES_ENGINE_ARGS", '{"tensor_parallel_size": 1}')
    code, out, _ = run("plan", "--gpus", "2xA100-80GB", "--quantization", "awq")
    assert (code, out.splitlines()[0][-15:]) == (0, "on 1x A100-80GB")
    monkeypatch.setenv("HERMES_ENGINE_ARGS", '{"tensor_parallel_size": 4}')
    assert_misuse(run, ["plan"], "tensor_parallel_size is 4; 2 are available")


@pytest.mark.parametrize("value", ['"auto"', "[8192]", "0"])
def test_a_value_that_vllm_would_refuse_is_named(run, monkeypatch, value):
    monkeypatch.setenv("HERMES_ENGINE_ARGS", f'{{"max_model_len": {value}}}')
    code, out, err = run("plan")
    assert (code, out) == (1, "")
    assert err.startswith("E1202 InvalidConfiguration: engine_args.max_model_len: ")


NO_PLANS = {
    "mixtral": "config.json: MixtralForCausalLM is not supported, only LlamaForCausalLM, MistralForCausalLM, ",
    "list": "config.json has no hidden_size; there is no plan for it\n",
    "cut": "config.json: Expecting ',' delimiter: line 1 column 8 (char 7); there is no plan for it\n",
}


@pytest.mark.parametrize(("repo", "problem"), NO_PLANS.items(), ids=NO_PLANS)
def test_without_a_shape_there_is_no_plan(run, repo, problem):
    code, out, err = run("plan", f"hf://org/{repo}")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(f"E1000 WeightsError: weights 'hf://org/{repo}@main': {problem}")
