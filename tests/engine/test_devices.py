import json
import logging
import re
import subprocess
import sys

import pytest

from hermes.engine import devices, require_devices, require_fit
from hermes.engine.devices import UNPLANNED, cuda_gpus, gpus_of, require_memory
from hermes.errors import NoAccelerator, WeightsError
from hermes.settings import PROFILES, Settings
from hermes.sizing import Gpu
from tests.support.fakes import LLAMA_8B, LLAMA_70B

CUDA_DEVICES = len(cuda_gpus())
GIB = 2**30
A100_BYTES_PER_S = 2_039 * 10**9


def gpus(*gib):
    return [Gpu("GPU of this machine", size * GIB, A100_BYTES_PER_S, has_fp8=False) for size in gib]


ARGUMENTS = dict(PROFILES["production"].engine_args)


def test_the_local_profile_needs_no_device_and_no_torch():
    code = (
        "import sys; from hermes.engine import require_devices; from hermes.settings import PROFILES; "
        "require_devices(PROFILES['local']); assert 'torch' not in sys.modules"
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
        ("production", None, "43,680 tokens of KV cache (5.3 x 8,192) and at most 29 tokens/s for one client"),
        ("production-fp8", None, "254,544 tokens of KV cache (31.1 x 8,192) and at most 56 tokens/s for one client"),
        (
            "production-fp8",
            LLAMA_8B,
            "146,288 tokens of KV cache (17.9 x 8,192) and at most 56 tokens/s for one client",
        ),
    ],
)
def test_the_log_says_what_a_profile_gives(config, monkeypatch, caplog, tmp_path, profile, draft, said):
    caplog.set_level(logging.INFO, "hermes")
    a100 = Gpu("NVIDIA A100-SXM4-80GB", 84_987_740_160, 2_039_040_000_000, has_fp8=False)
    monkeypatch.setattr(devices, "cuda_gpus", lambda: [a100, a100])
    if draft:
        (tmp_path / "draft").mkdir()
        (tmp_path / "draft" / "config.json").write_text(json.dumps(draft))
    require_fit(Settings(profile=profile), config, tmp_path / "draft" if draft else None)
    assert caplog.messages == [f"engine: as planned, which no run on GPUs has confirmed: {said}"]


def test_a_draft_that_leaves_no_room_is_refused_with_the_model(config, tmp_path):
    (tmp_path / "draft").mkdir()
    (tmp_path / "draft" / "config.json").write_text(json.dumps(LLAMA_8B))
    with pytest.raises(WeightsError, match=r"each of 2 GPUs needs 77.9 GiB, has 67.5 GiB; fp8"):
        require_memory(config, gpus(71, 71), ARGUMENTS, tmp_path / "draft")


@pytest.mark.skipif(CUDA_DEVICES >= 2, reason="this machine has the GPUs")
def test_without_gpus_the_production_profile_is_refused():
    with pytest.raises(NoAccelerator, match=f"E1204 .* needs 2 CUDA devices and {CUDA_DEVICES} were found"):
        require_devices(PROFILES["production"])


@pytest.mark.cuda
@pytest.mark.skipif(CUDA_DEVICES < 2, reason=f"needs 2 CUDA devices; this machine has {CUDA_DEVICES}")
def test_with_two_gpus_the_production_profile_is_accepted():
    require_devices(PROFILES["production"])


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
    require_memory(config, gpus(*gib), {**ARGUMENTS, **changes})
    [message] = caplog.messages
    assert message.startswith("engine: as planned, which no run on GPUs has confirmed: ")
    assert re.search(r"[1-9][\d,]+ tokens of KV cache .* and at most \d\d tokens/s for one client$", message)


@pytest.mark.parametrize(
    ("gib", "changes", "problem"),
    [
        pytest.param(
            [40, 40],
            {},
            "each of 2 GPUs needs 69.8 GiB, has 38.0 GiB; fp8 weight-only (Marlin) would give ",
            id="two with 40 GB",
        ),
        pytest.param([79, 40], {}, "each of 2 GPUs needs 69.8 GiB, has 38.0 GiB; fp8", id="one of them smaller"),
        pytest.param(
            [79],
            {"tensor_parallel_size": 1},
            "the GPU needs 135.0 GiB, has 75.1 GiB; fp8",
            id="one alone",
        ),
        pytest.param(
            [10],
            {"tensor_parallel_size": 1},
            "the GPU needs 135.0 GiB, has 9.5 GiB; serve a smaller model, or on more GPUs",
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
        require_memory(config, gpus(*gib), {**ARGUMENTS, **changes})
    model = "LlamaForCausalLM of 70.6 billion parameters"
    assert str(raised.value).startswith(f"E1000 WeightsError: weights '{model}': it does not fit: {problem}")


def test_a_model_whose_weights_fit_and_perhaps_not_its_kv_cache_is_a_warning_with_the_numbers(config, caplog):
    require_memory(config, gpus(70, 70), ARGUMENTS)
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
        pytest.param(json.dumps(LLAMA_70B), {"max_model_len": "auto"}, id="a word for a number"),
        pytest.param(json.dumps(LLAMA_70B), {"tensor_parallel_size": None}, id="no number of GPUs"),
    ],
)
def test_what_cannot_be_judged_is_left_to_vllm(config, caplog, text, changes):
    caplog.set_level(logging.INFO, "hermes")
    config.write_text(text)
    require_memory(config, gpus(1, 1), {**ARGUMENTS, **changes})
    [message] = caplog.messages
    assert message.startswith("engine: vLLM has to find out whether the model fits (")


def test_without_gpus_nothing_is_judged(config):
    require_memory(config, [], ARGUMENTS)


@pytest.fixture
def two_of_40_gib(monkeypatch):
    monkeypatch.setattr(devices, "cuda_gpus", lambda: gpus(40, 40))


def test_the_model_of_the_settings_is_judged_on_the_gpus_of_this_machine(config, two_of_40_gib):
    with pytest.raises(WeightsError, match=r"each of 2 GPUs needs 69.8 GiB, has 38.0 GiB; fp8 weight-only"):
        require_fit(Settings(), config)


def test_the_arguments_that_come_with_a_model_count(config, two_of_40_gib):
    arguments = {"engine_args": {"quantization": "fp8_per_tensor"}}
    (config.parent / "predictor_config.json").write_text(json.dumps(arguments))
    require_fit(Settings(), config)


@pytest.mark.parametrize("name", sorted(UNPLANNED))
def test_arguments_that_change_the_sum_leave_it_to_vllm(config, name):
    config.unlink()  # nobody looks at it
    require_fit(Settings(engine_args={name: 1}), config)


def test_on_the_cpu_nothing_is_judged(config):
    config.unlink()
    require_fit(Settings(profile="local"), config)
