"""The gateway's upstream over a handle that does what the test says, with the errors that Ray raises."""

import asyncio
import threading
from contextlib import aclosing
from types import SimpleNamespace

import pytest

from hermes.errors import EngineFailed
from hermes.gateway.upstream import Full, Unavailable

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("ray_installed")]
START, HALF = ("start", {}), ("output", {"chunk": "half"})
DONE = ("completed", {"status": "succeeded", "metrics": {}})


class Response:
    """Ray's response: its events, the last of which may be an error, or a wait that only a cancel ends."""

    def __init__(self, events):
        self._events, self._canceled = list(events), asyncio.Event()

    async def __aiter__(self):
        from ray.exceptions import TaskCancelledError

        for event in self._events:
            if event is FOR_EVER:
                await self._canceled.wait()
                raise TaskCancelledError
            if isinstance(event, Exception):
                raise event
            yield event

    def cancel(self):
        self._canceled.set()

    def cancelled(self):
        return self._canceled.is_set()


FOR_EVER = object()


class Handle:
    app_name, deployment_name = "hermes", "Replica"

    def __init__(self, *events):
        self.events, self.asked = events, []

    def options(self, **options):
        assert options == {"method_name": "answer", "stream": True}
        return self

    def remote(self, inputs):
        self.asked.append(inputs)
        self.response = Response(self.events)
        return self.response


def run(*events, meanwhile=None):
    """The events of a run over a replica that says these."""
    from hermes.cluster.upstream import RayUpstream

    async def main():
        upstream = RayUpstream(handle := Handle(*events), slots=4)
        seen = []
        async with aclosing(upstream.run("a", b'{"prompt":"Hi"}')) as told:
            async for event in told:
                seen.append(event)
                if meanwhile and event == HALF:
                    await meanwhile(upstream)
        assert handle.response.cancelled(), "whatever happened, the replica is rid of it"
        return seen

    return asyncio.run(main())


def test_the_slots_are_those_of_the_replicas_that_run(monkeypatch):
    from ray.exceptions import ActorDiedError

    from hermes.cluster.upstream import RayUpstream

    def status(states):
        if isinstance(states, Exception):
            raise states
        replicas = SimpleNamespace(replica_states=states)
        return SimpleNamespace(applications={"hermes": SimpleNamespace(deployments={"Replica": replicas})})

    async def ready(states):
        monkeypatch.setattr("ray.serve.status", lambda: status(states))
        upstream = RayUpstream(Handle(), slots=4)
        return await upstream.ready(), upstream.slots

    assert asyncio.run(ready({"RUNNING": 2, "STARTING": 1, "STOPPING": 1})) == (True, 8)
    assert asyncio.run(ready({"STARTING": 1})) == (False, 0)
    assert asyncio.run(ready(ActorDiedError())) == (False, 0)
    assert asyncio.run(ready(KeyError("hermes"))) == (False, 0)


def test_a_controller_that_does_not_answer_is_not_ready_and_asked_once(monkeypatch):
    from hermes.cluster import upstream as module

    asked, release = [], threading.Event()

    def status():
        asked.append(1)
        assert release.wait(10)
        return SimpleNamespace(applications={})

    async def main():
        upstream = module.RayUpstream(Handle(), slots=4)
        assert [await upstream.ready() for _ in range(3)] == [False] * 3
        release.set()
        assert not await upstream.ready()
        return len(asked)

    monkeypatch.setattr("ray.serve.status", status)
    monkeypatch.setattr(module, "STATUS_SECONDS", 0.01)
    assert asyncio.run(main()) == 1


def dead():
    from ray.exceptions import ActorDiedError

    return ActorDiedError()


def test_the_events_of_a_replica_go_through():
    assert run(START, HALF, DONE) == [START, HALF, DONE]


def test_a_replica_without_an_engine_or_that_dies_before_it_begins_is_passed_by():
    with pytest.raises(Full):
        run(("gone", {}))
    with pytest.raises(Full):
        run(dead())


def test_a_replica_that_dies_in_mid_stream_is_e1203():
    with pytest.raises(EngineFailed, match=r"E1203 .* has died; the request can be sent again"):
        run(START, HALF, dead())


def test_a_bug_in_a_replica_is_told_and_not_tried_again():
    from ray.exceptions import RayTaskError

    with pytest.raises(EngineFailed, match=r"E1203 .* KeyError"):
        run(RayTaskError("answer", "KeyError: 'prompt'", KeyError("prompt")))


def test_a_deployment_that_failed_takes_nothing():
    from ray.serve.exceptions import DeploymentUnavailableError

    with pytest.raises(Unavailable):
        run(DeploymentUnavailableError("Replica"))


def test_a_cancel_ends_the_run_as_canceled():
    async def cancel(upstream):
        await upstream.cancel("a")

    assert run(START, HALF, FOR_EVER, meanwhile=cancel) == [START, HALF, ("completed", {"status": "canceled"})]


def test_a_cancel_of_a_run_that_has_just_ended_is_nothing():
    from hermes.cluster.upstream import RayUpstream

    asyncio.run(RayUpstream(Handle(), slots=4).cancel("gone"))


def test_a_stop_gives_running_ones_some_time_and_then_ends_them_with_e1205():
    async def main():
        from hermes.cluster.upstream import RayUpstream

        upstream = RayUpstream(Handle(START, HALF, FOR_EVER), slots=4)

        async def read():
            return [event async for event in upstream.run("a", b'{"prompt":"Hi"}')]

        reading = asyncio.create_task(read())
        await asyncio.sleep(0)
        await upstream.stop(0.2)
        first = await reading
        await upstream.stop(60)  # at once, for nothing runs
        return first, await read()

    first, later = asyncio.run(main())
    assert first[:2] == [START, HALF]
    for name, data in (first[-1], later[-1]):
        assert (name, data["status"]) == ("completed", "failed")
        assert data["error"].startswith("E1205 ServerStopping")
