"""make bench-weights: how fast a model of 2 GB arrives over the loopback, beside `hf download` and `curl | tar x`.

A process of its own hosts the model, as the hub does and as an archive. The ways to fetch it take turns, each as a
whole process into an empty folder, with the disk written back before. Ours verifies every checksum, the others none.
The kernel tells the peak of memory, also that of a process that does nothing but import what ours imports.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, cast

import typer
from rich.console import Console

from hermes.devserver.server import PROJECT

SHARDS, SHARD_BYTES, HEADER_BYTES = 4, 500_000_000, 120
MODEL_BYTES = SHARDS * SHARD_BYTES
REPO, ARCHIVE = "bench/model", "/model.tar"
HF, CURL = "`hf download`", "`curl \\| tar x`"
IMPORTS = "import hermes.cli, hermes.weights, huggingface_hub"

notes = Console(stderr=True, highlight=False)


@dataclass(frozen=True)
class Run:
    """One process from its start to its end."""

    seconds: float
    peak_bytes: int


def write_model(folder: Path) -> None:
    """A model of random bytes, and its archive: nothing compresses, and no two shards are alike."""
    (folder / "model").mkdir()
    for name in ("config.json", "tokenizer.json"):
        (folder / "model" / name).write_text("{}")
    size = SHARD_BYTES - 8 - HEADER_BYTES
    tensor = {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}
    header = HEADER_BYTES.to_bytes(8, "little") + json.dumps({"weight": tensor}).ljust(HEADER_BYTES).encode()
    for number in range(1, SHARDS + 1):
        with (folder / "model" / f"model-{number:05}-of-{SHARDS:05}.safetensors").open("wb") as shard:
            for _ in range(SHARD_BYTES // 1_000_000):
                shard.write(os.urandom(1_000_000))
            shard.seek(0)
            shard.write(header)
    subprocess.run(["tar", "-C", folder / "model", "-cf", folder / "model.tar", "."], check=True)


@contextmanager
def hosted(folder: Path) -> Iterator[str]:
    """The URL of a host of the model."""
    command = [sys.executable, "-m", "tests.support.host", str(folder)]
    with subprocess.Popen(command, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as host:
        try:
            yield cast(str, host.stdout and host.stdout.readline()).strip()
        finally:
            host.terminate()


def ways(url: str, target: Path) -> dict[str, str]:
    """Shell commands that fetch the model into a folder."""
    bin_folder = Path(sys.executable).parent
    ours = f"exec {sys.executable} -m hermes weights fetch"
    return {
        "this package, from the hub": f"{ours} hf://{REPO}",
        "this package, from the tar": f"{ours} {url}{ARCHIVE}",
        HF: f"exec {bin_folder / 'hf'} download {REPO} --local-dir {target}",
        CURL: f"mkdir {target} && curl -sf {url}{ARCHIVE} | tar x -C {target}",
    }


def run(command: str, url: str, target: Path) -> Run:
    """Run a shell command to its end."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": url,
        "HF_HOME": str(target.parent / "hf-home"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HERMES_WEIGHTS_DIR": str(target),
        "HERMES_WEIGHTS_LOCK": str(target / "weights.lock"),
    }
    os.sync()
    began = time.monotonic()
    process = subprocess.Popen(["/bin/sh", "-c", command], cwd=PROJECT, env=environment, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"exit code {process.returncode}: {command}")
    return Run(time.monotonic() - began, used.ru_maxrss * 1024)


def measure(url: str, target: Path, rounds: int) -> dict[str, list[Run]]:
    """Let the ways take turns, and each begin a round in turn."""
    commands = list(ways(url, target).items())
    measured: dict[str, list[Run]] = {name: [] for name, _ in commands}
    for number in range(rounds):
        first = number % len(commands)
        for name, command in commands[first:] + commands[:first]:
            measured[name].append(run(command, url, target))
            shutil.rmtree(target)
            notes.print(f"round {number + 1}: {name} {measured[name][-1].seconds:.2f} s", markup=False)
    return measured


def rows(measured: dict[str, list[Run]], imports: Run) -> Iterator[str]:
    """The table, as docs/benchmarks.md has it; ratios are taken within a round."""
    best = [min(each.seconds for each in others) for others in zip(measured[HF], measured[CURL], strict=True)]
    yield "| way | MB/s | of the better of the two others | peak of memory above imports |"
    yield "|---|--:|--:|--:|"
    for name, runs in measured.items():
        rate = MODEL_BYTES / statistics.median(each.seconds for each in runs) / 1e6
        ratio = statistics.median(other / each.seconds for other, each in zip(best, runs, strict=True))
        above = max(each.peak_bytes for each in runs) - imports.peak_bytes
        memory = f"{above / 1e6:.0f} MB" if name not in (HF, CURL) else ""
        yield f"| {name} | {rate:.0f} | {ratio:.2f} | {memory} |"


def main(rounds: Annotated[int, typer.Option(help="how often each way gets its turn")] = 6) -> None:
    """Measure, and print the table."""
    with tempfile.TemporaryDirectory(prefix="bench-weights-") as temporary:
        folder = Path(temporary)
        notes.print(f"writing a model of {MODEL_BYTES / 1e9:.0f} GB, twice")
        write_model(folder)
        imports = run(f"exec {sys.executable} -c '{IMPORTS}'", "", folder / "target")
        with hosted(folder) as url:
            measured = measure(url, folder / "target", rounds)
    print("\n".join(rows(measured, imports)))


if __name__ == "__main__":
    typer.run(main)
