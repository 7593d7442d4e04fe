"""A gateway before two servers, one of which is killed while it streams and then started again."""

import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
from openai import APIError, OpenAI

from tests.support.asking import until
from tests.support.endings import cogs_server
from tests.support.gateways import MODEL, gateway_before, until_ready
from tests.support.servers import TINY_SLOTS, serving

LONG = {"temperature": 0, "extra_body": {"min_tokens": 700, "timeout": 60.0}}
pytestmark = pytest.mark.xdist_group("tiny servers")


def running(gateway, server):
    return gateway.metric(f'hermes_gateway_upstream_running{{upstream="{server.url}"}}')


def ready(gateway, server):
    return gateway.metric(f'hermes_gateway_upstream_ready{{upstream="{server.url}"}}')


def test_one_of_two_servers_is_killed_and_comes_back(tiny_server, tiny_model):
    one = serving(tiny_model, COG_MAX_CONCURRENCY=str(TINY_SLOTS))
    try:
        one.start()
        one.wait_until_ready(timeout=300)
        with gateway_before(one.url, tiny_server.url, options=["--slots", str(TINY_SLOTS)]) as gateway:
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
                until(lambda: running(gateway, one) == running(gateway, tiny_server) == TINY_SLOTS, 30, "all run")
                cogs_server(one).send_signal(signal.SIGKILL)
                outcomes = [answer.result() for answer in answers]
            failures = [problem for problem, _ in outcomes if problem]
            assert len(failures) == TINY_SLOTS
            assert all("E1203" in problem and "can be sent again" in problem for problem in failures)
            assert all(len(text) > 100 for problem, text in outcomes if not problem)
            until(lambda: not ready(gateway, one), 10, "it is left out")
            until_ready(gateway)  # the other one is there
            assert ask(99)[0] is None

            one.stop()
            one.start()
            one.wait_until_ready(timeout=300)
            until(lambda: ready(gateway, one), 10, "it is used again")
            with ThreadPoolExecutor(2 * TINY_SLOTS) as callers:
                answers = [callers.submit(ask, number) for number in range(2 * TINY_SLOTS)]
                until(lambda: running(gateway, one) == TINY_SLOTS, 30, "both run again")
                assert [answer.result()[0] for answer in answers] == [None] * (2 * TINY_SLOTS)
    finally:
        one.stop()
