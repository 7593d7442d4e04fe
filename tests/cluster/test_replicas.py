"""Two replicas of the real model on Ray Serve: many callers, and what dies under them."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from openai import APIError, BadRequestError, OpenAI

from hermes.devserver.server import PROJECT, free_port
from hermes.engine.devices import cuda_gpus
from hermes.serving.guard import is_alive
from tests.cluster.conftest import REPLICAS, SLOTS, START_SECONDS, Cluster, cluster_of, family_of
from tests.support.asking import until
from tests.support.gateways import MODEL
from tests.support.tiny_llama import write_tiny_llama

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster")]

CUDA_DEVICES = len(cuda_gpus())
SECONDS = 120  # for Ray to start a new replica


@dataclass
class Told:
    """What a caller was told."""

    pieces: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)  # of the pieces, in s since the request
    problem: str | None = None
    tokens: int = 0

    @property
    def text(self):
        return "".join(self.pieces)


def caller(gateway):
    return OpenAI(base_url=gateway.openai, api_key="none", max_retries=0, timeout=300)


def ask(client, number, tokens):
    """A text of exactly so many tokens, streamed."""
    told, started = Told(), time.monotonic()
    asked = {"seed": number, "max_tokens": tokens, "extra_body": {"min_tokens": tokens}}
    asked["stream_options"] = {"include_usage": True}
    try:
        for chunk in client.completions.create(model=MODEL, prompt=f"Story {number}", stream=True, **asked):
            told.tokens = chunk.usage.completion_tokens if chunk.usage else 0
            if chunk.choices and chunk.choices[0].text:
                told.pieces.append(chunk.choices[0].text)
                told.times.append(time.monotonic() - started)
    except APIError as error:
        told.problem = error.message
    return told


@contextmanager
def callers(gateway, number, tokens):
    """So many callers at once; gives what they will have been told."""
    client = caller(gateway)
    with ThreadPoolExecutor(number) as threads:
        yield [threads.submit(ask, client, each, tokens) for each in range(number)]
    client.close()


def test_both_replicas_answer_64_callers_token_by_token(cluster):
    with callers(cluster.gateway, REPLICAS * SLOTS, 100) as asked:
        until(lambda: cluster.gateway.running == REPLICAS * SLOTS, 60, "all run at once, more than one replica takes")
        assert not any(each.done() for each in asked)
        told = [each.result() for each in asked]
    assert [each.problem for each in told] == [None] * REPLICAS * SLOTS
    assert all(each.times[0] < each.times[-1] / 2 for each in told), "the first piece is there before half of the time"
    assert min(len(each.pieces) for each in told) > 10, "with 32 at once, two tokens a piece, some joined on the way"
    assert len({each.text for each in told}) == REPLICAS * SLOTS


def test_the_weights_were_fetched_once_for_both(cluster):
    assert len(cluster.engines()) == REPLICAS
    assert cluster.fetched == pytest.approx(1, abs=0.01)


def test_the_same_requests_are_refused_for_the_same_reasons(cluster):
    client = caller(cluster.gateway)
    with pytest.raises(BadRequestError, match="E1002"):
        client.completions.create(model=MODEL, prompt="word " * 9000)
    with pytest.raises(BadRequestError, match=r"repetition_penalty: 99\.0 is greater than the maximum of 10"):
        client.completions.create(model=MODEL, prompt="Hi", extra_body={"repetition_penalty": 99})
    client.close()


def test_the_page_and_replicates_api_are_there(cluster):
    assert "<title>" in cluster.gateway.get("/").text
    assert cluster.gateway.get(f"/v1/models/{MODEL}").json()["latest_version"]["openapi_schema"]["paths"]


def test_a_cancel_frees_the_slot(cluster):
    made = cluster.gateway.post(
        "/v1/predictions", {"version": MODEL, "input": {"prompt": "Hi", "min_tokens": 1900, "max_tokens": 1900}}
    ).json()
    at = made["urls"]["get"].removeprefix(cluster.gateway.url)
    until(lambda: cluster.gateway.get(at).json()["output"], 30, "it streams")
    canceled = cluster.gateway.post(f"{at}/cancel", {}).json()
    assert canceled["status"] == "canceled"
    assert canceled["output"], "what was said stays"
    until(lambda: cluster.gateway.running == 0, 5, "its slot is free")


def killed(cluster, victims):
    """Kill the first of two while both stream, and see the callers of one fail, and no other, now or later."""
    before = victims()
    with callers(cluster.gateway, 16, 400) as asked:
        until(lambda: cluster.gateway.running == 16, 60, "all run")
        before[0].send_signal(signal.SIGKILL)
        until(lambda: any(each.done() for each in asked), 30, "the first have failed")
        later = [ask(caller(cluster.gateway), 100 + each, 20) for each in range(8)]  # one after the other
        told = [each.result() for each in asked]
    failed = [each.problem for each in told if each.problem]
    assert 4 <= len(failed) <= 12, "those of one replica"
    assert all("E1203" in problem and "can be sent again" in problem for problem in failed), failed
    assert {each.tokens for each in told if not each.problem} == {400}
    assert [each.problem for each in later] == [None] * 8
    until(lambda: len(victims()) == REPLICAS and before[0] not in victims(), SECONDS, "Ray starts another")
    until(lambda: cluster.slots == REPLICAS * SLOTS, SECONDS, "it takes predictions")
    with callers(cluster.gateway, REPLICAS * SLOTS, 20) as asked:
        assert [each.result().problem for each in asked] == [None] * REPLICAS * SLOTS
    return before[0]


def test_a_killed_engine_fails_its_own_and_ray_starts_another(cluster):
    replicas = cluster.replicas()
    killed(cluster, cluster.engines)
    assert len(set(replicas) & set(cluster.replicas())) == 1, "its process ended with it, and the other stayed"


def test_a_killed_replica_fails_its_own_and_leaves_nothing_behind(cluster):
    engines = cluster.engines()
    killed(cluster, cluster.replicas)
    until(lambda: sum(map(is_alive, engines)) == 1, 10, "its engine has ended with it")


def test_replicas_come_and_go_with_the_load_and_no_request_is_lost():
    options = ["--max-replicas", "2", "--scale-up-after", "1", "--scale-down-after", "5"]
    with cluster_of(*options) as gateway, ThreadPoolExecutor(SLOTS) as threads:
        cluster, client, told = Cluster(gateway), caller(gateway), []

        def load(number, enough):
            """So many callers, each with its next request after the last, until `enough`."""

            def one(caller):
                requests = 0
                while not stopped:
                    requests += 1
                    told.append(ask(client, 1000 * caller + requests, 50))

            stopped = []
            running = [threads.submit(one, each) for each in range(number)]
            try:
                until(enough, SECONDS, f"enough slots or engines with {number} callers")
            finally:
                stopped.append(True)
                wait(running)

        assert cluster.slots == SLOTS
        load(24, lambda: cluster.slots == 2 * SLOTS)
        worked = [each.cpu_times().user for each in cluster.engines()]
        load(
            24,
            lambda: all(each.cpu_times().user > was + 1 for each, was in zip(cluster.engines(), worked, strict=True)),
        )
        load(3, lambda: cluster.slots == SLOTS)
        load(3, lambda: len(cluster.engines()) == 1)
        assert [each.problem for each in told if each.problem] == []
        assert len(told) > 50
        client.close()


def test_ctrl_c_ends_what_runs_with_e1205_and_leaves_nothing_behind():
    with cluster_of() as gateway:
        family = family_of(gateway.process.pid)
        assert len(Cluster(gateway).engines()) == 1
        with callers(gateway, 4, 1900) as asked:
            until(lambda: gateway.running == 4, 60, "all run")
            gateway.process.send_signal(signal.SIGINT)
            problems = [each.result().problem for each in asked]
        assert all("E1205" in problem for problem in problems), problems
        assert gateway.process.wait(timeout=60) == 0
        until(lambda: not any(map(is_alive, family)), 15, "all have ended")


@pytest.mark.cuda
@pytest.mark.skipif(CUDA_DEVICES < 2, reason=f"needs 2 CUDA devices; this machine has {CUDA_DEVICES}")
def test_a_replica_holds_two_gpus(tmp_path, small_model):
    write_tiny_llama(tmp_path, small_model)
    with cluster_of(HERMES_PROFILE="production", HERMES_MODEL=str(tmp_path)) as gateway:
        assert len(Cluster(gateway).processes("VLLM::Worker")) == 2
        assert ask(caller(gateway), 1, 20).problem is None


def test_a_replica_that_cannot_start_says_why_on_one_line(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "hermes", "cluster", "--port", str(free_port())],
        cwd=PROJECT,
        env={**os.environ, "HERMES_PROFILE": "local", "HERMES_MODEL": str(tmp_path)},
        stderr=subprocess.PIPE,
        text=True,
        timeout=START_SECONDS,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("E1000 WeightsError: ")
