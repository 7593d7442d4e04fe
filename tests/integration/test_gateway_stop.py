"""SIGTERM of a gateway under a proxy's path, with predictions that stream in two dialects."""

import signal
from concurrent.futures import ThreadPoolExecutor

import httpx

from tests.support.asking import until
from tests.support.fake_cog import FakeCog
from tests.support.gateways import gateway_before

ALICE = {"Authorization": "Bearer secret"}


def running(gateway):
    lines = gateway.get("/metrics", **ALICE).text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("hermes_gateway_upstream_running{"))


def whole(method, url, **options):
    with httpx.stream(method, url, timeout=60, **options) as response:
        return "".join(response.iter_text())


def test_streams_get_an_error_and_their_end_and_the_log_has_names_but_no_token(tmp_path):
    (tmp_path / "tokens").write_text("# of the test\nalice:secret\n")
    options = ["--tokens-file", str(tmp_path / "tokens"), "--public-url", "https://hermes.example/hermes"]
    options += ["--store", str(tmp_path / "gateway.db"), "--grace", "0.2"]
    with FakeCog(slots=4, delay=0.2, pieces=500) as cog, gateway_before(cog.url, options=options) as gateway:
        assert "page/app.js" in gateway.get("/hermes/").text
        prediction = gateway.post(
            "/hermes/v1/predictions", {"version": "local/model", "input": {"prompt": "Hi"}}, **ALICE
        )
        address = prediction.json()["urls"]["stream"]
        assert address.startswith("https://hermes.example/hermes/stream/")
        chat = {"model": "local/model", "stream": True, "messages": [{"role": "user", "content": "Hi"}]}
        with ThreadPoolExecutor() as threads:
            replicate = threads.submit(whole, "GET", gateway.url + address.removeprefix("https://hermes.example"))
            openai = threads.submit(
                whole, "POST", f"{gateway.url}/hermes/v1/chat/completions", json=chat, headers=ALICE
            )
            until(lambda: running(gateway) == 2, 30, "both run")
            gateway.process.send_signal(signal.SIGTERM)
            assert openai.result().endswith("data: [DONE]\n\n")
            assert "E1205 ServerStopping" in openai.result()
            assert "event: error" in replicate.result()
            assert "event: done" in replicate.result()
        assert gateway.process.wait(30) == 0
        log = gateway.said
    assert log.endswith("stopping\n")
    assert '"token": "alice"' in log
    assert "secret" not in log
    assert "Traceback" not in log
