"""Whether the machine has the GPUs that a profile needs, asked before vLLM is imported or anything is downloaded."""

import ctypes
import logging

from hermes.errors import NoAccelerator
from hermes.settings import Profile

logger = logging.getLogger(__name__)


def require_devices(profile: Profile) -> None:
    """Raises NoAccelerator if fewer CUDA devices are there than the profile needs."""
    if not profile.cuda_devices:
        return
    found = cuda_device_count()
    if found < profile.cuda_devices:
        raise NoAccelerator(profile.name, profile.cuda_devices, found)
    logger.info("engine: %d CUDA devices", found)


def cuda_device_count() -> int:
    """CUDA devices that this process may use, counted without opening one."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0  # no driver: known at once, without the seconds that importing torch takes
    from torch.cuda import device_count

    return int(device_count())
