"""A model goes from where it is kept to an answer, and every way gives the same files."""

import hashlib
import json
import re
import signal
import subprocess

import httpx
import pytest

from hermes.client import CogServer
from hermes.devserver.server import free_port
from hermes.serving.boot import REPORT
from hermes.weights import compiled
from tests.support.asking import predict, text_of, until
from tests.support.file_server import FileServer
from tests.support.hub_server import HubServer
from tests.support.running import Command
from tests.support.servers import ENGINE_ARGS, serving
from tests.support.starting import Starter
from tests.support.tiny_models import MODEL, files_in, tar_of

TEMPLATE = "<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
ASKED = {"prompt": "Hello", "temperature": 0, "min_tokens": 24, "max_tokens": 24}


@pytest.fixture(scope="module")
def host(tiny_model):
    with HubServer() as host:
        files = {path.name: path for path in tiny_model.iterdir()}
        host.add_repo("org/tiny", files, lfs=("*.safetensors", "tokenizer.json"), xet=True)
        yield host


@pytest.fixture
def elsewhere(tmp_path, host):
    """Settings that keep weights in a folder of the test's own."""
    return {
        "HF_ENDPOINT": host.url,
        "HF_HOME": str(tmp_path / "hf-home"),
        "HERMES_WEIGHTS_DIR": str(tmp_path / "weights"),
        "HERMES_WEIGHTS_LOCK": str(tmp_path / "weights.lock"),
    }


def test_serve_fetches_from_the_hub_answers_and_ends_with_ctrl_c(host, elsewhere, tiny_model, tiny_server, tmp_path):
    port = free_port()
    settings = {**elsewhere, "COG_WEIGHTS": "hf://org/tiny", "HERMES_ENGINE_ARGS": json.dumps(ENGINE_ARGS)}
    command = Command("serve", "--port", str(port), **settings)
    until(lambda: command.watch() and b"serving at" in command.err, 300, "the server is ready")
    answer = CogServer(f"http://127.0.0.1:{port}").ask(ASKED)
    assert answer.text == text_of(predict(tiny_server, **ASKED))

    command.process.send_signal(signal.SIGINT)
    code, out, err, alive = command.wait(60)
    assert (code, out, alive) == (0, "", [])
    assert f"\nserving at http://127.0.0.1:{port}; Ctrl-C to stop\n" in err  # what the server says comes in between
    assert err.endswith("\nstopping\n")
    (boot,) = re.findall(
        r"^boot: ([\d.]+) s, \d+ tokens of context: plan (.*); importing vLLM beside the download saved [\d.]+$",
        err,
        re.M,
    )
    steps = re.findall(r"\b(\d+\.\d)(?:,| \(|$)", boot[1])
    assert len(steps) >= 6
    assert sum(map(float, steps)) <= float(boot[0]) + 0.5
    locked = json.loads((tmp_path / "weights.lock").read_text())["models"]
    assert [model["source"] for model in locked] == ["hf://org/tiny@main"]


def archived(host, tiny_model, elsewhere, folder):
    """The source of an archive that others have made."""
    archive = folder / "tiny.tar.zst"
    subprocess.run(f"tar -C {tiny_model} -c . | zstd -q -o {archive}", shell=True, check=True)
    return host.add_file("/tiny.tar.zst", archive)


def packed(host, tiny_model, elsewhere, folder):
    """The source of an archive that `weights pack` has made."""
    archive = folder / "model.tar"
    pack = "weights", "pack", "hf://org/tiny", "-o", str(archive), "--prompt-template", TEMPLATE
    assert Command(*pack, **elsewhere).wait()[0] == 0
    return host.add_file("/packed.tar", archive)


ways = pytest.mark.parametrize("way", [archived, packed])


@ways
def test_an_archive_holds_the_files_of_the_model(host, elsewhere, tiny_model, tmp_path, way):
    code, out, _, _ = Command("weights", "fetch", way(host, tiny_model, elsewhere, tmp_path), **elsewhere).wait()
    assert code == 0
    digests = [
        {name: hashlib.sha256(data).hexdigest() for name, data in files_in(folder).items()}
        for folder in (tmp_path / out.strip(), tiny_model)
    ]
    config = digests[0].pop("predictor_config.json", None)
    assert digests[0] == digests[1]
    assert (config is None) == (way is archived)


@pytest.mark.long
@ways
def test_an_archive_is_served(host, elsewhere, tiny_model, tiny_server, tmp_path, way):
    source = way(host, tiny_model, elsewhere, tmp_path)
    with serving(source, HERMES_PROMPT_TEMPLATE="", **elsewhere) as server:
        server.wait_until_ready(timeout=300)
        answer = predict(server, **ASKED)
        until(lambda: any(REPORT in line for line in server.log), 10, "the report is in the log")
        (report,) = re.findall(REPORT + r"(\{.*\})", "\n".join(server.log))
    assert json.loads(report)["fetched_bytes"] == int(httpx.head(source).headers["Content-Length"])
    assert text_of(answer) == text_of(predict(tiny_server, **ASKED))


@pytest.mark.long  # its depth: tests/weights/test_compiled.py has the folder that is there already
def test_compiled_code_comes_out_of_an_archive_that_takes_longer_than_the_import_of_vllm(tmp_path):
    weights = tmp_path / "weights"
    code = {"torch_compile_cache/ab/rank_0_0/model": b"compiled"}
    model = {**MODEL, compiled.PACKED: tar_of(code)}
    settings = {
        "HERMES_WEIGHTS_DIR": str(weights),
        "HERMES_WEIGHTS_LOCK": str(tmp_path / "weights.lock"),
        "HERMES_PACKED_CACHE": "true",
        "HERMES_ENGINE_ARGS": '{"no_such_argument": 1}',  # it is read once the weights are there
    }
    with FileServer() as host, Starter() as fresh:
        source = host.add_file("/tiny.tar", tar_of(model))
        host.on_bytes(20_000, lambda: until((weights / compiled.FOLDER).exists, 120, "vLLM is imported"))
        assert fresh.refusal(source, **settings).startswith("E1201 UnknownEngineArgument: ")
    assert files_in(weights / compiled.FOLDER) == code
