import subprocess
import sys

import pytest

from hermes.engine import require_devices
from hermes.engine.devices import cuda_memory
from hermes.errors import NoAccelerator
from hermes.settings import PROFILES

CUDA_DEVICES = len(cuda_memory())


def test_the_local_profile_needs_no_device_and_no_torch():
    code = (
        "import sys; from hermes.engine import require_devices; from hermes.settings import PROFILES; "
        "require_devices(PROFILES['local']); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


@pytest.mark.skipif(CUDA_DEVICES >= 2, reason="this machine has the GPUs")
def test_without_gpus_the_production_profile_is_refused():
    with pytest.raises(NoAccelerator, match=f"E1204 .* needs 2 CUDA devices and {CUDA_DEVICES} were found"):
        require_devices(PROFILES["production"])


@pytest.mark.cuda
@pytest.mark.skipif(CUDA_DEVICES < 2, reason=f"needs 2 CUDA devices; this machine has {CUDA_DEVICES}")
def test_with_two_gpus_the_production_profile_is_accepted():
    require_devices(PROFILES["production"])
