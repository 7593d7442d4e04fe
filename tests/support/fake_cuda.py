"""vLLM's CPU wheel, made to take this machine for one with NVIDIA GPUs. Its configuration runs then, no kernel does.

`install` answers what vLLM asks of a machine: the devices, their capability and memory, Triton. What follows from the
answers is vLLM's own. They stay for the rest of the process, so each kind of GPU needs a process of its own.
"""

import sys
from types import ModuleType, SimpleNamespace

# What the CUDA wheel has compiled and the CPU wheel lacks.
COMPILED = ("_C_stable_libtorch", "_moe_C_stable_libtorch", "_qutlass_C")
COMPILED += ("vllm_flash_attn._vllm_fa2_C", "vllm_flash_attn._vllm_fa3_C")


def install(name="NVIDIA A100-SXM4-80GB", count=2, capability=(8, 0), memory_bytes=int(79.15 * 2**30), processors=108):
    """Answer for these GPUs. Call it before anything of vLLM is imported."""
    for module in COMPILED:
        sys.modules[f"vllm.{module}"] = ModuleType(f"vllm.{module}")
    _answer_for_torch(name, count, capability, memory_bytes, processors)

    from vllm import platforms, triton_utils
    from vllm.platforms import cuda, interface

    platform = type("FakeCuda", (cuda.NonNvmlCudaPlatform,), {})
    answers = {
        "get_device_capability": interface.DeviceCapability(*capability),
        "get_device_name": name,
        "get_device_total_memory": memory_bytes,
        "is_fully_connected": True,
        "device_count": count,
    }
    for question, answer in answers.items():
        setattr(platform, question, staticmethod(lambda *_, answer=answer, **__: answer))
    platforms._current_platform = platform()  # what is imported from here on asks it
    triton_utils.HAS_TRITON = triton_utils.importing.HAS_TRITON = True  # else vLLM takes its older model runner

    from vllm import _custom_ops

    for question in [each for each in dir(_custom_ops) if each.startswith("cutlass_") and "support" in each]:
        needed = 90 if "block" in question else 89  # as in csrc/quantization/w8a8/cutlass/scaled_mm_entry.cu
        setattr(_custom_ops, question, lambda number, needed=needed: number >= needed)

    from vllm.model_executor.kernels.linear.scaled_mm import humming
    from vllm.model_executor.models import registry

    registry._run_in_subprocess = lambda look: look()  # another process would not have these answers
    humming.has_humming = lambda: True  # the CUDA wheel pins humming-kernels, so the image has them


def _answer_for_torch(name, count, capability, memory_bytes, processors):
    import torch

    properties = SimpleNamespace(
        name=name, total_memory=memory_bytes, multi_processor_count=processors, is_integrated=False
    )
    torch.version.cuda = "13.0"
    torch.accelerator.device_count = torch.cuda.device_count = lambda: count
    torch.cuda.is_available = lambda: True
    torch.cuda.get_device_capability = lambda *_: capability
    torch.cuda.get_device_properties = lambda *_: properties
    torch.cuda.get_device_name = lambda *_: name
