"""make bench-weights: what a start takes by the way the weights are read, and by where compiled code comes from.

The ways to read take turns on a random Llama of 2 GB, which is out of the page cache before each start. The compiled
code is that of torch.compile on this CPU: none yet, kept by an earlier start, or come with the archive of the model.
Each start is a server of its own, and each gives the same greedy text, or this ends with an error.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from bench.weights import ARCHIVE, hosted
from hermes.client import CogServer
from hermes.devserver.server import PROJECT, LocalServer
from hermes.serving.boot import REPORT
from hermes.weights import smollm2

QUESTION = {"prompt": "What is the capital of France?", "temperature": 0, "max_tokens": 24}
READERS: Mapping[str, Mapping[str, Any]] = {
    "safetensors": {"load_format": "safetensors"},
    "runai_streamer": {"load_format": "runai_streamer", "model_loader_extra_config": {"concurrency": 16}},
}

notes = Console(stderr=True, highlight=False)


def start(engine_args: Mapping[str, Any], weights: str | Path, weights_dir: Path) -> tuple[float, str]:
    """The seconds that a server took to load the model, and its greedy text."""
    environment = {
        "HERMES_PROFILE": "local",
        "HERMES_ENGINE_ARGS": json.dumps(engine_args),
        "HERMES_WEIGHTS_DIR": str(weights_dir),
        "HERMES_WEIGHTS_LOCK": str(weights_dir / "weights.lock"),
        "HERMES_PACKED_CACHE": "true",
        "COG_WEIGHTS": str(weights),
    }
    with LocalServer(environment=environment) as server:
        server.wait_until_ready()
        text = CogServer(server.url).ask(QUESTION).text
        report = next(line.partition(REPORT)[2] for line in server.log if REPORT in line)
    return float(json.loads(report)["load"]), text


def require_same(texts: set[str]) -> None:
    if len(texts) != 1:
        raise SystemExit(f"the starts do not give the same greedy text: {sorted(texts)}")


def write_llama(folder: Path, small_model: Path) -> None:
    """A random Llama of about 2 GB in bfloat16, with the tokenizer of the small model."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    shutil.copytree(small_model, folder, ignore=shutil.ignore_patterns("*.safetensors", "*config.json"))
    shutil.copy(small_model / "tokenizer_config.json", folder)
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    sizes = {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 14, "num_attention_heads": 16}
    config = LlamaConfig(vocab_size=49152, max_position_embeddings=8192, bos_token_id=1, eos_token_id=2, **sizes)
    LlamaForCausalLM(config).save_pretrained(folder, max_shard_size="500MB")


def forget(folder: Path) -> None:
    """Put the files of a folder out of the page cache."""
    os.sync()
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def reading(model: Path, weights_dir: Path, rounds: int) -> Iterator[str]:
    """The table of the ways to read weights. Ratios are taken within a round."""
    seconds: dict[str, list[float]] = {name: [] for name in READERS}
    texts = set()
    for number in range(rounds):
        for name in [*READERS][:: 1 if number % 2 else -1]:
            forget(model)
            loading, text = start(READERS[name], model, weights_dir)
            seconds[name].append(loading)
            texts.add(text)
            notes.print(f"round {number + 1}: {name} {loading:.1f} s")
    require_same(texts)
    yield "| load_format | load | of safetensors |"
    yield "|---|--:|--:|"
    for name, taken in seconds.items():
        ratios = sorted(each / plain for each, plain in zip(taken, seconds["safetensors"], strict=True))
        spread = f" ({ratios[0]:.2f}-{ratios[-1]:.2f})" if name != "safetensors" else ""
        yield f"| `{name}` | {statistics.median(taken):.1f} s | {statistics.median(ratios):.2f}{spread} |"


def compiling(folder: Path, model: Path) -> Iterator[str]:
    """The table of three starts with torch.compile."""
    engine_args = {"enforce_eager": False}
    taken, texts = {}, set()
    for name in ("nothing is kept", "kept by the first start"):
        taken[name], text = start(engine_args, model, folder / "kept")
        texts.add(text)
        notes.print(f"{name}: {taken[name]:.1f} s")
    shutil.copytree(model, folder / "model")
    command = ["weights", "pack", str(model), "-o", str(folder / ARCHIVE[1:]), "--with-cache"]
    environment = {**os.environ, "HERMES_PROFILE": "local", "HERMES_WEIGHTS_DIR": str(folder / "kept")}
    subprocess.run(
        [sys.executable, "-m", "hermes", *command], cwd=PROJECT, env=environment, check=True, stdout=sys.stderr
    )
    with hosted(folder) as url:
        name = "came with the archive"
        taken[name], text = start(engine_args, f"{url}{ARCHIVE}", folder / "fetched")
        texts.add(text)
        notes.print(f"{name}: {taken[name]:.1f} s")
    require_same(texts)
    yield "| compiled code | load | of the first start |"
    yield "|---|--:|--:|"
    for name, seconds in taken.items():
        yield f"| {name} | {seconds:.1f} s | {seconds / taken['nothing is kept']:.2f} |"


def main(rounds: Annotated[int, typer.Option(help="how often each way to read gets its turn")] = 4) -> None:
    """Measure, and print the tables."""
    small_model = smollm2.prepare(PROJECT / "weights" / smollm2.FOLDER)
    with tempfile.TemporaryDirectory(prefix="bench-starts-") as temporary:
        folder = Path(temporary)
        notes.print("writing a random Llama of 2 GB")
        write_llama(folder / "llama", small_model)
        print("\n".join(reading(folder / "llama", folder / "weights", rounds)), end="\n\n", flush=True)
        shutil.rmtree(folder / "llama")
        print("\n".join(compiling(folder, small_model)))


if __name__ == "__main__":
    typer.run(main)
