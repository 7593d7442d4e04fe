"""A gateway before two servers, one of which is killed while it streams and then started again."""

import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from openai import APIError, OpenAI

from tests.support.asking import until
from tests.support.endings import cogs_server
from tests.support.gateways import MODEL, gateway_before
from tests.support.servers import TINY_SLOTS, serving

TOKENS = 900  # some seconds, in which all of them run
LONG = {"temperature": 0, "max_tokens": TOKENS, "extra_body": {"min_tokens": TOKENS}}
pytestmark = pytest.mark.xdist_group("tiny servers")


def running(gateway, server):
    return gateway.metric(f'hermes_gateway_upstream_running{{upstream="{server.url}"}}')


def ready(gateway, server):
    return gateway.metric(f'hermes_gateway_upstream_ready{{upstream="{server.url}"}}')


@pytest.fixture
def two_servers(tiny_server, tiny_model):
    """One to kill, and the shared one."""
    with ExitStack() as servers:

        def start(port=None):
            server = serving(tiny_model, COG_MAX_CONCURRENCY=str(TINY_SLOTS))
            server.port = port or server.port
            servers.enter_context(server).wait_until_ready(timeout=300)
            return server

        yield start(), tiny_server, start


@pytest.mark.long  # tests/gateway/test_pool.py and test_runs.py have the same without servers
def test_one_of_two_servers_is_killed_and_comes_back(two_servers):
    one, other, start = two_servers
    with gateway_before(one.url, other.url, options=["--slots", str(TINY_SLOTS)]) as gateway:
        until(lambda: ready(gateway, one) and ready(gateway, other), 10, "both are ready")
        client = OpenAI(base_url=gateway.openai, api_key="none", max_retries=0)

        def ask(number):
            """Whether it failed, and what it said."""
            stream = client.completions.create(model=MODEL, prompt=f"{number}", seed=number, stream=True, **LONG)
            try:
                return None, "".join(chunk.choices[0].text for chunk in stream)
            except APIError as error:
                return error.message, ""

        with ThreadPoolExecutor(2 * TINY_SLOTS) as callers:
            answers = [callers.submit(ask, number) for number in range(2 * TINY_SLOTS)]
            until(lambda: running(gateway, one) == running(gateway, other) == TINY_SLOTS, 30, "all run")
            cogs_server(one).send_signal(signal.SIGKILL)
            outcomes = [answer.result() for answer in answers]
        failures = [problem for problem, _ in outcomes if problem]
        assert len(failures) == TINY_SLOTS
        assert all("E1203" in problem and "can be sent again" in problem for problem in failures)
        assert all(len(text) > 100 for problem, text in outcomes if not problem)
        until(lambda: not ready(gateway, one), 10, "it is left out")
        assert ask(99)[0] is None

        start(one.port)
        until(lambda: ready(gateway, one), 10, "it is used again")
        with ThreadPoolExecutor(2 * TINY_SLOTS) as callers:
            answers = [callers.submit(ask, number) for number in range(2 * TINY_SLOTS)]
            until(lambda: running(gateway, one) == TINY_SLOTS, 30, "both run again")
            assert [answer.result()[0] for answer in answers] == [None] * (2 * TINY_SLOTS)
        client.close()
