import errno
import os
import tarfile
from pathlib import Path

import pytest

from hermes.weights.compiled import PACKED
from hermes.weights.disk import unwritable, write_error
from tests.support.disks import on_a_read_only_disk

DIR = "or set HERMES_WEIGHTS_DIR to a writable folder"


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.EROFS, f"(Read-only file system); mount a writable folder or volume there, {DIR}"),
        (errno.EACCES, f"(Permission denied); give user {os.geteuid()} write access to it, {DIR}"),
        (errno.ENOSPC, f"(No space left on device); free space there, {DIR}"),
        (errno.ENOTDIR, "(Not a directory); set HERMES_WEIGHTS_DIR to a writable folder"),
    ],
)
def test_what_helps_depends_on_the_reason(number, said):
    error = unwritable("hf://org/model", OSError(number, os.strerror(number)), folder="/src/weights")
    assert str(error) == f"E1000 WeightsError: weights 'hf://org/model': /src/weights can't be written {said}"


SOURCE, OUT = Path("/model"), Path("/out")


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (ValueError("Error while serializing: I/O error: No space left (os error 28)"), errno.ENOSPC),
        (ValueError("28"), None),
        (OSError(errno.ENOSPC, "No space left on device"), errno.ENOSPC),
        (OSError(errno.EIO, "Input/output error"), None),  # it may be of reading
        (OSError(errno.EIO, "Input/output error", str(OUT / "config.json")), errno.EIO),
        (OSError(errno.ENOTDIR, "Not a directory", str(OUT / "config.json")), errno.ENOTDIR),
        (OSError(errno.EACCES, "Permission denied", str(OUT)), errno.EACCES),
        (OSError(errno.EACCES, "Permission denied", str(SOURCE / "tokenizer.json")), None),
        (OSError(errno.ENOENT, "No such file or directory", str(OUT)), None),
    ],
)
def test_errors_of_writing_are_told_from_those_of_reading_the_source(error, number):
    assert getattr(write_error(error, SOURCE), "errno", None) == number


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
    step = "(Read-only file system); mount a writable folder or volume there, or"
    weights_dir = "set HERMES_WEIGHTS_DIR to a writable folder"
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
