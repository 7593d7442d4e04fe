"""Two replicas of the real model on Ray Serve: many callers, and what dies under them."""

import signal

import pytest
from openai import BadRequestError

from hermes.serving.guard import is_alive
from tests.cluster.conftest import REPLICAS
from tests.support.asking import three_chances, until
from tests.support.clusters import REPLICA_SECONDS, SLOTS, ask, caller, callers
from tests.support.gateways import MODEL

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster")]


@three_chances
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
    until(lambda: len(victims()) == REPLICAS and before[0] not in victims(), REPLICA_SECONDS, "Ray starts another")
    until(lambda: cluster.slots == REPLICAS * SLOTS, REPLICA_SECONDS, "it takes predictions")
    with callers(cluster.gateway, REPLICAS * SLOTS, 20) as asked:
        assert [each.result().problem for each in asked] == [None] * REPLICAS * SLOTS


def test_a_killed_engine_fails_its_own_and_ray_starts_another(cluster):
    replicas = cluster.replicas()
    killed(cluster, cluster.engines)
    assert len(set(replicas) & set(cluster.replicas())) == 1, "its process ended with it, and the other stayed"


def test_a_killed_replica_fails_its_own_and_leaves_nothing_behind(cluster):
    engines = cluster.engines()
    killed(cluster, cluster.replicas)
    until(lambda: sum(map(is_alive, engines)) == 1, 10, "its engine has ended with it")
