import errno
import os
import tarfile

import pytest

from hermes.weights.compiled import PACKED
from hermes.weights.disk import refusal_of_the_disk, unwritable
from tests.support.disks import on_a_read_only_disk

DIR = "or set HERMES_WEIGHTS_DIR to a folder that can be"


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.EROFS, f"(Read-only file system); mount a folder or a volume there that can be written, {DIR}"),
        (errno.EACCES, f"(Permission denied); give the user {os.geteuid()} permission there, {DIR}"),
        (errno.ENOSPC, f"(No space left on device); make room there, {DIR}"),
        (errno.ENOTDIR, "(Not a directory); set HERMES_WEIGHTS_DIR to a folder that can be"),
    ],
)
def test_what_helps_depends_on_the_reason(number, said):
    error = unwritable("hf://org/model", OSError(number, os.strerror(number)), folder="/src/weights")
    assert str(error) == f"E1000 WeightsError: weights 'hf://org/model': /src/weights can't be written {said}"


def test_safetensors_gives_the_reason_as_text():
    found = refusal_of_the_disk(ValueError("Error while serializing: I/O error: No space left (os error 28)"))
    assert found.errno == errno.ENOSPC
    assert refusal_of_the_disk(OSError(errno.EIO, "Input/output error")) is None
    assert refusal_of_the_disk(ValueError("28")) is None


ALL = """
from pathlib import Path
from hermes.errors import HermesError
from hermes.settings import Settings
from hermes.weights import compiled, open_store
from hermes.weights.folder import appearing_whole
from hermes.weights.gguf import _named_failures
from hermes.weights.source import parse_source

folder = Path({folder!r})
store = open_store(Settings(weights_dir=folder / "weights", weights_lock=folder / "weights.lock"))

def converted():
    with _named_failures(Path("model.gguf"), folder), appearing_whole(folder / "model"):
        pass

for name, write in {{
    "fetch": lambda: store.fetch(parse_source("http://127.0.0.1:9/model.tar")),
    "convert": converted,
    "unpack": lambda: compiled.take_out(folder / "packed", folder, trusted=True),
}}.items():
    try:
        write()
    except HermesError as error:
        print(name, str(error).replace(str(folder), "FOLDER"))
print("cache", compiled.environment(folder))
"""


def test_a_read_only_disk_is_named_wherever_a_start_writes(tmp_path):
    (tmp_path / "packed").mkdir()
    write_packed(tmp_path / "packed")
    said = on_a_read_only_disk(tmp_path, ALL.format(folder=str(tmp_path))).splitlines()
    step = "(Read-only file system); mount a folder or a volume there that can be written, or"
    weights_dir = "set HERMES_WEIGHTS_DIR to a folder that can be"
    assert said == [
        f"fetch E1000 WeightsError: weights 'http://127.0.0.1:9/model.tar': FOLDER/weights can't be written {step} "
        + weights_dir,
        f"convert E1000 WeightsError: weights 'model.gguf': FOLDER can't be written {step} {weights_dir}",
        f"unpack E1000 WeightsError: weights 'FOLDER/packed/vllm-cache.tar': FOLDER can't be written {step} "
        "unset HERMES_PACKED_CACHE",
        "cache {}",  # vLLM then keeps it where it always does
    ]


def write_packed(model):
    with tarfile.open(model / PACKED, "w") as tar:
        tar.addfile(tarfile.TarInfo("torch_compile_cache/a"))
