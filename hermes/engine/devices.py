"""Whether the machine has the GPUs that a profile needs, asked before vLLM is imported or anything is downloaded."""

import logging

from hermes.errors import NoAccelerator
from hermes.settings import Profile

logger = logging.getLogger(__name__)


def require_devices(profile: Profile) -> None:
    """Raises NoAccelerator if fewer CUDA devices are there than the profile needs."""
    if not profile.cuda_devices:
        return
    from torch.cuda import device_count  # counts through NVML: no CUDA context that a later fork could not use

    found = device_count()
    if found < profile.cuda_devices:
        raise NoAccelerator(profile.name, profile.cuda_devices, found)
    logger.info("engine: %d CUDA devices", found)
