import shutil
import sys
import time
from pathlib import Path

import pytest

from hermes.client.cog import stream_prediction
from hermes.devserver.server import PROJECT, LocalServer
from hermes.weights import smollm2
from tests.support.asking import assert_goes_on
from tests.support.hostile_requests import GROWTH, MEGABYTE, SECONDS, Memory
from tests.support.servers import LOCAL


@pytest.fixture(scope="session")
def small_model():
    """The folder of SmolLM2, prepared once for every test and every server."""
    return smollm2.prepare(PROJECT / "weights" / smollm2.FOLDER)


@pytest.fixture(scope="session")
def bare_path(tmp_path_factory):
    """A folder to be the whole PATH: as in Cog's image it has `python`, and no program that pip has installed.

    Of the system it has lscpu, which vLLM asks on a CPU. Whatever the environment has in its bin is there as well, but
    it only writes its name to the file `called`.
    """
    folder = tmp_path_factory.mktemp("bin")
    for program in Path(sys.executable).parent.iterdir():
        (folder / program.name).write_text(f'#!/bin/sh\necho {program.name} >> "{folder}/called"\nexit 1\n')
    for name in ("python", "python3"):
        (folder / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    for program in folder.iterdir():
        program.chmod(0o755)
    (folder / "lscpu").symlink_to(shutil.which("lscpu"))
    return folder


@pytest.fixture(scope="session")
def server(small_model, bare_path):
    """The real server with the real engine, shared by the session, and at last stopped while it answers."""
    with LocalServer(environment={**LOCAL, "PATH": str(bare_path)}) as server:
        server.wait_until_ready(timeout=300)
        yield server
        unfinished = stream_prediction(server.url, {"prompt": "Hi", "min_tokens": 1900, "max_tokens": 1900})
        assert [next(unfinished)[0] for _ in range(2)] == ["start", "output"]
    assert server.processes() == [], "a process outlived the server"
    unfinished.close()


@pytest.fixture
def bounded(server):
    """Around each case: its time, its memory, and that the server goes on."""
    started = time.monotonic()
    with Memory(server.processes()) as memory:
        yield
    seconds = time.monotonic() - started
    assert_goes_on(server)
    assert seconds < SECONDS
    assert memory.growth < GROWTH, f"{memory.growth / MEGABYTE:.0f} MB more than before"


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory, small_model):
    """A random Llama with SmolLM2's tokenizer that two tensor-parallel workers can share: 8 heads, 2 KV heads."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("tiny-llama")
    for path in small_model.iterdir():
        if path.name.startswith("tokenizer") or path.suffix == ".jinja":
            shutil.copy(path, folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=8,
        num_key_value_heads=2,
        max_position_embeddings=8192,
        eos_token_id=2,
        bos_token_id=1,
        initializer_range=0.2,  # far apart logits, so that greedy tokens do not hang on the last bit
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder
