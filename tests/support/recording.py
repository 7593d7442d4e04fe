"""A Cog server between a gateway and the real one: it passes everything on, and keeps what predictions were of."""

import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx


@dataclass
class Prediction:
    """What one was asked, and what the model wrote."""

    inputs: dict
    said: str = ""


@dataclass
class Recorder:
    """Where gateways find the server, and the predictions since the last `taken`."""

    url: str
    predictions: list[Prediction] = field(default_factory=list)

    def taken(self):
        """The predictions so far that wrote anything, each returned once."""
        taken, self.predictions[:] = [each for each in self.predictions if each.said], []
        return taken


class Forwarding(BaseHTTPRequestHandler):
    """One request of a gateway. The connection is closed at the end of the answer, so it needs no length."""

    def forward(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        sent = {name: self.headers[name] for name in ("Accept", "Content-Type") if name in self.headers}
        target = f"{self.server.upstream}{self.path}"
        with httpx.stream(self.command, target, content=body, headers=sent, timeout=300) as response:
            self.send_response(response.status_code)
            self.send_header("Content-Type", response.headers.get("Content-Type", ""))
            self.end_headers()
            for line in self.recorded(body, response.iter_lines()):
                self.wfile.write(f"{line}\n".encode())

    do_GET = do_POST = do_PUT = forward  # noqa: N815 - the names are http.server's

    def recorded(self, body, lines):
        """The same lines; of a prediction, its inputs and pieces of output are kept."""
        inputs = json.loads(body).get("input") if self.command == "PUT" else None
        prediction = Prediction(inputs or {})
        if inputs:
            self.server.recorder.predictions.append(prediction)
        for line in lines:
            if inputs and line.startswith("data:"):
                prediction.said += json.loads(line.removeprefix("data:")).get("chunk", "")
            yield line

    def log_message(self, *_):
        """Say nothing: what fails is seen by the gateway."""


@contextmanager
def recording(upstream):
    """A recorder before the Cog server of this URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Forwarding)
    server.upstream, server.recorder = upstream, Recorder(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.recorder
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
