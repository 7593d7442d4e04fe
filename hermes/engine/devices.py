"""Asks, before anything is loaded, whether the GPUs are there and whether the model fits on them.

NVIDIA's driver answers through libcuda. That opens no CUDA context and spares the seconds that torch takes to import.
"""

import ctypes
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hermes.engine.installation import installed_build, is_for_cpus
from hermes.engine.speculation import engine_arguments
from hermes.errors import NoAccelerator, WeightsError
from hermes.settings import Settings
from hermes.sizing import EngineArguments, Gpu, ModelShape, plan_memory
from hermes.sizing.gpus import gib

logger = logging.getLogger(__name__)

# CUdevice_attribute, in NVIDIA's cuda.h
CLOCK_KHZ, BUS_BITS, CAPABILITY_MAJOR, CAPABILITY_MINOR = 36, 37, 75, 76
FP8_CAPABILITY = (9, 0)  # 8.9 multiplies in 8 bits, too, but vLLM has no such kernel for blocks there


def require_devices(settings: Settings) -> None:
    """Look whether the machine has the GPUs that the settings and their profile need.

    Raises:
        NoAccelerator: there are fewer CUDA devices.
        InvalidConfiguration: an engine argument has a value that cannot be used.
    """
    if not settings.defaults.on_gpus:
        return
    gpus = cuda_gpus()
    _require_count(settings, EngineArguments.read(settings.arguments({}, quantised=False)), len(gpus))
    least = min(gpu.memory_bytes for gpu in gpus)
    logger.info("engine: %d CUDA devices, %.1f GiB at least each", len(gpus), least / 2**30)


def _require_count(settings: Settings, arguments: EngineArguments, found: int) -> None:
    if found < arguments.local_gpus:
        cpu_build = is_for_cpus(installed_build())
        raise NoAccelerator(settings.profile, arguments.local_gpus, found, cpu_build=cpu_build)


def require_fit(settings: Settings, config: Path, draft: Path | None = None) -> None:
    """Look, before the download, whether the model with this config.json fits on the GPUs that are to serve it.

    If only the weights surely fit, it warns: what vLLM takes beside weights is an estimate.
    It passes arguments and kinds of models that the arithmetic does not know.

    Args:
        settings: of the server.
        config: the path of the model's config.json; its predictor_config.json may be beside it.
        draft: the folder of the draft model; None without one.

    Raises:
        WeightsError: the weights alone do not fit.
        NoAccelerator: predictor_config.json wants more GPUs than there are.
        InvalidConfiguration: an argument has a value that cannot be used.
    """
    arguments = EngineArguments.read(engine_arguments(settings.with_predictor_config(config.parent), draft))
    if settings.defaults.on_gpus:
        gpus = cuda_gpus()
        _require_count(settings, arguments, len(gpus))
        require_memory(config, gpus, arguments)


def require_memory(config: Path, gpus: Sequence[Gpu], arguments: EngineArguments) -> None:
    """As `require_fit`, for these GPUs and all engine arguments."""
    if unknown := arguments.not_planned:
        logger.info("engine: not planned: %s; vLLM has to find out whether the model fits", ", ".join(unknown))
        return
    count, speculation = arguments.tensor_parallel_size, arguments.speculative_config
    try:
        shape = _shape(config)
        draft = _shape(Path(speculation.draft, "config.json")) if speculation and speculation.draft else None
        gpu = min(gpus[:count], key=lambda each: each.memory_bytes)
        plan = plan_memory(shape, gpu, count, draft=draft, **arguments.planned)
    except (ValueError, TypeError, OSError) as error:  # of a config.json
        logger.info("engine: not planned: %s; vLLM has to find out whether the model fits", error)
        return
    if plan.fits:
        logger.info("engine: as planned, which no run on GPUs has confirmed: %s for one client", plan.gains)
        return
    advice = plan.suggestions[0] if plan.suggestions else "serve a smaller model, or on more GPUs"
    problem = plan.split_problem or f"{f'each of {count} GPUs' if count > 1 else 'the GPU'} {plan.problem}"
    if plan.split_problem or plan.models_bytes > plan.budget_bytes:
        model = f"{shape.architecture} of {shape.parameters / 1e9:.1f} billion parameters"
        raise WeightsError(model, f"it does not fit: {problem}", advice)
    logger.warning(
        "engine: the weights fit (%s of %s GiB), but by an estimate %s; vLLM may not start; %s",
        gib(plan.models_bytes),
        gib(plan.budget_bytes),
        problem,
        advice,
    )


def _shape(config: Path) -> ModelShape:
    return ModelShape.from_config(dict(json.loads(config.read_text(encoding="utf-8"))))


def cuda_gpus() -> list[Gpu]:
    """The CUDA devices that this process may use, as NVIDIA's driver names them. The list is empty without a driver."""
    try:
        return gpus_of(ctypes.CDLL("libcuda.so.1"))
    except OSError:
        return []


def gpus_of(driver: Any) -> list[Gpu]:
    """As `cuda_gpus`. The bandwidth is the memory's clock, twice a cycle, times the width of its bus.

    Args:
        driver: the library of NVIDIA's driver API, https://docs.nvidia.com/cuda/cuda-driver-api/
    """
    count, device, size = ctypes.c_int(), ctypes.c_int(), ctypes.c_size_t()
    name, value = ctypes.create_string_buffer(100), ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return []

    def attribute(number: int) -> int:
        return 0 if driver.cuDeviceGetAttribute(ctypes.byref(value), number, device) else value.value

    gpus = []
    for number in range(count.value):
        if not driver.cuDeviceGet(ctypes.byref(device), number):
            driver.cuDeviceTotalMem_v2(ctypes.byref(size), device)
            driver.cuDeviceGetName(name, len(name), device)
            bandwidth = attribute(CLOCK_KHZ) * 1000 * 2 * attribute(BUS_BITS) // 8
            has_fp8 = (attribute(CAPABILITY_MAJOR), attribute(CAPABILITY_MINOR)) >= FP8_CAPABILITY
            gpus.append(Gpu(name.value.decode(), size.value, bandwidth, has_fp8))
    return gpus
