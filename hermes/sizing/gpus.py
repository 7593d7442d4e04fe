"""Kinds of GPUs, with the size and the bandwidth of their memory."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

GIB = 2**30


@dataclass(frozen=True)
class Gpu:
    """One kind of GPU."""

    name: str
    memory_bytes: int  # as CUDA reports it, which is less than the nominal size
    bandwidth_bytes_per_s: int
    has_fp8: bool  # multiplies blocks in 8 bits; on others vLLM's Marlin kernels read fp8 and multiply in 16


def _gpu(name: str, gib: float, gb_per_s: int, has_fp8: bool = False) -> Gpu:
    return Gpu(name, int(gib * GIB), gb_per_s * 10**9, has_fp8)


# Memory: "total capacity" in PyTorch's out-of-memory messages; it differs by about 0.1 GiB between drivers. That of the
# B100 is the B200's, whose memory it has. GH200 is the one with 96 GB of HBM3, which nvidia-smi calls 480GB.
# Bandwidth: NVIDIA's data sheets, for the SXM board if there is one.
GPUS: Mapping[str, Gpu] = MappingProxyType(
    {
        gpu.name: gpu
        for gpu in (
            _gpu("T4", 14.56, 320),
            _gpu("L4", 22.03, 300),
            _gpu("A10G", 22.03, 600),
            _gpu("L40S", 44.40, 864),
            _gpu("A100-40GB", 39.39, 1555),
            _gpu("A100-80GB", 79.15, 2039),
            _gpu("H100", 79.19, 3350, has_fp8=True),
            _gpu("H20", 95.22, 4000, has_fp8=True),
            _gpu("GH200", 94.50, 4000, has_fp8=True),
            _gpu("H200", 139.80, 4800, has_fp8=True),
            _gpu("RTX-PRO-6000", 94.97, 1792, has_fp8=True),
            _gpu("B100", 178.35, 8000, has_fp8=True),
            _gpu("B200", 178.35, 8000, has_fp8=True),
            _gpu("B300", 267.69, 8000, has_fp8=True),
        )
    }
)


def parse_gpus(text: str) -> tuple[int, Gpu]:
    """Read a number of GPUs and their kind: "2xA100-80GB", "2x A100 80GB", or as nvidia-smi names them.

    Raises ValueError if the GPU is not known, or the number is 0.
    """
    match = re.fullmatch(r"(?:(\d+)\s*[x×*]\s*)?(.*)", text.strip(), re.IGNORECASE)
    count, name = match.groups() if match else (None, text)
    for gpu in GPUS.values():
        if _letters(gpu.name) == _letters(name) and count != "0":
            return int(count or 1), gpu
    raise ValueError(f"{text!r} is not a number of known GPUs, such as 2xA100-80GB; known are {', '.join(GPUS)}")


def _letters(name: str) -> str:
    board = r"nvidia|tesla|blackwell|(max-q )?(server|workstation) edition|sxm\d?( ac)?|hbm\de?|[^a-z0-9]"
    return re.sub("^(h100)80gb$|^(gh200)480gb$", r"\1\2", re.sub(board, "", name.lower()))


def gib(number: int) -> str:
    """Write bytes in GiB, to a tenth."""
    return f"{number / GIB:.1f}"
