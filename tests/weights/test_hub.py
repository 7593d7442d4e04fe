"""The real huggingface_hub client against a small hub of our own on the loopback."""

import hashlib
import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "config.json": b'{"model_type": "llama"}',
    "model.safetensors": b"\x00" * 1000,
    "pytorch_model.bin": b"a pickle that nobody asked for",
}


class Hub(BaseHTTPRequestHandler):
    """The part of the hub's protocol that snapshot_download speaks."""

    def do_GET(self):
        path = self.path.split("?")[0]
        if "me/gated" in path:
            self.answer(403, b"", {"X-Error-Code": "GatedRepo"})
        elif not path.startswith(("/api/models/me/mine", "/me/mine")):
            self.answer(404, b"", {"X-Error-Code": "RepoNotFound"})
        elif "nonsense" in path:
            self.answer(404, b"", {"X-Error-Code": "RevisionNotFound"})
        elif "/resolve/" in path:
            name = path.rsplit("/", 1)[1]
            self.server.fetched.append((name, self.headers.get("Authorization")))
            self.answer(200, FILES[name])
        elif "/tree/" in path:
            tree = [{"type": "file", "path": n, "size": len(b), "oid": _sha1(b)} for n, b in FILES.items()]
            self.answer(200, json.dumps(tree).encode())
        else:
            files = [{"rfilename": name} for name in FILES]
            self.answer(200, json.dumps({"id": "me/mine", "sha": COMMIT, "siblings": files}).encode())

    do_HEAD = do_GET  # noqa: N815

    def answer(self, status, body, headers=()):
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{_sha1(body)}"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_):
        pass


def _sha1(body):
    return hashlib.sha1(body, usedforsecurity=False).hexdigest()


@pytest.fixture
def hub():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.fetched = []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def fetch(hub, tmp_path, *wanted, token=None):
    """Fetch each (repository, revision), in a process of its own: huggingface_hub reads its endpoint when imported.

    Gives the folder or the error of each.
    """
    code = (
        "import json, sys\nfrom pathlib import Path\nfrom pydantic import SecretStr\nfrom hermes.weights import hub\n"
        "weights_dir, token, wanted = json.loads(sys.argv[1])\n"
        "def attempt(repo, revision):\n"
        "    try: return str(hub.fetch(repo, revision, SecretStr(token), Path(weights_dir)))\n"
        "    except Exception as error: return str(error)\n"
        "print(json.dumps([attempt(*each) for each in wanted]))"
    )
    environment = {
        "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}",
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    arguments = json.dumps([str(tmp_path), token, wanted])
    done = subprocess.run(
        [sys.executable, "-c", code, arguments], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert token not in done.stdout + done.stderr
    return json.loads(done.stdout)


def test_a_repository_becomes_a_folder_with_what_vllm_reads(hub, tmp_path):
    (folder,) = fetch(hub, tmp_path, ("me/mine", None), token="hf_secret")
    assert Path(folder).is_relative_to(tmp_path / "hub")
    assert Path(folder).name == COMMIT
    assert {path.name: path.read_bytes() for path in Path(folder).iterdir()} == {
        "config.json": FILES["config.json"],
        "model.safetensors": FILES["model.safetensors"],
    }
    assert {authorization for _, authorization in hub.fetched} == {"Bearer hf_secret"}


def test_what_the_hub_refuses_is_said_in_one_line(hub, tmp_path):
    messages = {
        (
            "me/missing",
            None,
        ): "weights 'me/missing@main': there is no such repository, or it is private; check HERMES_M",
        ("me/mine", "nonsense"): "weights 'me/mine@nonsense': there is no such revision; check HERMES_REVISION",
        (
            "me/gated",
            None,
        ): "weights 'me/gated@main': the repository is gated; accept its licence on the hub and set HF",
        ("no repo", None): "weights 'no repo@main': the download failed (HFValidationError: ",
    }
    errors = fetch(hub, tmp_path, *messages, token="hf_secret")
    for error, message in zip(errors, messages.values(), strict=True):
        assert error.startswith("E1000 WeightsError: " + message)
        assert "\n" not in error
