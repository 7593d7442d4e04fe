import ast
import json
import re
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from hermes import settings as settings_module
from hermes.errors import InvalidConfiguration
from hermes.settings import FOLDER_MAY_SET, PROFILES, Settings, cpu_dtype, death_grace


def test_the_image_serves_hermes_on_two_gpus_by_default():
    settings = Settings.load()
    assert (settings.profile, settings.source) == ("production", "hf://NousResearch/Hermes-2-Theta-Llama-3-70B")
    assert settings.defaults.on_gpus
    assert settings.defaults.engine_args["tensor_parallel_size"] == 2


def test_the_small_model_is_served_only_when_asked_for(monkeypatch):
    monkeypatch.setenv("HERMES_PROFILE", "local")
    settings = Settings.load()
    assert (settings.source, settings.defaults.on_gpus) == ("demo", False)


def test_the_environment_wins_over_the_file_and_the_file_over_the_profile(monkeypatch, tmp_path):
    monkeypatch.setenv("HERMES_ENGINE_ARGS", '{"dtype": "float32"}')
    config = {"prompt_template": "A {prompt}", "engine_args": {"dtype": "float16", "max_model_len": 512}}
    (tmp_path / "predictor_config.json").write_text(json.dumps(config))
    settings = Settings.load().with_predictor_config(tmp_path)
    assert settings.engine_args == {
        **PROFILES["production"].engine_args,
        "max_num_seqs": 32,
        "dtype": "float32",
        "max_model_len": 512,
    }
    assert settings.prompt_template == "A {prompt}"
    monkeypatch.setenv("HERMES_PROMPT_TEMPLATE", "B {prompt}")
    assert Settings.load().with_predictor_config(tmp_path).prompt_template == "B {prompt}"


def test_without_a_file_the_profile_decides(tmp_path):
    settings = Settings.load().with_predictor_config(tmp_path)
    assert settings.engine_args == {**PROFILES["production"].engine_args, "max_num_seqs": 32}
    assert settings.prompt_template is None


def test_the_fp8_profile_is_production_with_weights_in_8_bits():
    bf16, fp8 = PROFILES["production"], PROFILES["production-fp8"]
    assert (fp8.model, fp8.on_gpus, fp8.environment) == (bf16.model, bf16.on_gpus, bf16.environment)
    assert {**fp8.engine_args, **bf16.engine_args} == fp8.engine_args
    assert {name: value for name, value in fp8.engine_args.items() if name not in bf16.engine_args} == {
        "quantization": "fp8_per_block",
        "kv_cache_dtype": "auto",
        "max_num_batched_tokens": 1024,
        "cudagraph_capture_sizes": [1, 2, 4, 8, 16, 24, 32],
    }


@pytest.mark.parametrize(
    ("flags", "dtype"),
    [
        pytest.param("flags\t\t: fma avx2 avx512f avx512bw avx512_vnni avx512_vpopcntdq", "float32", id="Ice Lake"),
        pytest.param("flags\t\t: sse4_2 fma f16c avx2 avx_vnni avx_ne_convert", "float32", id="without AVX-512"),
        pytest.param("flags\t\t: avx512_vnni avx512_bf16 amx_bf16 amx_tile amx_int8", "bfloat16", id="Sapphire Rapids"),
        pytest.param("flags\t\t: avx512f avx512_bf16", "bfloat16", id="Zen 4"),
        pytest.param("Features\t: fp asimd sve svebf16 i8mm bf16 dgh", "bfloat16", id="Graviton3"),
        pytest.param("Features\t: fp asimd evtstrm aes fphp asimdhp cpuid asimdrdm", "float32", id="Graviton2"),
        pytest.param("", "float32", id="no such file, as on macOS"),
    ],
)
def test_a_cpu_without_instructions_for_bfloat16_computes_in_float32(flags, dtype):
    assert cpu_dtype(f"processor\t: 0\n{flags}\n\nprocessor\t: 1\n{flags}\n") == dtype


@pytest.mark.parametrize(
    ("size", "own", "dtype"),
    [(100, {}, "float32"), (5_000_000_000, {}, "bfloat16"), (5_000_000_000, {"dtype": "float32"}, "float32")],
)
def test_a_large_model_is_not_served_in_float32_unasked(tmp_path, monkeypatch, size, own, dtype):
    local = PROFILES["local"]
    slow = replace(local, engine_args={**local.engine_args, "dtype": "float32"})
    monkeypatch.setattr(settings_module, "PROFILES", {**PROFILES, "local": slow})
    for number in range(2):
        with (tmp_path / f"{number}.safetensors").open("wb") as file:
            file.truncate(size // 2)
    settings = Settings(profile="local", engine_args=own).with_predictor_config(tmp_path)
    assert settings.engine_args["dtype"] == dtype


def test_no_rank_decides_alone_what_it_measures_at_the_start():
    """With a startup plan on disk, a rank that accepts it waits for ever for one that does not."""
    assert not [name for profile in PROFILES.values() for name in profile.environment if "STARTUP_PLAN" in name]


@pytest.mark.parametrize(
    ("config", "quantization"),
    [
        pytest.param({}, "fp8_per_block", id="a checkpoint in 16 bits"),
        pytest.param({"quantization_config": {"quant_method": "compressed-tensors"}}, None, id="one in 8 bits"),
    ],
)
def test_the_fp8_profile_quantises_no_checkpoint_twice(tmp_path, config, quantization):
    (tmp_path / "config.json").write_text(json.dumps(config))
    settings = Settings(profile="production-fp8").with_predictor_config(tmp_path)
    assert settings.engine_args.get("quantization") == quantization
    assert settings.engine_args["max_num_batched_tokens"] == 1024


@pytest.mark.parametrize(("speculation", "draft"), [(None, None), ("ngram", None), ("hf://me/small", "hf://me/small")])
def test_one_setting_names_what_guesses_ahead(speculation, draft):
    assert Settings(speculation=speculation).draft == draft


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_only_safetensors_are_loaded_unless_whoever_runs_the_server_says_otherwise(profile, monkeypatch, tmp_path):
    assert profile.engine_args["load_format"] == "safetensors"
    monkeypatch.setenv("HERMES_ENGINE_ARGS", '{"load_format": "runai_streamer"}')
    assert Settings.load().with_predictor_config(tmp_path).engine_args["load_format"] == "runai_streamer"


@pytest.fixture(scope="module")
def vllm_arguments():
    """The names and types of vLLM's engine arguments, as its source has them; to import it takes seconds."""
    source = Path(find_spec("vllm").origin).parent / "engine" / "arg_utils.py"
    found = next(node for node in ast.parse(source.read_text()).body if getattr(node, "name", None) == "EngineArgs")
    fields = [node for node in found.body if isinstance(node, ast.AnnAssign)]
    return {node.target.id: ast.unparse(node.annotation) for node in fields}


def test_what_a_folder_may_set_are_numbers_switches_and_names_out_of_a_list(vllm_arguments):
    lists = {"ModelDType", "CacheDType", "OptimizationLevel", "PerformanceMode", "SchedulerPolicy"}
    plain = {"int", "float", "bool", "None", "list[int]"} | lists
    types = {name: set(vllm_arguments[name].split(" | ")) for name in FOLDER_MAY_SET}
    assert types.pop("quantization") == {"QuantizationMethods", "str", "None"}  # looked up among vLLM's own
    assert {name: kinds for name, kinds in types.items() if not kinds <= plain} == {}


def write_engine_args(folder, **engine_args):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "predictor_config.json").write_text(json.dumps({"engine_args": engine_args}))
    return folder


def test_no_other_argument_of_vllm_is_a_folders_to_set(vllm_arguments, tmp_path):
    for name in vllm_arguments.keys() - FOLDER_MAY_SET:
        with pytest.raises(InvalidConfiguration, match=rf"predictor_config\.json\.engine_args\.{name}: "):
            Settings.load().with_predictor_config(write_engine_args(tmp_path, **{name: 1}))


@pytest.mark.parametrize("name", ["trust_remote_code", "load_format", "worker_cls", "max_model_length", ""])
def test_what_a_folder_may_not_set_is_named_with_the_next_step(tmp_path, name):
    folder = write_engine_args(tmp_path, **{"dtype": "float16", name: True})
    message = (
        f"E1202 InvalidConfiguration: predictor_config.json.engine_args.{name}: a weights folder may not set this; "
        "to set it, use HERMES_ENGINE_ARGS"
    )
    with pytest.raises(InvalidConfiguration, match=f"^{re.escape(message)}$"):
        Settings.load().with_predictor_config(folder)


def test_whoever_runs_the_server_may_set_anything(monkeypatch, tmp_path):
    monkeypatch.setenv("HERMES_ENGINE_ARGS", '{"trust_remote_code": true}')
    assert Settings.load().with_predictor_config(tmp_path).engine_args["trust_remote_code"] is True


def test_every_field_is_a_variable(monkeypatch):
    monkeypatch.setenv("HERMES_MODEL", "hf://me/mine@abc")
    monkeypatch.setenv("HERMES_WEIGHTS_DIR", "elsewhere")
    monkeypatch.setenv("HERMES_WEIGHTS_LOCK", "locked.json")
    monkeypatch.setenv("HERMES_HUB_TOKEN", "hf_secret")
    settings = Settings.load()
    assert (settings.source, settings.weights_dir) == ("hf://me/mine@abc", Path("elsewhere"))
    assert settings.weights_lock == Path("locked.json")
    assert "hf_secret" not in repr(settings)


@pytest.mark.parametrize("name", ["HERMES_GATEWAY_TOKENS", "HERMES_GATEWAY_TOKENS_FILE", "HERMES_GATEWAY_PORT"])
def test_a_variable_of_the_gateway_beside_it_is_not_the_servers(monkeypatch, name):
    monkeypatch.setenv(name, "secret")
    assert "secret" not in repr(Settings.load())


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("HERMES_PROFIL", "local", "E1202 .*HERMES_PROFIL: there is no such setting; there are .*HERMES_PROFILE"),
        ("HERMES_GATEWAY_TOKEN", "secret", "E1202 .*HERMES_GATEWAY_TOKEN: there is no such setting"),
        ("HERMES_PROFILE", "laptop", "E1202 .*HERMES_PROFILE: .*'production', 'production-fp8' or 'local'"),
        ("HERMES_ENGINE_ARGS", "{dtype: 1}", "E1202 .*HERMES_ENGINE_ARGS: this is not a JSON object"),
        ("HERMES_ENGINE_ARGS", "[1]", "E1202 .*HERMES_ENGINE_ARGS: .*dict"),
        ("HERMES_ENGINE_DEATH_GRACE", "abc", "E1202 .*HERMES_ENGINE_DEATH_GRACE: .*valid number.* or .*'off'"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(monkeypatch, name, value, message):
    monkeypatch.setenv(name, value)
    with pytest.raises(InvalidConfiguration, match=message):
        Settings.load()


def test_an_empty_variable_is_an_unset_one_but_for_the_template_where_it_is_chatml(monkeypatch, tmp_path):
    unset = Settings.load()
    for name in Settings.model_fields:
        monkeypatch.setenv(f"HERMES_{name.upper()}", "")
    assert Settings.load() == unset.model_copy(update={"prompt_template": ""})
    (tmp_path / "predictor_config.json").write_text('{"prompt_template": "A {prompt}"}')
    assert Settings.load().with_predictor_config(tmp_path).prompt_template == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "predictor_config.json: this is not a JSON file"),
        ('{"engine_arg": {}}', "predictor_config.json.engine_arg: Extra inputs"),
        ('{"engine_args": 3}', "predictor_config.json.engine_args: "),
        ("[]", "predictor_config.json: "),
    ],
)
def test_a_predictor_config_that_cannot_be_used_is_named(tmp_path, text, message):
    (tmp_path / "predictor_config.json").write_text(text)
    with pytest.raises(InvalidConfiguration, match=message):
        Settings.load().with_predictor_config(tmp_path)


@pytest.mark.parametrize("value", ["0", "-1", "many", ""])
def test_a_number_of_slots_that_is_none_is_refused(monkeypatch, value):
    monkeypatch.setenv("COG_MAX_CONCURRENCY", value)
    with pytest.raises(InvalidConfiguration, match=r"COG_MAX_CONCURRENCY: is .* from 1 up"):
        Settings().slots  # noqa: B018


def test_the_engine_takes_as_many_sequences_as_there_are_slots_unless_told_otherwise(monkeypatch, tmp_path):
    monkeypatch.setenv("COG_MAX_CONCURRENCY", "5")
    assert Settings(profile="local").with_predictor_config(tmp_path).engine_args["max_num_seqs"] == 5
    told = Settings(profile="local", engine_args={"max_num_seqs": 7})
    assert told.with_predictor_config(tmp_path).engine_args["max_num_seqs"] == 7


@pytest.mark.parametrize(("value", "grace"), [("off", "off"), ("2.5", 2.5), ("-1", 10), ("soon", 10), (None, 10)])
def test_the_grace_of_a_failed_start_is_known_although_another_setting_is_invalid(monkeypatch, value, grace):
    monkeypatch.setenv("HERMES_STALL_TIMEOUT", "never")
    if value:
        monkeypatch.setenv("HERMES_ENGINE_DEATH_GRACE", value)
    with pytest.raises(InvalidConfiguration):
        Settings.load()
    assert death_grace() == grace
