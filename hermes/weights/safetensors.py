"""Checks the files of a model, as far as their first bytes tell, before the large files are read.

A safetensors file begins with the size of its header (8 bytes, little-endian) and the header, a JSON object with the
type, the shape and the bytes of each tensor. The tensors follow without a hole. An index says which of several files
has which tensor. The format: https://huggingface.co/docs/safetensors
"""

import json
import math
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hermes.errors import WeightsError
from hermes.weights.remote import Attempts, Interrupted, Patience, RemoteFile, steadily
from hermes.weights.staging import digests_of

ENDING = ".safetensors"
INDEX = "model.safetensors.index.json"
SHARD = re.compile(r"model-\d+-of-(\d+)\.safetensors")
WEIGHTS = re.compile(r".*\.safetensors|pytorch_model.*\.bin|adapter_config\.json|adapter_model\.bin")
TOKENIZER = re.compile(r"tokenizer\.json|[^/]*\.model(\.v\d\w*)?|vocab\.(json|txt)|tekken\.json")
# What vLLM and transformers read of a model. Its other small files may be anything.
LOADED = re.compile(
    rf".*\.safetensors|{TOKENIZER.pattern}|merges\.txt|[^/]*(config|\.safetensors\.index)\.json"
    r"|(params|special_tokens_map|added_tokens)\.json"
)
LARGEST_INDEX = 64 << 20  # bytes; a model of 70 billion parameters has one of 60,000
LARGEST_HEADER = 100_000_000  # bytes, as the safetensors package has it
HEAD = 4096  # first bytes of a file: the whole header of most shards
LFS_POINTER = b"version https://git-lfs"
MERGE = "this is a LoRA adapter; merge it into its base model, with peft's merge_and_unload() and save_pretrained()"
AGAIN = "fetch it again from its origin, or name another model"
DTYPES = {
    4: ("F4",),
    6: ("F6_E2M3", "F6_E3M2"),
    8: ("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"),
    16: ("I16", "U16", "F16", "BF16"),
    32: ("I32", "U32", "F32"),
    64: ("I64", "U64", "F64", "C64"),
}
BITS = {dtype: bits for bits, dtypes in DTYPES.items() for dtype in dtypes}  # of one element

Size = Annotated[int, Field(ge=0)]


class Tensor(BaseModel):
    """What a header says of a tensor."""

    model_config = ConfigDict(strict=True)

    dtype: str
    shape: tuple[Size, ...]
    data_offsets: tuple[Size, Size]  # bytes after the header


class Header(BaseModel):
    """The header of a safetensors file. Its extra fields are the tensors."""

    model_config = ConfigDict(strict=True, extra="allow")
    __pydantic_extra__: dict[str, Tensor]

    metadata: dict[str, str] | None = Field(None, alias="__metadata__")


def buffered(file: RemoteFile) -> RemoteFile:
    """An index with its bytes in memory, so that its host is asked once.

    Raises:
        ValueError: the file is too large for an index.
        Interrupted: the bytes have the wrong checksum.
    """
    if file.size > LARGEST_INDEX:
        raise ValueError(f"its {INDEX} is {file.size} bytes; at most {LARGEST_INDEX}")
    index = b"".join(map(bytes, file.read(0)))
    if problem := digests_of(file).take_in(iter([index])).problem(file):
        raise Interrupted(f"{INDEX}: {problem}")
    return replace(file, read=lambda offset: iter([index[offset:]]), read_range=None)


def indexed(files: Iterable[RemoteFile]) -> Mapping[str, set[str]]:
    """The safetensors that the index among these files names, each with its tensors; none without an index.

    Raises ValueError if the file is not an index, and as `buffered`.
    """
    shards: dict[str, set[str]] = defaultdict(set)
    for file in files:
        if file.name == INDEX:
            [index] = buffered(file).read(0)
            try:
                for tensor, name in json.loads(bytes(index))["weight_map"].items():
                    if name.endswith(ENDING):
                        shards[name].add(tensor)
            except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
                raise ValueError(f"its {INDEX} is not an index of safetensors") from error
    return shards


def chosen_safetensors(names: Sequence[str], read_shards: Callable[[], Collection[str]] | None = None) -> list[str]:
    """The names of one set of safetensors, of several that may be there. An index decides; `read_shards` reads it.

    Raises ValueError if there are no safetensors, or one of the set is missing.
    """
    require_merged(names)
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


def is_adapter(names: Iterable[str]) -> bool:
    """Whether these are the files of a LoRA adapter without its base model."""
    weights = [name for name in names if WEIGHTS.fullmatch(name)]
    return bool(weights) and all(name.startswith("adapter_") for name in weights)


def require_merged(names: Iterable[str]) -> None:
    """Raises ValueError if these are the files of a LoRA adapter."""
    if is_adapter(names):
        raise ValueError(MERGE)


def require_tokenizer(source: object, names: Iterable[str]) -> None:
    """Raises WeightsError if none of the files is a tokenizer."""
    if not any(map(TOKENIZER.fullmatch, names)):
        step = "add its tokenizer.json, or name another model; a draft model (HERMES_SPECULATION) needs none"
        raise WeightsError(source, "there is no tokenizer among its files", step)


def require_shards(shards: Collection[str], names: Iterable[str]) -> None:
    """Raises ValueError if the index names a file that is missing, or names none."""
    if missing := sorted({*shards}.difference(names)):
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ValueError(f"its {INDEX} names {missing[0]}{more}, which is not there")
    if not shards:
        raise ValueError(f"its {INDEX} names no safetensors")


def require_whole(
    source: object, name: str, size: int, read: Callable[[int, int], bytes], tensors: Iterable[str] = ()
) -> bytes:
    """Check a file of `size` bytes by its first bytes, and return those.

    `read` returns the bytes between two offsets; each call goes on where the last one ended. `tensors` are the file's
    in the index. Raises WeightsError if a file that is LOADED is empty, a pointer of git-lfs, or damaged or cut.
    """
    if not LOADED.fullmatch(name):
        return b""
    if not size:
        raise WeightsError(source, f"{name} is empty", AGAIN)
    head = read(0, min(HEAD, size))
    if head.startswith(LFS_POINTER):
        step = "run `git lfs pull` in its clone"
        raise WeightsError(source, f"{name} is a pointer of git-lfs and not the file itself", step)
    if name.endswith(ENDING):
        end = 8 + int.from_bytes(head[:8], "little")
        if head[8:9] != b"{" or not 8 < end <= min(size, 8 + LARGEST_HEADER):
            raise WeightsError(source, f"{name} does not begin as safetensors do", AGAIN)
        if end > len(head):
            head += read(len(head), end)
        if problem := _problem(head[8:end], size - end, tensors):
            raise WeightsError(source, f"{name} is damaged or cut short: {problem}", AGAIN)
    return head


def _problem(header: bytes, size: int, wanted: Iterable[str]) -> str | None:
    """What is wrong with a header before `size` bytes of tensors; None if nothing is."""
    try:
        tensors = Header.model_validate_json(header).__pydantic_extra__
    except ValidationError as error:
        first = error.errors()[0]
        return f"its header is not valid ({' '.join([*map(repr, first['loc']), first['msg']])})"
    at = 0
    for name, tensor in sorted(tensors.items(), key=lambda each: each[1].data_offsets):
        (start, end), bits = tensor.data_offsets, BITS.get(tensor.dtype)
        if bits is None:
            return f"its tensor {name!r} has the unknown type {tensor.dtype!r}"
        if start != at:
            return f"its tensor {name!r} begins at byte {start}, but the one before it ends at byte {at}"
        if 8 * (end - start) != math.prod(tensor.shape) * bits:
            return f"its tensor {name!r} has {end - start} bytes, which are not {[*tensor.shape]} of {tensor.dtype}"
        at = end
    if at != size:
        return f"its header describes {at} bytes of tensors, but {size} bytes follow"
    if missing := sorted({*wanted}.difference(tensors)):
        return f"{INDEX} names its tensor {missing[0]!r}, which it does not have"
    return None


def check(source: object, file: RemoteFile, attempts: Attempts, tensors: Iterable[str] = ()) -> None:
    """Check a file by its first bytes, see `require_whole`. A host is asked only for those of safetensors.

    Raises WeightsError, also if the file cannot be read.
    """

    def read(start: int, end: int) -> bytes:
        if file.read_range and not file.name.endswith(ENDING):
            return b""
        part = partial(file.read_range, end=end) if file.read_range else file.read
        return b"".join(map(bytes, steadily(part, start, end, attempts)))

    require_whole(source, file.name, file.size, read, tensors)


def require_heads(source: object, files: Sequence[RemoteFile], patience: Patience) -> None:
    """Raises WeightsError if the first bytes of a file show that it could not be loaded, or it cannot be read."""
    index = indexed(files)
    for file in files:
        check(source, file, Attempts(f"{source}: {file.name}", patience), index.get(file.name, ()))
