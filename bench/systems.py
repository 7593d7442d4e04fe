"""The three systems that are compared, each on the same weights with the same engine arguments."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import IO, Any, Protocol, cast

import httpx
import psutil

from bench.load import Ask, Timeline, ask_cog, ask_openai, stream_all
from hermes.chat.request import DEFAULT_SYSTEM_PROMPT
from hermes.devserver.server import PROJECT, LocalServer, free_port
from hermes.settings import PROFILES

LOCAL = PROFILES["local"]


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
        environment = {"HERMES_PROFILE": "local", "COG_WEIGHTS": str(folder), **settings}
        self._server = LocalServer(environment=environment, on_log=lambda line: _write(log, line))
        self.url = self._server.url

    def start(self) -> None:
        self._server.start()
        self._server.wait_until_ready()

    def answer(self, prompts: list[str]) -> list[Timeline]:
        return asyncio.run(stream_all(ask_cog, self.url, prompts))

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
        return asyncio.run(stream_all(ask_openai, self.url, prompts))

    def processes(self) -> list[psutil.Process]:
        return _tree(self._process.pid)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(timeout=30)


class Asked:
    """A server again, asked with more inputs."""

    def __init__(self, name: str, server: "OurServer | OpenAIServer", ask: Ask, inputs: Mapping[str, Any]):
        self.name, self._server, self._ask = name, server, partial(ask, more=inputs)

    def start(self) -> None:
        self.answer(["Hello"])  # the engine compiles a grammar once

    def answer(self, prompts: list[str]) -> list[Timeline]:
        return asyncio.run(stream_all(self._ask, self._server.url, prompts))

    def processes(self) -> list[psutil.Process]:
        return self._server.processes()

    def stop(self) -> None:
        """Nothing to do: the server is stopped as itself."""


# A long list of numbers, never complete within the new tokens, after the very prompt that others get: the cost of the
# grammar alone. min_tokens can't go with a schema.
JSON_ANSWER = {
    "json_schema": {"type": "array", "items": {"type": "integer"}, "minItems": 1000},
    "prompt_template": f"<|im_start|>system\n{DEFAULT_SYSTEM_PROMPT}<|im_end|>\n"
    "<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n",
    "min_tokens": 0,
}
# Free text in which a call may begin, after a prompt that is 240 tokens longer for the description of the tool.
WITH_A_TOOL = {
    "tools": [
        {
            "name": "get_weather",
            "description": "Get the weather of a city.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        }
    ]
}


class OpenAIServer:
    """vLLM's own OpenAI-compatible server, over SSE."""

    name = "vLLM's OpenAI server"

    def __init__(self, folder: Path, log: IO[bytes]):
        self._folder, self._log, self._port = folder, log, free_port()
        self.url = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        options = ["--model", str(self._folder), "--served-model-name", "model", "--port", str(self._port)]
        options += _options(LOCAL.engine_args.items())
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
        return asyncio.run(stream_all(ask_openai, self.url, prompts))

    def processes(self) -> list[psutil.Process]:
        return _tree(self._process.pid)

    def stop(self) -> None:
        family = self.processes()
        self._process.terminate()
        _, alive = psutil.wait_procs(family, timeout=30)
        for process in alive:
            process.kill()
        self._process.wait()


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
        options += [flag] if isinstance(value, bool) else [flag, str(value)]
    return options


def _tree(pid: int) -> list[psutil.Process]:
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def _write(log: IO[bytes], line: str) -> None:
    log.write(line.encode() + b"\n")
