"""What vLLM, Inductor and Triton compile at a first start, kept beside the weights for the next.

FOLDER in the folder of weights holds it. An archive of a model may carry it as one file, PACKED. Each part has a key of
the vLLM, the GPUs, the engine's arguments and the path of the model. What does not fit is compiled anew.

Compiled code is code: whoever made an archive can run anything with it. So a server takes it only when told to.
"""

import logging
import os
import tarfile
from pathlib import Path

from hermes.errors import WeightsError
from hermes.weights.folder import appearing_whole, on_disk
from hermes.weights.remote import RemoteFile

logger = logging.getLogger(__name__)

FOLDER, PACKED = "vllm-cache", "vllm-cache.tar"
PLACES = {"VLLM_CACHE_ROOT": ".", "TORCHINDUCTOR_CACHE_DIR": "inductor", "TRITON_CACHE_DIR": "triton"}
LEFT_OUT = (".lock",)  # files that only a running process needs


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
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(LEFT_OUT))
    if not files:
        raise WeightsError(folder, "there is no compiled code", "start the server once on the GPUs, then pack again")
    try:
        with tarfile.open(tar, "w", format=tarfile.GNU_FORMAT) as out:
            for path in files:
                info = tarfile.TarInfo(path.relative_to(folder).as_posix())
                info.size = path.stat().st_size
                info.mode = 0o755 if path.suffix == ".so" else 0o644
                with path.open("rb") as content:
                    out.addfile(info, content)
    except OSError as error:
        problem = f"it can't be written ({error.strerror or error})"
        raise WeightsError(tar, problem, "make room, or set TMPDIR to a larger disk") from error
    file = on_disk(tar)
    return RemoteFile(PACKED, file.size, None, None, file.read)


def take_out(model: Path, weights_dir: Path, *, trusted: bool) -> None:
    """Unpack what came with a model, unless something is kept here already. It appears whole or not at all.

    Args:
        model: the folder of the model.
        weights_dir: the folder of weights.
        trusted: whether to unpack it.

    Raises WeightsError if the file is not a tar of plain files, or the disk fails.
    """
    file, folder = model / PACKED, weights_dir / FOLDER
    if not file.is_file() or folder.exists():
        return
    if not trusted:
        logger.info("weights: the compiled code in %s is not used; HERMES_PACKED_CACHE=true uses it", file)
        return
    try:
        with appearing_whole(folder) as unfinished, tarfile.open(file, "r:") as tar:
            tar.extractall(unfinished, filter="data")
    except (tarfile.TarError, OSError) as error:
        problem = f"its compiled code can't be unpacked ({error})"
        raise WeightsError(file, problem, "pack the model again, or unset HERMES_PACKED_CACHE") from error
    logger.info("weights: the compiled code that came with the model is in %s", folder)
