"""Asks, before anything is loaded, whether the GPUs are there and whether the model fits on them.

NVIDIA's driver answers through libcuda. That opens no CUDA context and spares the seconds that torch takes to import.
"""

import ctypes
import json
import logging
from pathlib import Path

from hermes.errors import NoAccelerator, WeightsError
from hermes.settings import Profile, Settings
from hermes.sizing import Gpu, ModelShape, plan_memory
from hermes.sizing.gpus import gib

logger = logging.getLogger(__name__)

# Arguments that the arithmetic does not know. With one of these, vLLM has to find out.
UNPLANNED = {"pipeline_parallel_size", "data_parallel_size", "quantization", "kv_cache_dtype", "cpu_offload_gb"}


def require_devices(profile: Profile) -> None:
    """Raises NoAccelerator if the machine has fewer CUDA devices than the profile needs."""
    if not profile.cuda_devices:
        return
    memory = cuda_memory()
    if len(memory) < profile.cuda_devices:
        raise NoAccelerator(profile.name, profile.cuda_devices, len(memory))
    logger.info("engine: %d CUDA devices, %.1f GiB at least each", len(memory), min(memory) / 2**30)


def require_fit(settings: Settings, config: Path) -> None:
    """Look, before the download, whether the model with this config.json fits on the GPUs that are to serve it.

    If only the weights surely fit, it warns: what vLLM takes beside weights is an estimate.
    It passes arguments and kinds of models that the arithmetic does not know.

    Raises WeightsError if the weights alone do not fit.
    """
    arguments = settings.with_predictor_config(config.parent).engine_args
    if settings.defaults.cuda_devices and not arguments.keys() & UNPLANNED:
        require_memory(config, cuda_memory(), arguments)


def require_memory(config: Path, memory: list[int], arguments: dict[str, object]) -> None:
    """As `require_fit`, for GPUs with `memory` bytes each and these engine arguments."""
    names = ("max_model_len", "gpu_memory_utilization", "max_num_seqs", "max_num_batched_tokens")
    known = {name: arguments[name] for name in names if name in arguments}
    try:
        shape = ModelShape.from_config(dict(json.loads(config.read_text(encoding="utf-8"))))
        count = int(str(arguments.get("tensor_parallel_size", 1)))
        gpu = Gpu("GPU of this machine", min(memory[:count]), bandwidth_bytes_per_s=0, has_fp8=False)
        plan = plan_memory(shape, gpu, count, **known)  # type: ignore[arg-type]
    except (ValueError, TypeError) as error:
        logger.info("engine: vLLM has to find out whether the model fits (%s)", error)
        return
    if plan.fits:
        return
    advice = plan.suggestions[0] if plan.suggestions else "serve a smaller model, or on more GPUs"
    split = shape.split_problem(count)
    problem = split or f"{f'each of {count} GPUs' if count > 1 else 'the GPU'} {plan.problem}"
    if split or plan.weights_bytes > plan.budget_bytes:
        model = f"{shape.architecture} of {shape.parameters / 1e9:.1f} billion parameters"
        raise WeightsError(model, f"it does not fit: {problem}", advice)
    logger.warning(
        "engine: the weights fit (%s of %s GiB), but by an estimate %s; vLLM may not start; %s",
        gib(plan.weights_bytes),
        gib(plan.budget_bytes),
        problem,
        advice,
    )


def cuda_memory() -> list[int]:
    """Bytes of memory of each CUDA device that this process may use. The list is empty without a driver."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return []
    count, device, size = ctypes.c_int(), ctypes.c_int(), ctypes.c_size_t()
    if cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)):
        return []
    memory = []
    for number in range(count.value):
        if not cuda.cuDeviceGet(ctypes.byref(device), number):
            cuda.cuDeviceTotalMem_v2(ctypes.byref(size), device)
            memory.append(size.value)
    return memory
