"""The systems that are compared, each on the same weights with the same engine arguments."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Protocol, cast

import httpx
import psutil

from bench.load import COG, OPENAI, Api, Timeline, stream_all
from hermes.devserver.server import PROJECT, LocalServer, free_port
from hermes.engine.engine import GRAMMARS
from hermes.settings import PROFILES, Settings

LOCAL = PROFILES["local"]
SLOTS = 64  # of every system. predict.py has 32, and the callers of a bench would wait for them and not for the engine.
ENGINE = "engine"  # the role of vLLM's core process
ROLES = {"VLLM::EngineCore": ENGINE, "coglet.server._run_worker": "worker", "guard.py": "guard"}


class System(Protocol):
    """Something that answers prompts."""

    name: str

    def start(self) -> None:
        """Return when the first prompt would be answered at once."""

    def answer(self, prompts: list[str]) -> list[Timeline]:
        """Answer all prompts at once."""

    def processes(self) -> list[psutil.Process]: ...

    def stop(self) -> None: ...


class RawEngine:
    """vLLM's AsyncLLM in a process of its own."""

    name = "raw AsyncLLM"

    def __init__(self, folder: Path, log: IO[bytes]):
        self._folder, self._log = folder, log

    def start(self) -> None:
        reading, writing = os.pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.raw_engine", str(self._folder), str(writing)],
            cwd=PROJECT,
            env={**os.environ, "COG_MAX_CONCURRENCY": str(SLOTS)},
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
            pass_fds=[writing],
        )
        os.close(writing)
        self._answers = os.fdopen(reading)
        self._read_answer()

    def answer(self, prompts: list[str]) -> list[Timeline]:
        stdin = cast(IO[bytes], self._process.stdin)
        stdin.write(json.dumps(prompts).encode() + b"\n")
        stdin.flush()
        return cast(list[Timeline], json.loads(self._read_answer()))

    def processes(self) -> list[psutil.Process]:
        return _tree(self._process.pid)

    def stop(self) -> None:
        cast(IO[bytes], self._process.stdin).close()
        self._process.wait(timeout=60)
        self._answers.close()

    def _read_answer(self) -> str:
        line = self._answers.readline()
        if not line:
            raise RuntimeError("the raw engine has ended; see the log beside the results")
        return line


class OurServer:
    """This package: Cog's server with our predict.py, over SSE."""

    def __init__(self, name: str, folder: Path, log: IO[bytes], **settings: str):
        self.name = name
        own = {"HERMES_PROFILE": "local", "COG_WEIGHTS": str(folder), "COG_MAX_CONCURRENCY": str(SLOTS)}
        self._server = LocalServer(environment={**own, **settings}, on_log=lambda line: _write(log, line))
        self.url = self._server.url

    def start(self) -> None:
        self._server.start()
        self._server.wait_until_ready()

    def answer(self, prompts: list[str]) -> list[Timeline]:
        return asyncio.run(stream_all(COG, self.url, prompts))

    def processes(self) -> list[psutil.Process]:
        return self._server.processes()

    def stop(self) -> None:
        self._server.stop()


class Gateway:
    """A gateway, asked in OpenAI's dialect: `python -m hermes` with a command that starts one."""

    def __init__(self, name: str, command: list[str], log: IO[bytes], **environment: str):
        self.name, self._command, self._log, self._port = name, command, log, free_port()
        self._environment = environment
        self.url = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "hermes", *self._command, "--port", str(self._port)],
            cwd=PROJECT,
            env={**os.environ, **self._environment},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )
        while not is_healthy(f"{self.url}/healthz"):
            if self._process.poll() is not None:
                raise RuntimeError("the gateway has ended; see the log beside the results")
            time.sleep(0.1)
        self.answer(["Hello"])

    def answer(self, prompts: list[str]) -> list[Timeline]:
        return asyncio.run(stream_all(OPENAI, self.url, prompts))

    def processes(self) -> list[psutil.Process]:
        return _tree(self._process.pid)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(timeout=30)


class Asked:
    """A server again, asked with more inputs."""

    def __init__(self, name: str, server: "OurServer | OpenAIServer", api: Api, more: Mapping[str, Any]):
        self.name, self._server, self._api, self._more = name, server, api, more

    def start(self) -> None:
        self.answer(["Hello"])  # the engine compiles a grammar once

    def answer(self, prompts: list[str]) -> list[Timeline]:
        return asyncio.run(stream_all(self._api, self._server.url, prompts, **self._more))

    def processes(self) -> list[psutil.Process]:
        return self._server.processes()

    def stop(self) -> None:
        """Nothing to do: the server is stopped as itself."""


class OpenAIServer:
    """vLLM's own OpenAI-compatible server, over SSE."""

    name = "vLLM's OpenAI server"

    def __init__(self, folder: Path, log: IO[bytes]):
        self._folder, self._log, self._port = folder, log, free_port()
        self.url = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        options = ["--model", str(self._folder), "--served-model-name", "model", "--port", str(self._port)]
        options += _options({**LOCAL.engine_args, "max_num_seqs": SLOTS, **GRAMMARS, **Settings().engine_args}.items())
        self._process = subprocess.Popen(
            [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1", *options],
            env={**LOCAL.environment, **os.environ, "VLLM_NO_USAGE_STATS": "1"},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )
        while not is_healthy(f"{self.url}/health"):
            if self._process.poll() is not None:
                raise RuntimeError("vLLM's server has ended; see the log beside the results")
            time.sleep(0.1)
        self.answer(["Hello"])  # it does not warm up by itself

    def answer(self, prompts: list[str]) -> list[Timeline]:
        return asyncio.run(stream_all(OPENAI, self.url, prompts))

    def processes(self) -> list[psutil.Process]:
        return _tree(self._process.pid)

    def stop(self) -> None:
        family = self.processes()
        self._process.terminate()
        _, alive = psutil.wait_procs(family, timeout=30)
        for process in alive:
            process.kill()
        self._process.wait()


def cpu_seconds(system: System) -> dict[str, float]:
    """What the processes of a system have used so far, by ROLES; the rest is the role "server"."""
    seconds: dict[str, float] = defaultdict(float)
    for process in system.processes():
        with suppress(psutil.NoSuchProcess, OSError):  # it has just ended
            command = " ".join(process.cmdline())
            role = next((role for part, role in ROLES.items() if part in command), "server")
            # The clock of another process, see clock_getcpuclockid(3): /proc has hundredths of a second.
            seconds[role] += time.clock_gettime(~process.pid << 3 | 2)
    return seconds


def peak_memory(system: System) -> int:
    """Bytes: the largest resident memory that each of its processes has had, added up."""
    peaks = 0
    for process in system.processes():
        status = Path(f"/proc/{process.pid}/status").read_text()
        peaks += next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) * 1024
    return peaks


def is_healthy(url: str) -> bool:
    """Whether a server says that it is."""
    try:
        return httpx.get(url, timeout=5).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def _options(engine_args: Iterable[tuple[str, object]]) -> list[str]:
    """Engine arguments as command line options."""
    options = []
    for name, value in engine_args:
        flag = ("--no-" if value is False else "--") + name.replace("_", "-")
        options += [flag] if isinstance(value, bool) else [flag, value if isinstance(value, str) else json.dumps(value)]
    return options


def _tree(pid: int) -> list[psutil.Process]:
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def _write(log: IO[bytes], line: str) -> None:
    log.write(line.encode() + b"\n")
