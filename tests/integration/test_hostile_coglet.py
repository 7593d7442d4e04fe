"""coglet 0.23.1 treats ids and webhooks in its own way. We can only watch; one test fails when a Cog does better."""

import json
import os
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import quote

import httpx
import pytest

from tests.support.asking import post, until
from tests.support.hostile_requests import MEGABYTE, SHORT, refused_inputs, send

pytestmark = pytest.mark.usefixtures("bounded")


@pytest.mark.parametrize("prediction_id", [" ", "%", "日本😀", "\u202e", "a\r\nX: 1", '"<script>', "a?b#c", "x" * 255])
def test_a_prediction_may_be_called_anything(quick_server, prediction_id):
    prediction = post(quick_server, quote(prediction_id, safe=""), **SHORT).json()
    assert (prediction["id"], prediction["status"]) == (prediction_id, "succeeded")
    assert httpx.post(f"{quick_server.url}/predictions/{quote(prediction_id, safe='')}/cancel").status_code == 404


def test_an_id_that_is_not_the_one_in_the_path_is_refused(quick_server):
    response = send(quick_server, json.dumps({"id": "two", "input": SHORT}), method="PUT", path="/predictions/one")
    assert refused_inputs(response) == ["id"]
    assert send(quick_server, "{}", method="PUT", path="/predictions/%ff").status_code == 400


def test_an_id_still_makes_folders_wherever_it_says(quick_server, tmp_path):
    """Each prediction leaves two empty folders behind, below /tmp/coglet/predictions or where its id leads from there.

    So nobody who is not trusted may choose the id: see https://github.com/replicate/cog/pull/3096.
    """
    up = os.path.relpath(tmp_path, "/tmp/coglet/predictions")
    for prediction_id in (f"{up}/up", f"{tmp_path}/absolute"):
        assert post(quick_server, quote(prediction_id, safe=""), **SHORT).json()["status"] == "succeeded"
    made = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert made == ["absolute", "absolute/inputs", "absolute/outputs", "up", "up/inputs", "up/outputs"], (
        "Cog looks at the id of a prediction now: what the documentation says of it can go"
    )


@pytest.mark.parametrize(
    "webhook", ["", "nonsense", "file:///etc/passwd", "http://[::1", "http://127.0.0.1:1", "x" * MEGABYTE]
)
def test_a_webhook_to_nowhere_changes_nothing(quick_server, webhook):
    assert send(quick_server, json.dumps({"input": SHORT, "webhook": webhook})).json()["status"] == "succeeded"


def test_a_webhook_is_still_called_wherever_it_is(quick_server):
    """Also on this machine or in this network: the caller chooses where the server sends a POST, of the prediction."""

    class Listener(BaseHTTPRequestHandler):
        def do_POST(self):
            called.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["status"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    called = []
    with HTTPServer(("127.0.0.1", 0), Listener) as listener:
        threading.Thread(target=listener.serve_forever, daemon=True).start()
        webhook = f"http://127.0.0.1:{listener.server_port}/anything"
        send(quick_server, json.dumps({"input": SHORT, "webhook": webhook, "webhook_events_filter": ["completed"]}))
        until(lambda: called, 10, "the webhook is called")
        listener.shutdown()
    assert called == ["succeeded"]


def test_a_body_without_a_content_type_is_still_dropped_without_a_word(quick_server):
    response = httpx.post(f"{quick_server.url}/predictions", content=json.dumps({"input": SHORT}))
    assert "E1001 EmptyRequest" in response.json()["error"]
