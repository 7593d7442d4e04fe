import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hermes.devserver.server import PROJECT, LocalServer
from tests.support.asking import assert_goes_on
from tests.support.endings import GUARD_KILLED, cog_fails, is_started_again, is_told_to_stop
from tests.support.gateways import gateway_before
from tests.support.hostile_requests import GROWTH, MEGABYTE, SECONDS, Memory
from tests.support.servers import LOCAL, TINY_BLOCKS, TINY_CONTEXT, TINY_SLOTS, serving
from tests.support.starting import Starter
from tests.support.tiny_llama import give_tag_tokens, set_traps, write_tiny_llama

# By fixture, the tests that one process of pytest-xdist runs, for each process would start these anew.
TOGETHER = {
    "bounded": "quick server",
    "quick_gateway": "quick server",
    "quick_server": "quick server",
    "gateway": "server",
    "server": "server",
    "tiny_server": "tiny servers",
    "two_workers": "tiny servers",
    "starter": "starter",
    "guessing": "guessing",
    "fetched": "quantised",
    "models": "quantised",
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        group = next((group for fixture, group in TOGETHER.items() if fixture in item.fixturenames), None)
        named = item.get_closest_marker("xdist_group")
        if group and not named and item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.xdist_group(group))


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item, nextitem):
    """End the servers of a group once its last test is done: those of all groups would fill a machine of 24 GB."""
    if _group(item) and (nextitem is None or _group(nextitem) != _group(item)):
        for fixture in TOGETHER:
            for definition in item.session._fixturemanager.getfixturedefs(fixture, item) or ():
                definition.finish(item._request)


def _group(item):
    marker = item.get_closest_marker("xdist_group")
    return marker and marker.args[0]


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
    """The real server with the real engine, shared by the session, and at last told to stop while 16 streams run."""
    with LocalServer(environment={**LOCAL, "PATH": str(bare_path), "HERMES_SHUTDOWN_GRACE": "3"}) as server:
        server.wait_until_ready(timeout=300)
        yield server
        is_told_to_stop(server, 16, grace=3)


@pytest.fixture(scope="session")
def gateway(server):
    """A gateway before the shared server."""
    with gateway_before(server.url, options=["--alias", "gpt-4o"]) as gateway:
        yield gateway


@pytest.fixture(scope="session")
def quick_server(tiny_model):
    """The real server and engine, with a model that takes a tenth of the time for a token and makes no sense."""
    with serving(tiny_model, engine_args={"max_model_len": 2048}) as server:
        server.wait_until_ready(timeout=300)
        yield server


@pytest.fixture(scope="session")
def quick_gateway(quick_server):
    """A gateway before that server."""
    with gateway_before(quick_server.url, options=["--alias", "gpt-4o"]) as gateway:
        yield gateway


@pytest.fixture(scope="session")
def npm_folder(tmp_path_factory):
    """npm's client of Replicate, and the script that uses it."""
    folder = tmp_path_factory.mktemp("npm")
    shutil.copytree(PROJECT / "tests" / "npm", folder, dirs_exist_ok=True)
    command = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts"]
    subprocess.run(command, cwd=folder, check=True, timeout=120)
    return folder


@pytest.fixture
def bounded(quick_server):
    """Around each case: its time, its memory, and that the server goes on."""
    started = time.monotonic()
    with Memory(quick_server.processes()) as memory:
        yield
    seconds = time.monotonic() - started
    assert_goes_on(quick_server)
    assert seconds < SECONDS
    assert memory.growth < GROWTH, f"{memory.growth / MEGABYTE:.0f} MB more than before"


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory, small_model):
    """A random Llama with SmolLM2's tokenizer. What it draws ends by length, also in a string of JSON."""
    folder = tmp_path_factory.mktemp("tiny-llama")
    write_tiny_llama(folder, small_model)
    return folder


@pytest.fixture(scope="session")
def canary(tmp_path_factory):
    """A file that is there once a trap of the sibling has sprung."""
    return tmp_path_factory.mktemp("canary") / "canary"


@pytest.fixture(scope="session")
def sibling(tiny_model, tmp_path_factory, canary):
    """The tiny model with <tool_call> as one special token, and with a trap in every place that may hold code."""
    folder = tmp_path_factory.mktemp("sibling") / "model"
    shutil.copytree(tiny_model, folder)
    give_tag_tokens(folder)
    set_traps(folder, canary)
    return folder


@pytest.fixture(scope="session")
def tiny_server(sibling):
    """The sibling with few slots, a small KV cache and the debugging log. At last its guard and Cog's worker die."""
    engine_args = {"max_model_len": TINY_CONTEXT, "num_gpu_blocks_override": TINY_BLOCKS}
    environment = {"COG_MAX_CONCURRENCY": str(TINY_SLOTS), "HERMES_LOG_PROMPTS": "true"}
    with serving(sibling, engine_args=engine_args, **environment) as server:
        server.wait_until_ready(timeout=300)
        yield server
        cog_fails(server, GUARD_KILLED, TINY_SLOTS)
        is_started_again(server)


@pytest.fixture(scope="session")
def starter():
    """Says why a service does not start, without Cog around it."""
    with Starter() as starter:
        yield starter
