"""Packs a model and predictor_config.json into one tar, as this package and replicate/cog-vllm read it.

The same model and settings give the same bytes: the files are in order, without owner and time.
"""

import json
import os
import tarfile
from collections.abc import Mapping, Sequence
from io import FileIO
from pathlib import Path
from typing import Any

from hermes.errors import WeightsError
from hermes.settings import require_allowed
from hermes.weights.disk import unwritable
from hermes.weights.lock import LockedFile, safe_name
from hermes.weights.progress import Progress, shown
from hermes.weights.remote import Attempts, Patience, RemoteFile, steadily
from hermes.weights.safetensors import INDEX
from hermes.weights.staging import digests_of, write_all

CONFIG = "predictor_config.json"


def predictor_config(prompt_template: str | None, engine_args: Mapping[str, Any]) -> RemoteFile:
    """A predictor_config.json with a template and engine arguments, as far as given.

    Raises InvalidConfiguration if a weights folder may not set one of the arguments.
    """
    require_allowed(engine_args)
    given = {"engine_args": dict(engine_args), "prompt_template": prompt_template}
    text = json.dumps({key: value for key, value in given.items() if value}, indent=2, sort_keys=True) + "\n"
    return RemoteFile(CONFIG, len(content := text.encode()), None, None, lambda offset: iter([content[offset:]]))


def pack(files: Sequence[RemoteFile], config: RemoteFile, out: Path, patience: Patience) -> list[LockedFile]:
    """Write files into the archive `out`, piece by piece. The archive appears whole or not at all.

    Args:
        files: of the model; `config` replaces a predictor_config.json among them.
        config: see `predictor_config`.
        out: the path of the tar.
        patience: limits the attempts at each file.

    Raises:
        WeightsError: a file has an unsafe name or could not be fetched, `out` is no tar, or the disk failed.
    """
    out = out.resolve()  # what a link leads to is replaced, and not the link
    if out.suffix != ".tar" or (out.exists() and not out.is_file()):
        raise WeightsError(out, "no tar can be written there", "name a file that ends with .tar")
    try:
        for file in files:
            safe_name(file.name)  # another one would not be unpacked
    except ValueError as error:
        raise WeightsError(out, str(error), "rename the file, or leave it out") from error
    ordered = [config, *sorted((file for file in files if file.name != CONFIG), key=_first_things_first)]
    progress = Progress(total=sum(file.size for file in ordered), files=len(ordered))
    unfinished = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        with shown(progress, out.name), FileIO(unfinished, "w") as tar:
            packed = [_member(file, tar, progress, patience) for file in ordered]
            blocks = tar.tell() + 2 * tarfile.BLOCKSIZE
            tar.truncate(-(-blocks // tarfile.RECORDSIZE) * tarfile.RECORDSIZE)  # the end mark consists of zeros
        os.replace(unfinished, out)
    except OSError as error:
        raise unwritable(out, error, "choose another path") from error
    finally:
        unfinished.unlink(missing_ok=True)
    return packed


def _first_things_first(file: RemoteFile) -> tuple[bool, bool, str]:
    """A sort key: config.json and the index first, because they decide whether the model can be served."""
    return file.name != "config.json", file.name != INDEX, file.name


def _member(file: RemoteFile, tar: FileIO, progress: Progress, patience: Patience) -> LockedFile:
    start = tar.tell()
    for _ in range(2):  # a file with a wrong checksum is fetched once more
        digests = digests_of(file)
        write_all(tar, _header(file))
        for piece in steadily(file.read, 0, file.size, Attempts(file.name, patience)):
            write_all(tar, piece)
            digests.update(piece)
            progress.arrived(len(piece))
        if not (problem := digests.problem(file)):
            break
        tar.seek(start)
        progress.was_there(-file.size)
    else:
        raise WeightsError(file.name, f"it had the wrong checksum in two downloads: {problem}", "start again later")
    write_all(tar, bytes(-file.size % tarfile.BLOCKSIZE))
    progress.finished_file()
    return digests.locked


def _header(file: RemoteFile) -> bytes:
    info = tarfile.TarInfo(file.name)
    info.size = file.size
    return info.tobuf(tarfile.GNU_FORMAT, encoding="utf-8")
