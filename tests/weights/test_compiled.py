"""What vLLM has compiled goes with the model, and comes out only where it is wanted."""

import io
import logging
import os
import tarfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from hermes.errors import WeightsError
from hermes.weights.compiled import FOLDER, PACKED, PLACES, environment, packed, take_out

FILES = {
    "torch_compile_cache/torch_aot_compile/abc/rank_0_0/model": b"pickled",
    "inductor/ab/kernel.so": b"\x7fELF",
    "inductor/ab/kernel.cpp": b"int main();",
}
LEFT_OUT = {
    "inductor/ab/kernel.lock": b"",
    "startup_plan/startup_plan_1.json": b"{}",
    "gpu_p2p_access_cache_for_0,1.json": b"{}",
}


@pytest.fixture
def kept(tmp_path):
    """A folder of weights with compiled code."""
    for name, content in {**FILES, **LEFT_OUT}.items():
        path = tmp_path / "weights" / FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "weights"


@pytest.fixture
def model(kept, tmp_path):
    """A model that came with it."""
    (tmp_path / "model").mkdir()
    packed(kept, tmp_path / "model" / PACKED)
    return tmp_path / "model"


def files_in(folder):
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_all_three_keep_it_beside_the_weights(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "weights" / "vllm-cache"
    assert environment(tmp_path.joinpath("weights").relative_to(tmp_path)) == {
        "VLLM_CACHE_ROOT": str(folder),
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
        "TRITON_CACHE_DIR": str(folder / "triton"),
    }
    assert not folder.exists(), "the archive may bring it"


@pytest.mark.parametrize("place", ["file/weights", "/proc/weights"])
def test_where_nothing_can_be_kept_they_keep_it_where_they_always_do(tmp_path, place):
    (tmp_path / "file").touch()
    assert environment(tmp_path / place) == {}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_in_a_folder_that_is_read_only_neither(tmp_path):
    tmp_path.chmod(0o500)
    assert environment(tmp_path) == {}


def test_it_is_one_file_of_the_model_with_the_same_bytes_each_time(kept, tmp_path):
    one, two = packed(kept, tmp_path / "one.tar"), packed(kept, tmp_path / "two.tar")
    assert (one.name, one.size) == (PACKED, (tmp_path / "one.tar").stat().st_size)
    assert b"".join(one.read(0)) == b"".join(two.read(0)) == (tmp_path / "one.tar").read_bytes()
    with tarfile.open(tmp_path / "one.tar") as tar:
        assert tar.getnames() == sorted(FILES)
        assert {(member.mtime, member.uid, member.uname) for member in tar} == {(0, 0, "")}


def test_there_may_be_none(tmp_path):
    with pytest.raises(WeightsError, match="there is no compiled code; start the server once on the GPUs"):
        packed(tmp_path, tmp_path / "x.tar")


def test_it_comes_out_where_it_is_trusted_and_once(model, tmp_path, caplog):
    caplog.set_level(logging.INFO, "hermes")
    for _ in range(2):
        take_out(model, tmp_path, trusted=True)
    assert files_in(tmp_path / FOLDER) == FILES
    assert caplog.messages == [f"weights: the compiled code that came with the model is in {tmp_path / FOLDER}"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", FOLDER, "weights"]


@pytest.mark.parametrize(
    "already",
    [
        {"inductor": None},
        {"torch_compile_cache/torch_aot_compile": None, "modelinfos/llama.json": b"of vLLM"},
        {"inductor/ab/kernel.so": b"\x7fELF, and newer", "mine": b""},
    ],
    ids=["folders that the import of vLLM makes", "facts that vLLM keeps before it compiles", "compiled code"],
)
def test_it_completes_what_is_kept_and_replaces_none_of_it(model, tmp_path, already):
    for name, content in already.items():
        path = tmp_path / FOLDER / name
        (path if content is None else path.parent).mkdir(parents=True, exist_ok=True)
        if content is not None:
            path.write_bytes(content)
    take_out(model, tmp_path, trusted=True)
    assert files_in(tmp_path / FOLDER) == {
        **FILES,
        **{name: content for name, content in already.items() if content is not None},
    }


def test_facts_of_another_machine_in_an_older_file_stay_there(model, tmp_path):
    with tarfile.open(model / PACKED, "a") as tar:
        for name in LEFT_OUT:
            tar.addfile(tarfile.TarInfo(name))
    take_out(model, tmp_path, trusted=True)
    assert files_in(tmp_path / FOLDER) == FILES


def test_code_that_is_not_trusted_stays_in_its_file_and_the_log_says_so(model, tmp_path, caplog):
    caplog.set_level(logging.INFO, "hermes")
    take_out(model, tmp_path, trusted=False)
    assert not (tmp_path / FOLDER).exists()
    assert caplog.messages == [
        f"weights: the compiled code in {model / PACKED} is not used; HERMES_PACKED_CACHE=true uses it"
    ]


def test_a_model_without_it_is_served_as_ever(tmp_path, caplog):
    caplog.set_level(logging.INFO, "hermes")
    take_out(tmp_path, tmp_path, trusted=True)
    assert caplog.messages == []


def outside():
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("../outside"))
    return content.getvalue()


@pytest.mark.parametrize("content", [b"no tar", outside()], ids=["no tar", "outside"])
def test_what_is_no_tar_of_plain_files_is_refused_and_leaves_nothing(model, tmp_path, content):
    (model / PACKED).write_bytes(content)
    with pytest.raises(WeightsError, match=r"its compiled code can't be unpacked \(.*unset HERMES_PACKED_CACHE"):
        take_out(model, tmp_path, trusted=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "weights"]


def test_each_variable_is_one_that_vllm_or_torch_reads():
    vllm, torch = (Path(find_spec(name).origin).parent for name in ("vllm", "torch"))
    read = (vllm / "envs.py").read_text() + (torch / "_inductor" / "runtime" / "cache_dir_utils.py").read_text()
    assert [name for name in PLACES if name not in read] == []
