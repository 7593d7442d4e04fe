"""What vLLM, Inductor and Triton compile at a first start, kept beside the weights for the next.

FOLDER in the folder of weights holds it. An archive of a model may carry it as one file, PACKED. Each part has a key of
the vLLM, the GPUs, the engine's arguments and the path of the model. What does not fit is compiled anew.

Compiled code is code: whoever made an archive can run anything with it. So a server takes it only when told to.
"""

import logging
import os
import shutil
import tarfile
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from hermes.errors import WeightsError
from hermes.weights.disk import unwritable, write_error
from hermes.weights.folder import on_disk
from hermes.weights.remote import RemoteFile

logger = logging.getLogger(__name__)

FOLDER, PACKED = "vllm-cache", "vllm-cache.tar"
PLACES = {"VLLM_CACHE_ROOT": ".", "TORCHINDUCTOR_CACHE_DIR": "inductor", "TRITON_CACHE_DIR": "triton"}
LEFT_OUT = ("*.lock", "startup_plan/*", "gpu_p2p_access_cache_*")  # of a running process, or facts of one machine


def environment(weights_dir: Path) -> dict[str, str]:
    """The variables that make vLLM, Inductor and Triton keep what they compile; none if the folder is read-only."""
    try:
        weights_dir.mkdir(parents=True, exist_ok=True)
    except OSError:
        return {}
    if not os.access(weights_dir, os.W_OK):
        return {}
    return {name: str((weights_dir / FOLDER / place).resolve()) for name, place in PLACES.items()}


def packed(weights_dir: Path, tar: Path) -> RemoteFile:
    """Write what is kept beside the weights into `tar`, as the file PACKED of a model. Same files, same bytes.

    Raises WeightsError if nothing is kept there, or the tar cannot be written.
    """
    folder = weights_dir / FOLDER
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    names = sorted(filter(_is_packed, files))
    if not names:
        raise WeightsError(folder, "there is no compiled code", "start the server once on the GPUs, then pack again")
    try:
        with tarfile.open(tar, "w", format=tarfile.GNU_FORMAT) as out:
            for name in names:
                info, path = tarfile.TarInfo(name), files[name]
                info.size = path.stat().st_size
                info.mode = 0o755 if path.suffix == ".so" else 0o644
                with path.open("rb") as content:
                    out.addfile(info, content)
    except OSError as error:
        raise unwritable(tar, error, "set TMPDIR to a larger disk") from error
    file = on_disk(tar)
    return RemoteFile(PACKED, file.size, None, None, file.read)


def take_out(model: Path, weights_dir: Path, *, trusted: bool) -> None:
    """Unpack what came with a model and is not kept here yet. It replaces no file.

    The folder may be there already: torch makes it when it is imported, and vLLM keeps other things in it.

    Args:
        model: the folder of the model.
        weights_dir: the folder of weights.
        trusted: whether to unpack it.

    Raises WeightsError if the file is no tar, a member would land elsewhere, or the disk fails.
    """
    file, folder = model / PACKED, weights_dir / FOLDER
    if not file.is_file():
        return
    if not trusted:
        logger.info("weights: the compiled code in %s is not used; HERMES_PACKED_CACHE=true uses it", file)
        return
    try:
        with tarfile.open(file, "r:") as tar:
            files = [each for each in tar if not each.isdir() and _is_packed(each.name)]
            missing = [each for each in files if not (folder / each.name).exists()]
            if not missing:
                return
            with TemporaryDirectory(prefix=f".{FOLDER}-", dir=weights_dir) as unfinished:
                tar.extractall(unfinished, missing, filter="data")
                _move_files(Path(unfinished), folder)
    except (tarfile.TarError, OSError) as error:
        if failed := write_error(error, file):
            raise unwritable(file, failed, "unset HERMES_PACKED_CACHE", folder=weights_dir) from error
        problem = f"its compiled code can't be unpacked ({error})"
        raise WeightsError(file, problem, "pack the model again, or unset HERMES_PACKED_CACHE") from error
    logger.info("weights: the compiled code that came with the model is in %s", folder)


def _is_packed(name: str) -> bool:
    return not any(fnmatchcase(str(PurePosixPath(name)), pattern) for pattern in LEFT_OUT)


def _move_files(source: Path, target: Path) -> None:
    """Move files one by one, so that each is there whole or not at all."""
    for path in [each for each in source.rglob("*") if each.is_file()]:
        place = target / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(path, place)
