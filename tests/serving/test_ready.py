import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.error import URLError

import pytest

from hermes.devserver.server import free_port
from hermes.serving import ready


@pytest.mark.parametrize(
    ("status", "exit_status"),
    [("READY", 0), ("BUSY", 0), ("STARTING", 1), ("SETUP_FAILED", 1), ("UNHEALTHY", 1), ("DEFUNCT", 1)],
)
def test_a_server_is_ready_when_it_takes_predictions_or_all_slots_are_taken(status, exit_status, monkeypatch):
    class Health(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/health-check" else 404)
            self.end_headers()
            self.wfile.write(json.dumps({"status": status}).encode())

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Health) as server:
        threading.Thread(target=server.handle_request).start()
        monkeypatch.setenv("PORT", str(server.server_port))
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
        assert ready.main() == exit_status


def test_a_server_that_does_not_listen_is_not_ready(monkeypatch):
    monkeypatch.setenv("PORT", str(free_port()))
    with pytest.raises(URLError):
        ready.main()
