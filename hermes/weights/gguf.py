"""A GGUF file becomes a folder in the Hugging Face layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md

For a CPU its weights are de-quantised to bfloat16, once. For GPUs they stay as they are and the folder points vLLM's
plugin for GGUF at them. No GPU was there to try that on: the plugin's own kernels have not been run by us.
"""

import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from hermes.errors import WeightsError

logger = logging.getLogger(__name__)

PLUGIN, PLUGIN_VERSION = "vllm-gguf-plugin", "0.0.5"
# What that version is right about with vLLM 0.32: what its makers test, and Llama once its rows are in order.
PLUGIN_READS = ("llama", "gemma3", "olmoe", "phi3", "qwen2", "qwen3", "stablelm")
HEADS = re.compile(r"blk\.\d+\.attn_([qk])\.(?:weight|bias)")

# Llama 3.1 to 3.3 stretch their context so. A GGUF has it as a tensor of factors, which transformers passes over.
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
ORIGINAL = "serve the model's safetensors instead, from its original repository"


@dataclass(frozen=True)
class Header:
    """What a GGUF file says of itself."""

    file: Path
    architecture: str
    fields: Mapping[str, Any]  # all but the arrays
    weights: int
    largest: int  # weights of the largest tensor
    rope_factor: float | None  # how far Llama 3.1's context is stretched


def folder_name(file: Path, suffix: str) -> str:
    """A name for what becomes of `file`; another file in its place gets another name."""
    stat = file.stat()
    identity = f"{file.resolve()} {stat.st_size} {stat.st_mtime_ns}"
    return f"{file.stem}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}-{suffix}"


def dequantised(file: Path, folder: Path, before: Callable[[], object] = lambda: None) -> Path:
    """The model of `file` in `folder`, converted there unless it is already. It appears whole or not at all.

    `before` is called when it is to be converted, before transformers is imported.

    Raises:
        WeightsError: the file is no GGUF or cut short, its weights do not fit, or transformers can't read it.
    """
    if folder.is_dir():
        return folder
    header = read_header(file)
    logger.info("weights: de-quantising %s, once", file.name)
    before()
    with _named_failures(file), _appearing_whole(folder) as unfinished:
        check_room(header, psutil.virtual_memory().available, shutil.disk_usage(unfinished).free)
        _convert(header, unfinished)
    return folder


def for_plugin(file: Path, folder: Path, before: Callable[[], object] = lambda: None) -> Path:
    """The same without de-quantising, for GPUs: `folder` has the config, the tokenizer and a predictor_config.json with
    the engine_args that point vLLM at the weights. Of a Llama it also has a copy of the file.

    Raises:
        WeightsError: the plugin is not there, or the file can't be used with it.
    """
    _require_plugin(file)
    if folder.is_dir():
        return folder
    header = read_header(file)
    if header.architecture not in PLUGIN_READS:
        problem = f"{PLUGIN} {PLUGIN_VERSION} may read the architecture {header.architecture!r} wrongly"
        raise WeightsError(str(file), problem, f"known are {', '.join(PLUGIN_READS)}; {ORIGINAL}")
    before()
    with _named_failures(file), _appearing_whole(folder) as unfinished:
        weights = _copy_in_order(header, unfinished, folder) if header.architecture == "llama" else file
        _config(header).save_pretrained(unfinished)
        _save_tokenizer(header, unfinished)
        _save_engine_args(weights, unfinished)
    return folder


def read_header(file: Path) -> Header:
    """What `file` says of itself, once it is known to be whole.

    Raises:
        WeightsError: it can't be opened, is no GGUF file, is cut short, or is one part of several.
    """
    try:
        with file.open("rb") as opened:
            magic = opened.read(4)
    except OSError as error:
        raise WeightsError(str(file), f"it can't be opened ({error.strerror})", "check the path") from error
    if magic != b"GGUF":
        raise WeightsError(str(file), f"this is no GGUF file: it begins with {magic!r}", "check what the file is")
    try:
        header = _parsed(file)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:  # GGUFReader checks nothing: it runs aground
        problem = f"it is cut short or damaged, {file.stat().st_size} bytes long ({_one_line(error)})"
        raise WeightsError(str(file), problem, "fetch it again and compare its size with the source's") from error
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
                f"of {place}, and {free / 1e9:.1f} GB are free"
            )
            raise WeightsError(str(header.file), problem, f"take a machine with more {place}, or a smaller model")


def _parsed(file: Path) -> Header:
    from gguf import GGUFReader, GGUFValueType

    reader = GGUFReader(file)
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
    if missing := loading["missing_keys"]:  # transformers would make them up
        problem = f"{len(missing)} of the model's tensors are not in it, such as {min(missing)}"
        raise WeightsError(str(header.file), problem, ORIGINAL)
    model.save_pretrained(folder)
    _save_tokenizer(header, folder)


def _config(header: Header) -> Any:
    from transformers import AutoConfig

    if _stretched(header) and not header.rope_factor:
        raise WeightsError(str(header.file), "transformers would drop how its context is stretched (rope)", ORIGINAL)
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
    """The tokenizer, and in generation_config.json which tokens end a turn."""
    from transformers import AutoTokenizer, GenerationConfig

    tokenizer = AutoTokenizer.from_pretrained(header.file.parent, gguf_file=header.file.name, trust_remote_code=False)
    ends = {tokenizer.eos_token_id, header.fields.get("tokenizer.ggml.eot_token_id")} - {None}
    tokenizer.save_pretrained(folder)
    GenerationConfig(eos_token_id=min(ends) if len(ends) == 1 else sorted(ends)).save_pretrained(folder)


def _save_engine_args(weights: Path, folder: Path) -> None:
    engine_args = {
        "model_weights": str(weights.resolve()),
        "load_format": "gguf",
        "config_format": "gguf",
        "quantization": "gguf",
    }
    (folder / "predictor_config.json").write_text(json.dumps({"engine_args": engine_args}), encoding="utf-8")


def _copy_in_order(header: Header, unfinished: Path, folder: Path) -> Path:
    """llama.cpp alternates the rows of the two halves of each head that are rotated together; vLLM 0.32's Llama has one
    half after the other, and the plugin leaves it at that. Whole rows move, so nothing is quantised again. Gives where
    the copy will be.
    """
    from gguf import GGUFReader

    copy = shutil.copyfile(header.file, unfinished / header.file.name)
    reader = GGUFReader(copy, "r+")
    counts = {"q": header.fields["llama.attention.head_count"]}
    counts["k"] = header.fields.get("llama.attention.head_count_kv", counts["q"])
    for tensor in reader.tensors:
        if named := HEADS.fullmatch(tensor.name):
            rows = tensor.data
            pairs = rows.reshape(counts[named[1]], -1, 2, *rows.shape[1:])
            rows[...] = pairs.swapaxes(1, 2).reshape(rows.shape)
    reader.data.flush()
    return folder / copy.name


def _require_plugin(file: Path) -> None:
    try:
        found = version(PLUGIN)
    except PackageNotFoundError:
        found = "none"
    if found != PLUGIN_VERSION:
        problem = f"on GPUs vLLM reads a GGUF file through {PLUGIN} {PLUGIN_VERSION}, and {found} is installed"
        raise WeightsError(str(file), problem, f"add {PLUGIN}=={PLUGIN_VERSION} to requirements.txt, or {ORIGINAL}")


@contextmanager
def _appearing_whole(folder: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `folder` at the end, by one rename."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield unfinished
        _move_whole(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _move_whole(unfinished: Path, folder: Path) -> None:
    try:
        os.replace(unfinished, folder)
    except OSError:
        if not folder.is_dir():  # another process was not faster: the error stands
            raise


@contextmanager
def _named_failures(file: Path) -> Iterator[None]:
    try:
        yield
    except WeightsError:
        raise
    except Exception as error:  # whatever transformers, torch, gguf or the disk raise
        raise WeightsError(str(file), f"it could not be converted ({_one_line(error)})", ORIGINAL) from error


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
