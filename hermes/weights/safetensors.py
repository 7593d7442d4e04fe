"""Checks the index and the headers of safetensors before the large files are read.

A file begins with the size of its header (8 bytes, little-endian) and the header, a JSON object. An index says which
of several files has which tensor. The format: https://huggingface.co/docs/safetensors
"""

import json
import re
from collections.abc import Callable, Iterable, Sequence

from hermes.errors import WeightsError
from hermes.weights.remote import Attempts, Interrupted, Patience, RemoteFile, steadily
from hermes.weights.staging import digests_of

ENDING = ".safetensors"
INDEX = "model.safetensors.index.json"
SHARD = re.compile(r"model-\d+-of-(\d+)\.safetensors")
LARGEST_INDEX = 64 << 20  # bytes; a model of 70 billion parameters has one of 60,000
HEAD = 64  # first bytes of a file, which tell its format
LFS_POINTER = b"version https://git-lfs"


def indexed(file: RemoteFile) -> frozenset[str]:
    """The names of the files in an index.

    Raises:
        ValueError: the file is not an index, or is too large for one.
        Interrupted: the bytes have the wrong checksum.
    """
    if file.size > LARGEST_INDEX:
        raise ValueError(f"its {INDEX} is {file.size} bytes; at most {LARGEST_INDEX}")
    index = b"".join(map(bytes, file.read(0)))
    if problem := digests_of(file).take_in(iter([index])).problem(file):
        raise Interrupted(f"{INDEX}: {problem}")
    try:
        files = json.loads(index)["weight_map"].values()
        return frozenset(name for name in files if name.endswith(ENDING))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"its {INDEX} is not an index of safetensors") from error


def chosen_safetensors(names: Sequence[str], read_shards: Callable[[], frozenset[str]] | None = None) -> list[str]:
    """The names of one set of safetensors, of several that may be there. An index decides; `read_shards` reads it.

    Raises ValueError if there are no safetensors, or one of the set is missing.
    """
    found = [name for name in names if name.endswith(ENDING)]
    if not found:
        raise ValueError("there are no safetensors among its files, and nothing else is loaded")
    if INDEX in names and read_shards:
        shards = read_shards()
        require_shards(shards, names)
        return sorted(shards)
    numbered = [name for name in found if SHARD.fullmatch(name)]
    plain = [name for name in found if not name.startswith(("consolidated", "adapter"))]
    chosen = numbered or [name for name in found if name == "model.safetensors"] or plain or found
    if (sharded := SHARD.fullmatch(chosen[0])) and len(chosen) != int(sharded[1]):
        raise ValueError(f"there are {len(chosen)} of {int(sharded[1])} shards of its safetensors, and no index")
    return chosen


def require_shards(shards: frozenset[str], names: Iterable[str]) -> None:
    """Raises ValueError if the index names a file that is missing, or names none."""
    if missing := sorted(shards.difference(names)):
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ValueError(f"its {INDEX} names {missing[0]}{more}, which is not there")
    if not shards:
        raise ValueError(f"its {INDEX} names no safetensors")


def require_head(source: object, name: str, head: bytes, size: int) -> None:
    """Raises WeightsError if a file of `size` bytes with these first bytes is not safetensors."""
    if head.startswith(LFS_POINTER):
        step = "run `git lfs pull` in its clone"
        raise WeightsError(source, f"{name} is a pointer of git-lfs and not the file itself", step)
    header = int.from_bytes(head[:8], "little")
    if head[8:9] != b"{" or not 2 <= header <= size - 8:
        raise WeightsError(source, f"{name} does not begin as safetensors do", "fetch it again from its origin")


def look(source: object, file: RemoteFile, attempts: Attempts) -> None:
    """Raises WeightsError if the first bytes of a file are not those of safetensors, or cannot be read."""
    head = steadily(file.read_head or file.read, 0, min(HEAD, file.size), attempts)
    require_head(source, file.name, b"".join(map(bytes, head)), file.size)


def require_heads(source: object, files: Iterable[RemoteFile], patience: Patience) -> None:
    """Raises WeightsError if a file with the name of safetensors is not one, or cannot be read."""
    for file in files:
        if file.name.endswith(ENDING):
            look(source, file, Attempts(f"{source}: {file.name}", patience))
