"""A model goes from where it is kept through the Cog server to an answer, and every way gives the same one."""

import json
import os
import re
import subprocess
import sys

import pytest

from hermes.devserver.server import PROJECT, LocalServer
from tests.support.asking import predict, until
from tests.support.hub_server import HubServer
from tests.support.servers import ENGINE_ARGS, LOCAL


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


def served(source, environment):
    """A greedy answer of a server on `source`, and the log of its setup()."""
    engine_args = json.dumps({**ENGINE_ARGS, "max_model_len": 512})
    environment = {**LOCAL, **environment, "COG_WEIGHTS": source, "HERMES_ENGINE_ARGS": engine_args}
    with LocalServer(environment=environment) as server:
        server.wait_until_ready(timeout=300)
        answer = predict(server, prompt="Hello", temperature=0, min_tokens=24, max_tokens=24)
        until(lambda: any("boot report: " in line for line in server.log), 10, "the report is in the log")
        log = "\n".join(server.log)
    assert server.processes() == []
    return "".join(answer["output"]), log


@pytest.fixture(scope="module")
def from_its_folder(tiny_model):
    return served(str(tiny_model), {})[0]


def boot_report(log):
    return json.loads(re.search(r"boot report: (\{.*\})", log)[1])


def test_from_the_hub(elsewhere, tiny_model, from_its_folder, tmp_path):
    answer, log = served("hf://org/tiny", elsewhere)
    assert answer == from_its_folder
    report = boot_report(log)
    assert report["fetched_bytes"] == sum(path.stat().st_size for path in tiny_model.iterdir())
    steps = [report[step] for step in ("plan", "download", "verify", "imports", "load", "warm_up")]
    assert all(seconds >= 0 for seconds in steps)
    assert sum(steps) <= report["total"] + 0.1
    assert report["saved"] > 0
    locked = json.loads((tmp_path / "weights.lock").read_text())["models"]
    assert [model["source"] for model in locked] == ["hf://org/tiny@main"]


def test_from_an_archive(host, elsewhere, tiny_model, from_its_folder, tmp_path):
    archive = tmp_path / "tiny.tar.zst"
    subprocess.run(f"tar -C {tiny_model} -c . | zstd -q -o {archive}", shell=True, check=True)
    answer, log = served(host.add_file("/tiny.tar.zst", archive), elsewhere)
    assert answer == from_its_folder
    assert boot_report(log)["fetched_bytes"] == archive.stat().st_size


def test_packed_and_unpacked(host, elsewhere, from_its_folder, tmp_path):
    archive = tmp_path / "model.tar"
    template = "<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
    pack = "-m", "hermes", "weights", "pack", "hf://org/tiny", "-o", str(archive), "--prompt-template", template
    subprocess.run([sys.executable, *pack], cwd=PROJECT, env={**os.environ, **elsewhere}, check=True)
    answer, _ = served(host.add_file("/packed.tar", archive), {**elsewhere, "HERMES_PROMPT_TEMPLATE": ""})
    assert answer == from_its_folder
