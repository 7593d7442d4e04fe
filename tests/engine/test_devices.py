import json
import logging
import re
import subprocess
import sys

import pytest

from hermes.engine import devices, require_devices, require_fit
from hermes.engine.devices import cuda_gpus, gpus_of, require_memory
from hermes.errors import InvalidConfiguration, NoAccelerator, WeightsError
from hermes.settings import Settings
from hermes.sizing import EngineArguments, Gpu
from tests.support.fakes import LLAMA_8B, LLAMA_70B

CUDA_DEVICES = len(cuda_gpus())
GIB = 2**30
A100_BYTES_PER_S = 2_039 * 10**9


def gpus(*gib):
    return [Gpu("GPU of this machine", size * GIB, A100_BYTES_PER_S, has_fp8=False) for size in gib]


ARGUMENTS = Settings().arguments({}, quantised=False)


def test_the_local_profile_needs_no_device_and_no_torch():
    code = (
        "import sys; from hermes.engine import require_devices; from hermes.settings import Settings; "
        "require_devices(Settings(profile='local')); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


class Driver:
    """NVIDIA's driver API with devices of these names, bytes and attributes. It answers by reference, as the real one.

    Each call returns 0 for success.
    """

    def __init__(self, *devices):
        self.devices = devices

    def cuInit(self, flags):  # noqa: N802
        return flags

    def cuDeviceGetCount(self, count):  # noqa: N802
        count._obj.value = len(self.devices)
        return 0

    def cuDeviceGet(self, device, number):  # noqa: N802
        device._obj.value = number
        return 0

    def cuDeviceTotalMem_v2(self, size, device):  # noqa: N802
        size._obj.value = self.devices[device.value][1]
        return 0

    def cuDeviceGetName(self, name, length, device):  # noqa: N802
        name.value = self.devices[device.value][0].encode()[:length]
        return 0

    def cuDeviceGetAttribute(self, value, attribute, device):  # noqa: N802
        found = self.devices[device.value][2].get(attribute)
        value._obj.value = found or 0
        return found is None


def test_the_driver_tells_names_memory_and_bandwidth():
    """The attributes of an A100 with 80 GB are 1,593 MHz, 5,120 bits and capability 8.0; an H100 is 9.0."""
    a100 = ("NVIDIA A100-SXM4-80GB", 84_987_740_160, {36: 1_593_000, 37: 5_120, 75: 8, 76: 0})
    h100 = ("NVIDIA H100 80GB HBM3", 85_029_158_912, {36: 2_619_000, 37: 5_120, 75: 9, 76: 0})
    silent = ("a GPU of a driver that knows no attribute", GIB, {})
    assert gpus_of(Driver(a100, h100, silent)) == [
        Gpu("NVIDIA A100-SXM4-80GB", 84_987_740_160, 2_039_040_000_000, has_fp8=False),
        Gpu("NVIDIA H100 80GB HBM3", 85_029_158_912, 3_352_320_000_000, has_fp8=True),
        Gpu("a GPU of a driver that knows no attribute", GIB, 0, has_fp8=False),
    ]
    assert gpus_of(Driver()) == []


@pytest.mark.parametrize(
    ("profile", "draft", "said"),
    [
        ("production", None, "43,680 tokens of KV cache (5.3 x 8,192) and at most 29 tokens/s"),
        (
            "production",
            "ngram",
            "35,744 tokens of KV cache (4.4 x 8,192) and at most 147 tokens/s if every draft token is accepted",
        ),
        ("production-fp8", None, "251,280 tokens of KV cache (30.7 x 8,192) and at most 57 tokens/s"),
        (
            "production-fp8",
            LLAMA_8B,
            "144,496 tokens of KV cache (17.6 x 8,192) and at most 140 tokens/s if every draft token is accepted",
        ),
    ],
)
def test_the_log_says_what_a_profile_gives(config, monkeypatch, caplog, tmp_path, profile, draft, said):
    caplog.set_level(logging.INFO, "hermes")
    a100 = Gpu("NVIDIA A100-SXM4-80GB", 84_987_740_160, 2_039_040_000_000, has_fp8=False)
    monkeypatch.setattr(devices, "cuda_gpus", lambda: [a100, a100])
    folder = write_draft(tmp_path, draft) if draft not in (None, "ngram") else None
    require_fit(Settings(profile=profile, speculation=str(folder or draft) if draft else None), config, folder)
    assert caplog.messages == [f"engine: as planned, which no run on GPUs has confirmed: {said} for one client"]


def write_draft(folder, config):
    (folder / "draft").mkdir()
    (folder / "draft" / "config.json").write_text(json.dumps(config))
    return folder / "draft"


def drafting(model):
    return {"speculative_config": {"method": "draft_model", "model": str(model), "num_speculative_tokens": 3}}


def test_a_draft_that_leaves_no_room_is_refused_with_the_model(config, tmp_path):
    with pytest.raises(WeightsError, match=r"each of 2 GPUs needs 78.7 GiB, has 67.5 GiB; fp8"):
        require_memory(
            config, gpus(71, 71), EngineArguments.read({**ARGUMENTS, **drafting(write_draft(tmp_path, LLAMA_8B))})
        )


@pytest.mark.skipif(CUDA_DEVICES >= 2, reason="this machine has the GPUs")
def test_without_gpus_the_production_profile_is_refused():
    with pytest.raises(NoAccelerator, match=f"E1204 .* needs 2 CUDA devices and {CUDA_DEVICES} were found"):
        require_devices(Settings())


@pytest.mark.cuda
@pytest.mark.skipif(CUDA_DEVICES < 2, reason=f"needs 2 CUDA devices; this machine has {CUDA_DEVICES}")
def test_with_two_gpus_the_production_profile_is_accepted():
    require_devices(Settings())


def has(monkeypatch, *gib):
    monkeypatch.setattr(devices, "cuda_gpus", lambda: gpus(*gib))


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ({"tensor_parallel_size": 1}, 1),
        ({"tensor_parallel_size": "1"}, 1),
        ({"tensor_parallel_size": 4}, 4),
        ({"pipeline_parallel_size": 2}, 4),
        ({"data_parallel_size": 2, "tensor_parallel_size": 1}, 2),
        ({"distributed_executor_backend": "ray", "tensor_parallel_size": 8}, 1),
        ({"nnodes": 2, "tensor_parallel_size": 4}, 1),
    ],
)
def test_the_engine_arguments_say_how_many_gpus_are_needed(monkeypatch, arguments, found):
    """On several machines vLLM shares the model out, and each needs one at least."""
    has(monkeypatch, *[79] * found)
    require_devices(Settings(engine_args=arguments))
    has(monkeypatch, *[79] * (found - 1))
    with pytest.raises(NoAccelerator, match=f"needs {found} CUDA devices and {found - 1} were found"):
        require_devices(Settings(engine_args=arguments))


def test_one_gpu_is_enough_for_a_model_in_four_bits(config, monkeypatch, caplog):
    has(monkeypatch, 79)
    caplog.set_level(logging.INFO, "hermes")
    awq = {"quant_method": "awq", "bits": 4, "group_size": 128}
    config.write_text(json.dumps(LLAMA_70B | {"quantization_config": awq}))
    settings = Settings(engine_args={"tensor_parallel_size": 1})
    require_devices(settings)
    require_fit(settings, config)
    assert "120,848 tokens of KV cache" in caplog.messages[-1]


def test_a_folder_that_wants_more_gpus_than_there_are_is_refused_before_its_shards_come(config, monkeypatch):
    has(monkeypatch, 79, 79)
    (config.parent / "predictor_config.json").write_text(json.dumps({"engine_args": {"tensor_parallel_size": 4}}))
    with pytest.raises(NoAccelerator, match="needs 4 CUDA devices and 2 were found"):
        require_fit(Settings(), config)


@pytest.mark.parametrize("arguments", [{"tensor_parallel_size": None}, {"max_model_len": "auto"}, {"max_num_seqs": []}])
def test_a_value_of_a_wrong_type_is_named_before_anything_is_fetched(arguments):
    [name] = arguments
    with pytest.raises(
        InvalidConfiguration, match=rf"E1202 InvalidConfiguration: engine_args\.{name}: Input should be"
    ):
        require_devices(Settings(engine_args=arguments))


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(LLAMA_70B))
    return path


@pytest.mark.parametrize(
    ("gib", "changes"),
    [
        pytest.param([79, 79], {}, id="two A100 with 80 GB"),
        pytest.param([79, 79, 4], {}, id="and a small one that is not used"),
        pytest.param([40] * 4, {"tensor_parallel_size": 4}, id="four A100 with 40 GB"),
        pytest.param([72, 72], {"max_model_len": 512, "max_num_seqs": 1}, id="less room, and less asked for"),
    ],
)
def test_a_model_that_fits_is_loaded(config, gib, changes, caplog):
    caplog.set_level(logging.INFO, "hermes")
    require_memory(config, gpus(*gib), EngineArguments.read({**ARGUMENTS, **changes}))
    [message] = caplog.messages
    assert message.startswith("engine: as planned, which no run on GPUs has confirmed: ")
    assert re.search(r"[1-9][\d,]+ tokens of KV cache .* and at most \d\d tokens/s for one client$", message)


@pytest.mark.parametrize(
    ("gib", "changes", "problem"),
    [
        pytest.param(
            [40, 40],
            {},
            "each of 2 GPUs needs 69.8 GiB, has 38.0 GiB; awq would give ",
            id="two with 40 GB",
        ),
        pytest.param([79, 40], {}, "each of 2 GPUs needs 69.8 GiB, has 38.0 GiB; awq", id="one of them smaller"),
        pytest.param(
            [79],
            {"tensor_parallel_size": 1},
            "the GPU needs 135.1 GiB, has 75.1 GiB; fp8",
            id="one alone",
        ),
        pytest.param(
            [10],
            {"tensor_parallel_size": 1},
            "the GPU needs 135.1 GiB, has 9.5 GiB; serve a smaller model, or on more GPUs",
            id="nothing helps",
        ),
        pytest.param(
            [79] * 3,
            {"tensor_parallel_size": 3},
            "64 attention heads can't be split over 3 GPUs; 2x GPU of this machine would give ",
            id="no third of it",
        ),
    ],
)
def test_weights_that_cannot_fit_are_refused_with_the_numbers_and_a_next_step(config, gib, changes, problem):
    with pytest.raises(WeightsError) as raised:
        require_memory(config, gpus(*gib), EngineArguments.read({**ARGUMENTS, **changes}))
    model = "LlamaForCausalLM of 70.6 billion parameters"
    assert str(raised.value).startswith(f"E1000 WeightsError: weights '{model}': it does not fit: {problem}")


def test_a_model_whose_weights_fit_and_perhaps_not_its_kv_cache_is_a_warning_with_the_numbers(config, caplog):
    require_memory(config, gpus(70, 70), EngineArguments.read(ARGUMENTS))
    [record] = caplog.records
    assert (record.levelname, record.getMessage().partition("; fp8")[0]) == (
        "WARNING",
        "engine: the weights fit (65.7 of 66.5 GiB), but by an estimate each of 2 GPUs needs 69.8 GiB, has 66.5 GiB; "
        "vLLM may not start",
    )


@pytest.mark.parametrize(
    ("text", "changes"),
    [
        pytest.param(json.dumps(LLAMA_70B | {"architectures": ["MixtralForCausalLM"]}), {}, id="another architecture"),
        pytest.param("{}", {}, id="nothing in it"),
        pytest.param("[]", {}, id="no object"),
        pytest.param("{", {}, id="no JSON"),
        pytest.param(json.dumps(LLAMA_70B), {"max_model_len": 9000}, id="a longer context than it has"),
        pytest.param(json.dumps(LLAMA_70B), {"quantization": "fp8"}, id="a quantisation that vLLM does not do"),
        pytest.param(json.dumps(LLAMA_70B), drafting("hf-org/small"), id="a draft that is not here"),
    ],
)
def test_what_cannot_be_judged_is_left_to_vllm(config, caplog, text, changes):
    caplog.set_level(logging.INFO, "hermes")
    config.write_text(text)
    require_memory(config, gpus(1, 1), EngineArguments.read({**ARGUMENTS, **changes}))
    [message] = caplog.messages
    assert message.startswith("engine: not planned: ")
    assert message.endswith("; vLLM has to find out whether the model fits")


def test_without_gpus_nothing_is_judged(config):
    require_memory(config, [], EngineArguments.read(ARGUMENTS))


@pytest.fixture
def two_of_40_gib(monkeypatch):
    monkeypatch.setattr(devices, "cuda_gpus", lambda: gpus(40, 40))


def test_the_model_of_the_settings_is_judged_on_the_gpus_of_this_machine(config, two_of_40_gib):
    with pytest.raises(WeightsError, match=r"each of 2 GPUs needs 69.8 GiB, has 38.0 GiB; awq would give"):
        require_fit(Settings(), config)


def test_the_arguments_that_come_with_a_model_count(config, two_of_40_gib):
    arguments = {"engine_args": {"quantization": "fp8_per_tensor"}}
    (config.parent / "predictor_config.json").write_text(json.dumps(arguments))
    require_fit(Settings(), config)


def test_a_cache_in_8_bits_is_planned_as_the_checkpoint_or_the_arguments_say(config, monkeypatch, caplog):
    has(monkeypatch, 79, 79)
    caplog.set_level(logging.INFO, "hermes")
    require_fit(Settings(engine_args={"kv_cache_dtype": "fp8"}), config)
    fp8 = {"num_bits": 8, "type": "float", "strategy": "channel"}
    cache = {"kv_cache_scheme": {"num_bits": 8, "type": "float"}, "quant_method": "compressed-tensors"}
    quantised = {"config_groups": {"group_0": {"weights": fp8}}}
    for declared in (quantised | cache, quantised | {"quant_method": "compressed-tensors"}):
        config.write_text(json.dumps(LLAMA_70B | {"quantization_config": declared}))
        require_fit(Settings(), config)
    tokens = [int(re.search(r"([\d,]+) tokens of KV", message)[1].replace(",", "")) for message in caplog.messages]
    assert tokens == [85_472, 503_264, 251_632]


@pytest.mark.parametrize(
    "arguments",
    [
        {"pipeline_parallel_size": 2, "tensor_parallel_size": 1},
        {"cpu_offload_gb": 4},
        {"kv_cache_memory_bytes": 2**30},
        {"num_gpu_blocks_override": 100},
        {"enable_lora": True},
        {"compilation_config": {"cudagraph_mode": "NONE"}},
        {"max_model_len": -1},
        {"dtype": "float32"},
        {"kv_cache_dtype": "int8_per_token_head"},
        {"speculative_config": {"method": "suffix", "num_speculative_tokens": 8}},
        {"an_argument_of_a_later_vllm": 1},
    ],
    ids=str,
)
def test_with_an_argument_that_is_not_counted_no_number_is_logged(config, two_of_40_gib, caplog, arguments):
    caplog.set_level(logging.INFO, "hermes")
    require_fit(Settings(engine_args=arguments), config)
    [name] = arguments.keys() - {"tensor_parallel_size"}
    assert caplog.messages == [f"engine: not planned: {name}; vLLM has to find out whether the model fits"]


def test_on_the_cpu_nothing_is_judged(config):
    config.unlink()
    require_fit(Settings(profile="local"), config)
