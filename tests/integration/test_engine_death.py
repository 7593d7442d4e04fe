"""The engine dies: everyone is told at once, health says so, and nothing stays behind."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from asking import LONG, failure, predict, stream, until
from conftest import LOCAL

from hermes.serving.server import LocalServer


@pytest.mark.timeout(400)
def test_killing_the_engine_core_fails_predictions_with_e1203_and_turns_health_bad(small_model):
    with LocalServer(environment=LOCAL) as server:
        server.wait_until_ready(timeout=300)
        everyone_streams = threading.Barrier(5, timeout=60)
        with ThreadPoolExecutor(4) as callers:
            in_flight = [callers.submit(stream, server, everyone_streams.wait, **LONG) for _ in range(4)]
            everyone_streams.wait()
            (core,) = [process for process in server.processes() if process.name().startswith("VLLM::EngineCor")]
            core.kill()
            killed = time.monotonic()
            for prediction in in_flight:
                completed = prediction.result(timeout=5).completed
                assert completed["status"] == "failed"
                assert "E1203 EngineFailed: the engine has died; the request can be sent again" in completed["error"]
                assert completed["metrics"]["output_token_count"] > 0
        assert "E1203" in failure(server, prompt="Hi")
        until(lambda: server.health()["status"] != "READY", 5, "health stops saying READY")
        assert time.monotonic() - killed < 5
        assert server.health()["status"] == "UNHEALTHY"
    assert server.processes() == [], "a process outlived the server"


@pytest.mark.timeout(400)
def test_killing_the_server_ends_its_worker_and_the_engine(small_model):
    server = LocalServer(environment=LOCAL)
    try:
        server.start()
        server.wait_until_ready(timeout=300)
        assert predict(server, prompt="Hi", max_tokens=1)["status"] == "succeeded"
        (cog,) = [process for process in server.processes() if "cog.server.http" in process.cmdline()]
        cog.kill()
        until(lambda: server.processes() == [], 20, "the worker and the engine have ended too")
    finally:
        server.stop()
