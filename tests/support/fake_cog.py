"""A stand-in for a Cog server, for tests of the gateway alone: python -m tests.support.fake_cog --port 5001

It speaks as coglet does: PUT /predictions/{id} with server-sent events, cancel, 409 without a slot, /health-check and
the real /openapi.json. No model runs: an answer repeats the beginning of the prompt, so a test knows what it has to be.
`PUT /behaviour` changes how it behaves from then on, and a prompt that holds `fake:E1002`, `fake:E1203` or `fake:cut`
fails in that way whatever the behaviour is.
"""

import argparse
import asyncio
import json
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from hermes.devserver import PROJECT
from hermes.devserver.predictor import PredictorSource
from hermes.devserver.server import free_port

REPEATED = 200  # characters of the prompt
ERRORS = {
    "E1002": "PromptTooLong: E1002 PromptTooLong: the prompt is 900 tokens and max_tokens 1; the model takes 512 with",
    "E1203": "EngineFailed: E1203 EngineFailed: the engine died; the request can be sent again",
}
JSON_TYPES = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "array": list, "object": dict}


@dataclass
class Behaviour:
    """How the server behaves."""

    status: int = 200  # of each prediction; 500 with a /health-check that says READY is a broken server
    error: str | None = None  # a key of ERRORS: each prediction fails with it after its first piece
    cut: bool = False  # each stream breaks off after its first piece
    pieces: int = 8  # at least, of each answer; max_tokens limits them
    delay: float = 0.0  # s before each piece
    health: str = "READY"


def pieces_of(inputs, behaviour=None):
    """The answer to these inputs."""
    behaviour = behaviour or Behaviour()
    prompt = inputs.get("prompt") or ""
    for message in inputs.get("messages") or []:
        if message.get("role") == "user" and isinstance(message.get("content"), str):
            prompt = message["content"]
    words = ["You", " said:", *(f" {word}" for word in prompt[:REPEATED].split())]
    words += [f" {number}" for number in range(len(words), behaviour.pieces)]
    return words[: inputs.get("max_tokens")]


class FakeCog:
    """The server, in its own process, from the beginning of the block to its end."""

    def __init__(self, slots=32, **behaviour):
        self._slots, self._behaviour = slots, Behaviour(**behaviour)
        self._port = free_port()
        self.process = None

    @property
    def url(self):
        return f"http://127.0.0.1:{self._port}"

    def start(self):
        """Start it, again on its port, and wait until it answers."""
        command = [sys.executable, "-m", "tests.support.fake_cog", "--port", str(self._port)]
        command += ["--slots", str(self._slots), "--behaviour", json.dumps(asdict(self._behaviour))]
        self.process = subprocess.Popen(command, cwd=PROJECT)
        deadline = time.monotonic() + 60
        while True:
            assert self.process.poll() is None, "the imitated server has ended"
            assert time.monotonic() < deadline, "the imitated server did not start"
            with suppress(httpx.TransportError):
                httpx.get(f"{self.url}/health-check", timeout=5)
                return
            time.sleep(0.05)

    def kill(self):
        """End it as a crash would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def behave(self, **changes):
        """Change how it behaves from now on."""
        self._behaviour = replace(self._behaviour, **changes)
        httpx.put(f"{self.url}/behaviour", json=asdict(self._behaviour), timeout=30).raise_for_status()

    @property
    def counts(self):
        """How many predictions began, run, were refused for want of a slot, and were cancelled."""
        return httpx.get(f"{self.url}/counts", timeout=30).json()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.kill()


class _Server:
    """What the process runs."""

    def __init__(self, slots, behaviour):
        self.slots, self.behaviour = slots, behaviour
        self.document = PredictorSource(PROJECT / "predict.py").openapi()
        self._inputs = self.document["components"]["schemas"]["Input"]["properties"]
        self._running = {}  # id -> an event that is set by a cancel
        self._counts = dict.fromkeys(["begun", "full", "canceled"], 0)

    def app(self):
        return Starlette(
            routes=[
                Route("/health-check", self.health),
                Route("/openapi.json", self.openapi),
                Route("/predictions/{id}", self.predict, methods=["PUT"]),
                Route("/predictions/{id}/cancel", self.cancel, methods=["POST"]),
                Route("/behaviour", self.behave, methods=["PUT"]),
                Route("/counts", self.counts),
            ]
        )

    async def health(self, request):
        status = "BUSY" if self.behaviour.health == "READY" and len(self._running) >= self.slots else None
        return JSONResponse({"status": status or self.behaviour.health})

    async def openapi(self, request):
        return JSONResponse(self.document)

    async def behave(self, request):
        self.behaviour = Behaviour(**await request.json())
        return JSONResponse({})

    async def counts(self, request):
        return JSONResponse(self._counts | {"running": len(self._running)})

    async def cancel(self, request):
        cancelled = self._running.get(request.path_params["id"])
        if cancelled is None:
            return JSONResponse({"error": "Prediction not found"}, 404)
        cancelled.set()
        return JSONResponse({})

    async def predict(self, request):
        run_id = request.path_params["id"]
        inputs = (await request.json()).get("input") or {}
        if wrong := self._wrong(inputs):
            return JSONResponse({"detail": [{"loc": ["body", "input", wrong], "msg": "wrong type"}]}, 422)
        if self.behaviour.status != 200:
            return Response("Internal Server Error", self.behaviour.status)
        if len(self._running) >= self.slots or run_id in self._running:
            self._counts["full"] += 1
            return JSONResponse({"error": "Already running a prediction"}, 409)
        self._counts["begun"] += 1
        self._running[run_id] = asyncio.Event()
        return StreamingResponse(self._events(run_id, inputs), media_type="text/event-stream")

    def _wrong(self, inputs):
        for name, value in inputs.items():
            kind = JSON_TYPES.get(self._inputs.get(name, {}).get("type"), object)
            if value is None or not isinstance(value, kind):
                return name
        return None

    async def _events(self, run_id, inputs):
        cancelled, behaviour = self._running[run_id], self.behaviour
        prompt = str(inputs.get("prompt") or inputs.get("messages") or "")
        error = behaviour.error or next((code for code in ERRORS if f"fake:{code}" in prompt), None)
        cut = behaviour.cut or "fake:cut" in prompt
        output, status = [], "succeeded"
        try:
            yield event("start", {"id": run_id, "status": "processing"})
            for piece in [] if error == "E1002" else pieces_of(inputs, behaviour):
                if behaviour.delay:
                    with suppress(TimeoutError):
                        await asyncio.wait_for(cancelled.wait(), behaviour.delay)
                if cancelled.is_set():
                    status = "canceled"
                    break
                output.append(piece)
                yield event("output", {"chunk": piece})
                if cut:
                    raise ConnectionAbortedError("this stream breaks off")
                if error:
                    break
            if error and status != "canceled":
                status = "failed"
            line = f"hermes: prediction: {run_id}\n"
            yield event("log", {"source": "stdout", "data": line})
            completed = {"id": run_id, "status": status, "output": output, "logs": line, "metrics": {}}
            if status == "failed":
                completed["error"] = f"Prediction failed: Generator iteration error: {ERRORS[error]}"
            if status == "succeeded":
                reason = "length" if len(output) == inputs.get("max_tokens") else "stop"
                counts = {"input_token_count": 1 + len(prompt) // 4, "output_token_count": len(output)}
                completed["metrics"] = {"finish_reason": reason, **counts}
                if inputs.get("max_tokens") == 0:
                    words = prompt.split()
                    told = {"ids": [*range(len(words))], "strings": words, "text": prompt, "bos": 0}
                    completed["metrics"]["tokenized"] = told
            yield event("completed", completed)
        finally:
            self._counts["canceled"] += status == "canceled"
            del self._running[run_id]


def event(name, data):
    return f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n".encode(errors="replace")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--slots", type=int, default=32)
    parser.add_argument(
        "--behaviour", type=json.loads, default={}, help=f"JSON of {[f.name for f in fields(Behaviour)]}"
    )
    options = parser.parse_args()
    app = _Server(options.slots, Behaviour(**options.behaviour)).app()
    uvicorn.run(app, host="127.0.0.1", port=options.port, log_level="critical", access_log=False, timeout_keep_alive=90)


if __name__ == "__main__":
    main()
