"""The image of cog.local.yaml, built and run: `make test-image`."""

import json
import re
import subprocess
import threading

import httpx
import pytest

from hermes.client.cog import stream_prediction
from tests.support.asking import until
from tests.support.docker import FAILED, Container, composed, docker, pins, ray_version, versions

pytestmark = pytest.mark.image

QUESTION = {"prompt": "What is the capital of France? Answer in one sentence.", "temperature": 0}
ANSWER = "The capital of France is Paris."
LONG = {"prompt": "Count.", "min_tokens": 4000, "max_tokens": 4000, "temperature": 0}
GRACE = {"HERMES_ENGINE_DEATH_GRACE": "3"}  # seconds from a failed start to the end
TWO_SLOTS = {"COG_MAX_CONCURRENCY": "2"}  # so that the state tells whether one is free
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A folder on this machine for the weights, which any user may write."""
    folder = tmp_path_factory.mktemp("weights")
    folder.chmod(0o777)
    return folder


@pytest.fixture(scope="module")
def server(local_image, weights):
    """A container as a user would run it, with a folder of weights."""
    options = ("--memory", "4g", "--memory-swap", "4g", "-v", f"{weights}:/weights")
    with Container(local_image, *options, HERMES_WEIGHTS_DIR="/weights", **TWO_SLOTS) as container:
        yield container.wait_until_ready()


def test_it_has_the_versions_that_the_tests_run_with(local_image, project):
    requirements = project / "requirements"
    assert versions(local_image) >= pins(requirements / "local.txt") | pins(requirements / "torch.txt")


def test_it_has_the_package_and_nothing_that_is_only_for_developers(local_image):
    found = set(docker("run", "--rm", "--network", "none", local_image, "ls", "-A", "/src").split())
    assert found >= {".cog", "hermes", "predict.py", "weights"}
    assert not found & {".ci", ".git", "bench", "docs", "evaluation", "examples", "tests"}


def test_it_answers_token_by_token(server):
    events = list(stream_prediction(server.url, QUESTION))
    pieces = [data["chunk"] for name, data in events if name == "output"]
    assert pieces == ["The", " capital", " of", " France", " is", " Paris", "."]


def test_its_log_is_short(server):
    ours = [line for line in server.log().splitlines() if "hermes: " in line and "hermes: prediction: " not in line]
    assert 3 <= len(ours) <= 4, ours
    assert not re.search(r"INFO \d\d-\d\d ", server.log()), "vLLM logs errors only"


def test_it_calls_a_tool_and_writes_json(server):
    tools = [{"name": "get_weather", "parameters": CITY}]
    weather = {"prompt": "What is the weather in Paris?", "temperature": 0, "max_tokens": 60}
    called = server.client.ask({**weather, "tools": tools, "tool_choice": "required"})
    assert [(call.name, call.arguments) for call in called.tool_calls] == [("get_weather", {"city": "Paris"})]
    assert server.client.ask({**QUESTION, "json_schema": CITY}).json_valid


def test_a_client_that_leaves_frees_its_slot(server):
    staying = stream_prediction(server.url, LONG)
    until(lambda: next(staying)[0] == "output", 60, "the first piece")
    for _ in range(3):
        leaving = stream_prediction(server.url, LONG)
        until(lambda events=leaving: next(events)[0] == "output", 60, "the first piece")
        assert server.health()["status"] == "BUSY"
        leaving.close()
        until(lambda: server.health()["status"] == "READY", 10, "the slot")
    staying.close()


def test_it_is_told_to_stop_while_it_answers(server):
    """The last test of this container."""
    events, ended, answering = [], threading.Event(), threading.Event()

    def listen():
        for event in stream_prediction(server.url, LONG):
            events.append(event)
            answering.set()
        ended.set()

    threading.Thread(target=listen, daemon=True).start()
    assert answering.wait(60)
    status, seconds = server.stop()
    assert ended.wait(10)
    assert "E1205" in events[-1][1]["error"]
    assert (status, seconds < 10) == (0, True), f"{status} after {seconds:.1f} s, of Docker's 10 s"


def test_the_root_may_be_read_only(local_image, weights):
    options = ("--read-only", "--tmpfs", "/tmp", "-v", f"{weights}:/weights")
    with Container(local_image, *options, HERMES_WEIGHTS_DIR="/weights") as container:
        assert container.wait_until_ready().client.ask(QUESTION).text == ANSWER


def test_the_user_may_be_another_and_the_weights_read_only(local_image, weights, server):
    options = ("--user", "1000:1000", "-v", f"{weights}:/weights:ro")
    with Container(local_image, *options, HERMES_WEIGHTS_DIR="/weights") as container:
        assert container.wait_until_ready().client.ask(QUESTION).text == ANSWER
        assert container.run("id", "-u") == "1000"


def test_a_read_only_root_without_a_folder_of_weights_asks_for_one(local_image):
    with Container(local_image, "--read-only", "--tmpfs", "/tmp", **GRACE) as container:
        logs = container.wait_until_started()["setup"]["logs"]
        assert "E1000" in logs
        assert "mount" in logs
        assert container.wait_until_ended() == FAILED


def test_without_libnuma_it_names_the_package_at_once(local_image, tmp_path):
    (tmp_path / "Dockerfile").write_text(f"FROM {local_image}\nRUN dpkg -r --force-depends libnuma1\n")
    docker("build", "-q", "-t", "hermes-test/without-libnuma", tmp_path)
    with Container("hermes-test/without-libnuma", **GRACE) as container:
        assert "apt-get install libnuma1" in container.wait_until_started(seconds=30)["setup"]["logs"]


def test_the_profile_of_gpus_is_refused_at_once(local_image):
    with Container(local_image, HERMES_PROFILE="production", **GRACE) as container:
        health = container.wait_until_started(seconds=30)
        assert health["status"] == "SETUP_FAILED"
        assert "E1204" in health["setup"]["logs"]
        assert container.wait_until_ended() == FAILED


def test_too_little_memory_is_told(local_image, weights):
    options = ("--memory", "1g", "--memory-swap", "1g", "-v", f"{weights}:/weights")
    with Container(local_image, *options, HERMES_WEIGHTS_DIR="/weights", **GRACE) as container:
        assert container.wait_until_started()["status"] == "SETUP_FAILED"
        until(lambda: "hermes: guard: out of memory" in container.log(), 10, "the guard's line")
        assert container.wait_until_ended() == FAILED


def test_compose_serves_what_the_readme_asks_for(debian, local_image, project, work):
    """The gateway's image is built here, too."""
    readme = (project / "README.md").read_text()
    (curl,) = re.findall(r"^curl -s http://127\.0\.0\.1:8000.*?(?=^```)", readme, re.MULTILINE | re.DOTALL)
    with composed(project / "compose.yaml", work, debian) as compose:
        answer = subprocess.run(["bash", "-c", curl], capture_output=True, text=True, check=True).stdout
        assert json.loads(answer)["choices"][0]["message"]["content"] == ANSWER
        assert "<!doctype html>" in httpx.get("http://127.0.0.1:8000/", trust_env=False).text.lower()
        containers = compose("ps", "-q").split()
        compose("stop")
        codes = docker("inspect", "-f", "{{.State.ExitCode}}", *containers)
        assert codes.split() == ["0", "0"]


def test_the_image_with_ray_has_all_that_a_cluster_imports(local_image, project):
    assert ray_version(local_image, project) in (project / "requirements/cluster.in").read_text()
