"""Converts a GGUF file to a folder in the Hugging Face layout.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
The conversion de-quantises the weights to bfloat16. Only the local profile, on a CPU, serves a GGUF file.
"""

import functools
import hashlib
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import psutil

from hermes.errors import WeightsError
from hermes.weights.disk import unwritable, write_error
from hermes.weights.folder import appearing_whole

logger = logging.getLogger(__name__)

# How Llama 3.1 to 3.3 stretch their context. A GGUF file has a tensor of factors for it, which transformers ignores.
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
ORIGINAL = "serve the model's safetensors instead, from its original repository"


@dataclass(frozen=True)
class Header:
    """The fields of a GGUF file, and the sizes of its tensors."""

    file: Path
    architecture: str
    fields: Mapping[str, Any]  # all but the arrays
    weights: int  # in all tensors
    largest: int  # weights of the largest tensor
    rope_factor: float | None  # the factor by which Llama 3.1 stretches its context


def folder_name(file: Path) -> str:
    """The name of the folder for the converted `file`. A changed file gets another name."""
    stat = file.stat()
    identity = f"{file.resolve()} {stat.st_size} {stat.st_mtime_ns}"
    return f"{file.stem}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}-bfloat16"


def dequantised(file: Path, folder: Path) -> Path:
    """Convert `file` into `folder`, unless the folder exists. The folder appears whole or not at all.

    Raises WeightsError if the file is not a whole GGUF file, its weights do not fit, or transformers cannot read it.
    """
    if folder.is_dir():
        return folder
    logger.info("weights: de-quantising %s, once", file.name)
    with _reading_once():
        header = read_header(file)
        with _named_failures(file, folder.parent), appearing_whole(folder) as unfinished:
            check_room(header, psutil.virtual_memory().available, shutil.disk_usage(unfinished).free)
            _convert(header, unfinished)
    return folder


def read_header(file: Path) -> Header:
    """The header of `file`. The file must be whole.

    Raises WeightsError if the file cannot be opened, is not a GGUF file, is cut short, or is one part of several.
    """
    try:
        with file.open("rb") as opened:
            magic = opened.read(4)
    except OSError as error:
        raise WeightsError(str(file), f"it can't be opened ({error.strerror})", "check the path") from error
    if magic != b"GGUF":
        raise WeightsError(str(file), f"this is not a GGUF file: it begins with {magic!r}", "name a GGUF file")
    try:
        header = _parsed(file)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:  # GGUFReader checks nothing
        problem = f"it is cut short or damaged, {file.stat().st_size} bytes long ({_one_line(error)})"
        raise WeightsError(str(file), problem, "fetch it again and compare its size with its origin") from error
    if header.fields.get("split.count", 1) > 1:
        step = f"merge them into one file, with `llama-gguf-split --merge {file.name} whole.gguf`"
        raise WeightsError(str(file), f"this is one part of {header.fields['split.count']}", step)
    return header


def check_room(header: Header, memory: int, disk: int) -> None:
    """Raises WeightsError unless the de-quantised model fits into `memory` and on `disk`, both in bytes."""
    size = 2 * header.weights  # bfloat16
    needed = size + 4 * header.largest  # one tensor at a time is float32; measured
    for place, free, wanted in (("memory", memory, needed), ("disk", disk, size)):
        if wanted > free:
            problem = (
                f"de-quantising its {header.weights / 1e9:.1f} billion weights takes {wanted / 1e9:.1f} GB "
                f"of {place}, but only {free / 1e9:.1f} GB are free"
            )
            raise WeightsError(str(header.file), problem, f"use a machine with more {place}, or a smaller model")


def _parsed(file: Path) -> Header:
    from gguf import GGUFReader, GGUFValueType

    reader = GGUFReader(str(file))  # as transformers names it
    fields = {name: field.contents() for name, field in reader.fields.items() if GGUFValueType.ARRAY not in field.types}
    sizes = [tensor.n_elements for tensor in reader.tensors]
    rope = [float(tensor.data.max()) for tensor in reader.tensors if tensor.name == "rope_freqs.weight"]
    return Header(
        file, fields["general.architecture"], fields, sum(sizes), max(sizes), rope_factor=rope[0] if rope else None
    )


def _convert(header: Header, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    model, loading = AutoModelForCausalLM.from_pretrained(
        header.file.parent,
        gguf_file=header.file.name,
        config=_config(header),
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.bfloat16,
        output_loading_info=True,
        trust_remote_code=False,
    )
    if missing := loading["missing_keys"]:  # transformers would fill them with random numbers
        problem = f"{len(missing)} of the model's tensors are missing, such as {min(missing)}"
        raise WeightsError(str(header.file), problem, ORIGINAL)
    model.save_pretrained(folder)
    _save_tokenizer(header, folder)


def _config(header: Header) -> Any:
    from transformers import AutoConfig

    if _stretched(header) and not header.rope_factor:
        raise WeightsError(str(header.file), "transformers would ignore its stretched context (rope)", ORIGINAL)
    config = AutoConfig.from_pretrained(header.file.parent, gguf_file=header.file.name, trust_remote_code=False)
    if header.rope_factor:
        config.rope_parameters |= LLAMA3_ROPE | {"factor": header.rope_factor}
    return config


def _stretched(header: Header) -> bool:
    about = {name.removeprefix(f"{header.architecture}."): value for name, value in header.fields.items()}
    context = about.get("context_length", 0)
    shorter = about.get("rope.scaling.original_context_length", context) < context
    return header.architecture != "gpt-oss" and (shorter or about.get("rope.scaling.type", "none") != "none")


def _save_tokenizer(header: Header, folder: Path) -> None:
    """Save the tokenizer, and the tokens that end a turn in generation_config.json."""
    from transformers import AutoTokenizer, GenerationConfig

    tokenizer = AutoTokenizer.from_pretrained(header.file.parent, gguf_file=header.file.name, trust_remote_code=False)
    ends = {tokenizer.eos_token_id, header.fields.get("tokenizer.ggml.eot_token_id")} - {None}
    tokenizer.save_pretrained(folder)
    GenerationConfig(eos_token_id=min(ends) if len(ends) == 1 else sorted(ends)).save_pretrained(folder)


@contextmanager
def _reading_once() -> Iterator[None]:
    """A context in which gguf keeps what it has read.

    transformers reads the file three times more and makes a map of names for each module: two thirds of the conversion.
    A third of the rest: gguf cuts its mapped file into small pieces, which takes numpy's memmap 9 times as long as an
    array.
    """
    from numpy import asarray

    gguf: Any = import_module("gguf")
    plain = gguf.GGUFReader, gguf.get_tensor_name_map

    class Reader(gguf.GGUFReader):  # type: ignore[misc]
        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, asarray(value) if name == "data" else value)

    gguf.GGUFReader, gguf.get_tensor_name_map = map(functools.cache, (Reader, gguf.get_tensor_name_map))
    try:
        yield
    finally:
        gguf.GGUFReader, gguf.get_tensor_name_map = plain


@contextmanager
def _named_failures(file: Path, folder: Path) -> Iterator[None]:
    try:
        yield
    except WeightsError:
        raise
    except Exception as error:  # transformers, torch, gguf and the disk raise any
        if failed := write_error(error, file):
            raise unwritable(file, failed, folder=folder) from error
        raise WeightsError(str(file), f"it could not be converted ({_one_line(error)})", ORIGINAL) from error


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
