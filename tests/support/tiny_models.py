"""Models of some kilobytes, the archives they come in, and what the tests of weights ask of both."""

import gzip
import io
import json
import tarfile
import traceback

import pytest
import zstandard

from hermes.errors import WeightsError
from hermes.weights import Store
from hermes.weights.remote import Patience
from tests.support.fakes import safetensors
from tests.support.faults import Reset, Status

WEIGHTS = safetensors(30_000)
MODEL = {"config.json": b'{"dim": 8}', "model.safetensors": WEIGHTS, "tokenizer.json": b'{"a": 1}'}
QUICK = Patience(attempts=3, first_wait=0.001, longest_wait=0.002, longest_retry_after=0.1)
SMALL = {"config.json": b"{}", "tokenizer.json": b"{}"}
SHARDS = {f"model-0000{n}-of-00004.safetensors": safetensors(30_000 - n, n, tensor=f"{n}") for n in range(1, 5)}
SHARDS_INDEX = json.dumps({"weight_map": {f"{n}": name for n, name in enumerate(SHARDS, 1)}}).encode()

PACKERS = {
    ".tar": bytes,
    ".tar.gz": lambda data: gzip.compress(data, mtime=0),
    ".tar.zst": zstandard.ZstdCompressor(write_checksum=True).compress,
}


def tar_of(files, form=tarfile.PAX_FORMAT):
    """A tar of files: name -> bytes, or a whole TarInfo of what is no file."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name) if isinstance(content, bytes) else content
            if isinstance(content, bytes):
                member.size = len(content)
            tar.addfile(member, io.BytesIO(content) if isinstance(content, bytes) else None)
    return out.getvalue()


def store_in(folder, **more):
    return Store(folder / "weights", folder / "weights.lock", **{"patience": QUICK, **more})


def files_in(folder):
    """Name -> content of what is there for vLLM."""
    found = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def staged(store, name):
    (found,) = store.folder.glob(f".*.partial/{name}")
    return found


def listed(folder):
    return sorted(path.name for path in folder.iterdir())


def refusal(call, *arguments, **named):
    """The one line of the error that a call ends with."""
    with pytest.raises(WeightsError) as caught:
        call(*arguments, **named)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def everything_said(error):
    """What a log shows of an error, with all that led to it."""
    return "".join(traceback.format_exception(error))


def cut_off(server, path, after):
    """The file at the path comes to that byte, and no further."""
    alone = int(path == "/model.tar")  # the first byte of an archive is asked for alone
    server.fail(path, Reset(after), skip=alone)
    server.fail(path, Status(404), skip=alone)
