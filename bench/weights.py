"""make bench-weights: how fast a model of 2 GB arrives over the loopback, beside `hf download` and `curl | tar x`.

A process of its own serves the model, as the hub does and as an archive. The ways to fetch it take turns, each as a
whole process into an empty folder, with the disk's cache written back in between; ours verifies every checksum, the
others none. Its peak of memory is read from the kernel, and so is that of a process that only imports what ours does.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from hermes.serving.server import PROJECT

SHARDS, SHARD_BYTES = 4, 500_000_000
REPO, ARCHIVE = "bench/model", "/model.tar"
OURS_HUB, OURS_TAR, HF, CURL = "ours, hub", "ours, tar", "hf download", "curl | tar x"
IMPORTS = "import hermes.cli, hermes.weights, huggingface_hub, hf_xet"

app = typer.Typer(add_completion=False)
notes = Console(stderr=True, highlight=False)


def model(folder: Path) -> dict[str, Path]:
    """A model of random bytes: nothing compresses, and no two shards are alike."""
    files = {"config.json": b"{}", "tokenizer.json": b"{}"}
    names = {f"model-{n:05}-of-{SHARDS:05}.safetensors": n for n in range(1, SHARDS + 1)}
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    for name in names:
        with (folder / name).open("wb") as shard:
            for _ in range(SHARD_BYTES // 1_000_000):
                shard.write(os.urandom(1_000_000))
    return {name: folder / name for name in (*files, *names)}


def serve(folder: Path) -> None:
    """Serve the model in `folder` until standard input ends; its URL goes to standard output first."""
    sys.path.insert(0, str(PROJECT / "tests"))
    from hub_server import HubServer

    with HubServer() as server:
        server.add_repo(REPO, {path.name: path for path in (folder / "model").iterdir()}, lfs=("*.safetensors",))
        server.add_file(ARCHIVE, folder / "model.tar")
        print(server.url, flush=True)
        sys.stdin.read()


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "bench.weights", "--serve", str(folder)]
    with subprocess.Popen(command, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin and server.stdout
        yield server.stdout.readline().strip()
        server.stdin.close()


def commands(url: str, target: Path) -> dict[str, str]:
    """A shell command for each way to fetch the model into `target`."""
    hermes = f"{sys.executable} -m hermes weights fetch"
    return {
        OURS_HUB: f"{hermes} hf://{REPO}",
        OURS_TAR: f"{hermes} {url}{ARCHIVE}",
        HF: f"{Path(sys.executable).parent / 'hf'} download {REPO} --local-dir {target}",
        CURL: f"mkdir {target} && curl -sf {url}{ARCHIVE} | tar x -C {target}",
    }


def run(command: str, url: str, target: Path) -> tuple[float, int]:
    """Seconds that a command takes, and the most memory that a process of it had, in bytes."""
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
    process = subprocess.Popen(
        ["/bin/sh", "-c", f"exec {command}" if "|" not in command else command],
        cwd=PROJECT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.monotonic() - began
    if status:
        raise SystemExit(f"{command}: {process.stderr.read().decode() if process.stderr else status}")
    return seconds, used.ru_maxrss * 1024


@app.command()
def main(
    rounds: Annotated[int, typer.Option(help="how often each way gets its turn")] = 5,
    serve_from: Annotated[Path | None, typer.Option("--serve", hidden=True)] = None,
) -> None:
    """Measure, and print the table that the README has."""
    if serve_from:
        serve(serve_from)
        return
    with tempfile.TemporaryDirectory(prefix="bench-weights-") as temporary:
        folder = Path(temporary)
        notes.print(f"making a model of {SHARDS * SHARD_BYTES / 1e9:.0f} GB")
        model(folder / "model")
        subprocess.run(["tar", "-C", folder / "model", "-cf", folder / "model.tar", "."], check=True)
        baseline = run(f"{sys.executable} -c '{IMPORTS}'", "", folder / "none")[1]
        with serving(folder) as url:
            measured = measure(url, folder / "target", rounds)
    print_table(measured, baseline)


def measure(url: str, target: Path, rounds: int) -> dict[str, list[tuple[float, int]]]:
    measured = defaultdict(list)
    for number in range(rounds):
        ways = list(commands(url, target).items())
        for name, command in ways[number % len(ways) :] + ways[: number % len(ways)]:
            measured[name].append(run(command, url, target))
            notes.print(f"round {number + 1}: {name} {measured[name][-1][0]:.2f} s")
            shutil.rmtree(target)
    return measured


def print_table(measured: dict[str, list[tuple[float, int]]], baseline: int) -> None:
    better = [min(hf[0], curl[0]) for hf, curl in zip(measured[HF], measured[CURL], strict=True)]
    print("| way | MB/s | of the better of the two others | peak memory above imports |")
    print("|---|--:|--:|--:|")
    for name, runs in measured.items():
        rate = statistics.median(SHARDS * SHARD_BYTES / seconds for seconds, _ in runs)
        ratio = statistics.median(best / seconds for best, (seconds, _) in zip(better, runs, strict=True))
        memory = max(peak for _, peak in runs) - baseline
        print(
            f"| {name} | {rate / 1e6:.0f} | {ratio:.2f} | {f'{memory / 1e6:.0f} MB' if name.startswith('ours') else ''} |"
        )


if __name__ == "__main__":
    app()
