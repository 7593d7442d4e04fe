"""The replicas of a Ray Serve application, as one upstream of the gateway."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Any

import grpc
from ray import serve
from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import DeploymentUnavailableError, RayServeException
from ray.serve.handle import DeploymentHandle, DeploymentResponseGenerator

from hermes.client.cog import Json
from hermes.client.errors import MAX_REASON
from hermes.devserver import PROJECT, PredictorSource
from hermes.engine import Breaker
from hermes.errors import EngineFailed, ServerStopping
from hermes.gateway.upstream import Full, Unavailable
from hermes.text import shortened

GONE = "gone"  # the only event of a replica whose engine is dead
STATUS_SECONDS = 10.0
RAY_ERRORS = (RayError, RayServeException, grpc.RpcError)


class RayUpstream:
    """An Upstream; see there."""

    def __init__(self, replicas: "DeploymentHandle[Any]", slots: int):
        """Args:
        replicas: the handle of their deployment.
        slots: of each replica.
        """
        self.name, self.slots = "ray", 0
        self._each = slots
        self._app, self._deployment = replicas.app_name, replicas.deployment_name
        self._answer = replicas.options(method_name="answer", stream=True)
        self._responses: dict[str, DeploymentResponseGenerator[Any]] = {}  # of running predictions
        self._running = 0
        self._idle = asyncio.Event()  # set while none runs
        self._idle.set()
        self._stopping = Breaker()
        self._status: asyncio.Task[Any] | None = None
        self._document = PredictorSource(PROJECT / "predict.py").openapi()

    async def ready(self) -> bool:
        """See Upstream. The slots are those of the replicas that run now."""
        try:
            async with asyncio.timeout(STATUS_SECONDS):
                found = await self._find_status()
            states = found.applications[self._app].deployments[self._deployment].replica_states
        except (*RAY_ERRORS, KeyError, TimeoutError):  # Serve's controller starts again, or the application is deleted
            return False
        self.slots = int(states.get("RUNNING", 0)) * self._each
        return self.slots > 0

    async def _find_status(self) -> Any:
        """Serve's status. A thread that Ray does not answer cannot be ended, so there is one at a time."""
        if self._status is None or self._status.done():
            self._status = asyncio.create_task(asyncio.to_thread(serve.status))
        return await asyncio.shield(self._status)

    async def document(self) -> Json:
        """See Upstream."""
        return self._document

    async def run(self, run_id: str, inputs: bytes) -> AsyncGenerator[tuple[str, Json]]:
        """See Upstream. Serve chooses the replica, and chooses again if that one dies before it begins."""
        self._running += 1
        self._idle.clear()
        try:
            value: Json = await asyncio.to_thread(json.loads, inputs)  # it takes time that grows with the inputs
            async with aclosing(self._events(run_id, value)) as events:
                async for event in events:
                    yield event
        finally:
            self._running -= 1
            if not self._running:
                self._idle.set()

    async def _events(self, run_id: str, inputs: Json) -> AsyncGenerator[tuple[str, Json]]:
        self._responses[run_id] = response = self._answer.remote(inputs)
        begun = False
        try:
            async with self._stopping.waiting():
                async for name, data in response:
                    if name == GONE:
                        raise Full("the engine of this replica is dead")
                    begun = True
                    yield name, data
        except ServerStopping as error:
            yield "completed", {"status": "failed", "error": str(error)}
        except DeploymentUnavailableError as error:
            raise Unavailable(error.message) from error
        except RAY_ERRORS as error:
            if response.cancelled():
                yield "completed", {"status": "canceled"}
            elif isinstance(error, RayTaskError):
                raise EngineFailed(f"the replica failed: {shortened(str(error), MAX_REASON)}") from error
            elif not begun:
                raise Full("the replica died before it began") from error
            else:
                raise EngineFailed("the replica that answered has died") from error
        finally:
            del self._responses[run_id]
            response.cancel()

    async def cancel(self, run_id: str) -> None:
        """See Upstream."""
        if response := self._responses.get(run_id):
            response.cancel()

    async def stop(self, grace: float) -> None:
        """Give running predictions `grace` seconds, then end them, and all later ones, with E1205."""
        with suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await self._idle.wait()
        self._stopping.trip(lambda: ServerStopping(grace))

    async def close(self) -> None:
        """See Upstream. Serve closes the handle."""
