"""Quantises the linear layers of a model to fp8, on a CPU: half the bytes to fetch, to hold, and to read a token.

Each block of 128 x 128 weights has a scale of its own. If the matrices are no whole blocks, each row has one instead.
Embeddings, lm_head and norms stay as they are. The folder is a checkpoint of compressed-tensors, which vLLM and
transformers read: https://github.com/vllm-project/compressed-tensors

One shard at a time is in memory. Finished shards stay in a staging folder, and the next run goes on with the others.
"""

import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hermes.errors import WeightsError
from hermes.weights.disk import unwritable, write_error
from hermes.weights.folder import files_of, let_others_read, require_one_model
from hermes.weights.lock import write_whole
from hermes.weights.progress import Progress, shown
from hermes.weights.safetensors import AGAIN, ENDING, INDEX

BLOCK = 128  # rows and columns that share a scale
LINEAR = re.compile(r"model\.layers\.\d+\.\w+\.\w+_proj\.weight")  # the matrices of a Llama-like model's layers
# Old files of Llama 2 have inv_freq. vLLM computes its own and skips it.
KEPT = re.compile(r"lm_head\.weight|model\.embed_tokens\.weight|.*norm\.weight|.*\.bias|.*\.rotary_emb\.inv_freq")
FORMAT = "float-quantized"
REWRITTEN = ("config.json", INDEX)

CHOOSE = "name a model in 16 bits whose layers are those of Llama"


def quantise(model: Path, out: Path) -> Path:
    """Write a model in 16 bits as one in 8 bits. The same model gives the same bytes.

    Args:
        model: a folder in the Hugging Face layout, with safetensors.
        out: the new folder. It appears whole or not at all.

    Raises WeightsError if `out` is there, the model is of another kind or damaged, or the disk fails.
    """
    if out.exists():
        raise WeightsError(out, "it is there already", "delete it, or choose another path")
    files = files_of(model)
    shards = [file.name for file in files if file.name.endswith(ENDING)]
    config = _unquantised(model)
    with _named_failures(model, out):
        scheme = scheme_for([shape for name in shards for shape in _shapes(model / name)])
        staging = _staging(model, [file.name for file in files], out)
        progress = Progress(total=sum((model / name).stat().st_size for name in shards), files=len(shards))
        with shown(progress, out.name):
            for name in shards:
                size = (model / name).stat().st_size
                if (staging / name).is_file():
                    progress.was_there(size)
                else:
                    _write_shard(model / name, staging / name, scheme)
                    progress.arrived(size)
                progress.finished_file()
        for file in files:
            if file.name not in (*shards, *REWRITTEN):
                shutil.copyfile(model / file.name, staging / file.name)
        write_whole(staging / "config.json", {**config, "quantization_config": _quantization_config(scheme)})
        if len(shards) > 1:
            write_whole(staging / INDEX, _index(staging, shards))
        os.replace(staging, out)
    return out


def quantised(weight: Any, scheme: Any) -> tuple[Any, Any]:
    """A matrix in float8_e4m3fn, and its scales in float32, as torch tensors.

    A scale is the largest absolute weight of its block or row, / 448, the largest number of the format. The scales have
    the shape (rows / 128, columns / 128), or (rows, 1).
    """
    from compressed_tensors.compressors import FloatQuantizationCompressor
    from compressed_tensors.quantization.utils import calculate_qparams

    rows, columns = scheme.weights.block_structure or (1, weight.shape[1])
    weight = weight.float()
    blocks = weight.unflatten(0, (-1, rows)).unflatten(2, (-1, columns))
    scale, _ = calculate_qparams(blocks.amin((1, 3)), blocks.amax((1, 3)), scheme.weights)
    compressed = FloatQuantizationCompressor.compress({"weight": weight, "weight_scale": scale}, scheme)
    return compressed["weight"], scale


def scheme_for(shapes: Iterable[Sequence[int]]) -> Any:
    """The scheme of compressed-tensors for matrices of these shapes: weights in fp8.

    Blocks are those of its FP8_BLOCK, whose activations are in fp8 where a GPU can multiply them. An A100 can't, and
    vLLM leaves them in 16 bits there. vLLM 0.32 can't load blocks of a scheme without activations.
    """
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme, preset_name_to_scheme

    if all(size % BLOCK == 0 for shape in shapes for size in shape):
        return preset_name_to_scheme("FP8_BLOCK", ["Linear"]).model_copy(update={"format": FORMAT})
    weights = QuantizationArgs(num_bits=8, type="float", strategy="channel")
    return QuantizationScheme(targets=["Linear"], weights=weights, format=FORMAT)


def _quantization_config(scheme: Any) -> dict[str, Any]:
    from compressed_tensors.quantization import QuantizationConfig

    config = QuantizationConfig(
        config_groups={"group_0": scheme}, format=FORMAT, quantization_status="compressed", ignore=["lm_head"]
    )
    return dict(config.to_dict())


def _unquantised(model: Path) -> dict[str, Any]:
    """The config.json of a model. Raises WeightsError if it is not one, or the model is quantised already."""
    config = require_one_model(model)
    if config.get("quantization_config"):
        raise WeightsError(model, "it is quantised already", CHOOSE)
    return config


def _staging(model: Path, names: Sequence[str], out: Path) -> Path:
    """The staging folder for these files as they are now. What another model left there goes."""
    stats = [(model / name).stat() for name in names]
    state = f"{model.resolve()} {names} {[(each.st_size, each.st_mtime_ns) for each in stats]}"
    staging = out.with_name(f".{out.name}.{hashlib.sha256(state.encode()).hexdigest()[:12]}.partial")
    for other in out.parent.glob(f".{out.name}.*.partial"):
        if other != staging:
            shutil.rmtree(other)
    staging.mkdir(parents=True, exist_ok=True)
    return staging


def _write_shard(source: Path, target: Path, scheme: Any) -> None:
    from safetensors.torch import save_file

    unfinished = target.with_name(f".{target.name}.unfinished")
    save_file(dict(_tensors(source, scheme)), unfinished, metadata={"format": "pt"})
    let_others_read(unfinished)
    os.replace(unfinished, target)


def _shapes(shard: Path) -> Iterator[Sequence[int]]:
    """The shapes of the linear layers in one shard. Raises WeightsError if it has tensors of an unknown kind."""
    from safetensors import safe_open

    with safe_open(shard, framework="pt") as opened:
        for name in opened.keys():  # noqa: SIM118 - it has no other way to iterate
            shape = opened.get_slice(name).get_shape()
            if LINEAR.fullmatch(name) and len(shape) == 2:
                yield shape
            elif not KEPT.fullmatch(name):
                raise WeightsError(shard, f"its tensor {name} is of no kind that is known here", CHOOSE)


def _tensors(shard: Path, scheme: Any) -> Iterator[tuple[str, Any]]:
    """The tensors of one shard, with the linear layers quantised."""
    from safetensors import safe_open

    with safe_open(shard, framework="pt") as opened:
        for name in opened.keys():  # noqa: SIM118 - it has no other way to iterate
            tensor = opened.get_tensor(name)
            if LINEAR.fullmatch(name):
                tensor, scale = quantised(tensor, scheme)
                _require_finite(shard, name, scale)
                yield f"{name}_scale", scale
            else:
                _require_finite(shard, name, tensor)
            yield name, tensor


def _require_finite(shard: Path, name: str, values: Any) -> None:
    """Raises WeightsError if there is a NaN or an infinity. One among the weights of a block is in their scale, too."""
    if values.numel() and not all(bound.isfinite() for bound in values.aminmax()):
        raise WeightsError(shard, f"its tensor {name} has a NaN or an infinity", AGAIN)


def _index(folder: Path, shards: Sequence[str]) -> dict[str, Any]:
    from safetensors import safe_open

    where, size = {}, 0
    for shard in shards:
        path = folder / shard
        with safe_open(path, framework="pt") as opened, path.open("rb") as file:
            where.update(dict.fromkeys(opened.keys(), shard))
            size += path.stat().st_size - 8 - int.from_bytes(file.read(8), "little")  # without the header
    return {"metadata": {"total_size": size}, "weight_map": dict(sorted(where.items()))}


@contextmanager
def _named_failures(model: Path, out: Path) -> Iterator[None]:
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        if failed := write_error(error, model):
            raise unwritable(out, failed, "choose another path; finished shards are kept") from error
        raise WeightsError(model, f"it can't be read ({error})", "check the path and its permissions") from error
