"""Models and servers that say what a test told them to."""

import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from hermes.client import BadToolCall, Response, ToolCall

# What the tests of both kinds of servers have them say.
METRICS = {"finish_reason": "stop", "output_token_count": 2, "seed": 3}
TEXT = "Hé\u2028llo 😀\nthere"
PIECES = ["Hé\u2028llo", " 😀\nthere"]
FAILED = "Prediction failed: Generator iteration error: EmptyRequest: E1001 EmptyRequest: prompt is empty"


@dataclass
class ScriptedModel:
    """A model with its answers written down; it lives by the Model protocol."""

    responses: list[Response]
    asked: list = field(default_factory=list)  # the inputs of each ask

    def ask(self, inputs, on_text=None):
        self.asked.append(json.loads(json.dumps(inputs)))
        response = self.responses[len(self.asked) - 1]
        if on_text:
            on_text(response.text)
        return response


def calls(*made, errors=(), finish_reason="tool_calls"):
    """The response of a model that made calls, (name, arguments), and mistakes, (name, problem)."""
    return Response(
        "\n".join(f"<{name}>" for name, _ in made),
        finish_reason,
        tool_calls=tuple(ToolCall(*call) for call in made),
        tool_call_errors=tuple(BadToolCall("<text>", problem, name) for name, problem in errors),
    )


class Handler(BaseHTTPRequestHandler):
    """What both kinds of servers need: JSON in and out, and a stream that can be cut."""

    protocol_version = "HTTP/1.1"

    def body(self):
        return json.loads(self.rfile.read(int(self.headers["Content-Length"])))

    def answer(self, value, status=200):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def stream(self, events, cut=False):
        """Server-sent events as chunks; a cut stream has no last chunk."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for event in events:
            chunk = event.encode()
            self.wfile.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
            self.wfile.flush()
        if not cut:
            self.wfile.write(b"0\r\n\r\n")
        self.close_connection = True

    def log_message(self, *_):
        pass


@contextmanager
def serving(handler):
    """The URL of a server with this handler, while the block runs."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.005})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def stop_at_once(_):
    raise KeyboardInterrupt
