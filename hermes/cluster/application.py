"""The two deployments: the gateway as the ingress, and the replicas behind it."""

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any, cast

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator
from ray import serve
from ray.serve import Application
from ray.serve.handle import DeploymentHandle
from starlette.types import ASGIApp

from hermes.chat.inputs import Inputs
from hermes.client.cog import Json
from hermes.cluster.upstream import GONE, RayUpstream
from hermes.devserver import PROJECT, PredictorSource
from hermes.errors import HermesError, InvalidConfiguration
from hermes.gateway.app import Gateway
from hermes.gateway.memory import tune_process
from hermes.gateway.settings import GatewaySettings
from hermes.logs import log_to_stderr
from hermes.serving import ChatService, start_guard
from hermes.settings import Settings
from hermes.sizing import EngineArguments

logger = logging.getLogger(__name__)

INGRESS_REQUESTS = 10_000  # at once; those that wait and those that stream. The gateway has its own, lower limits
HEALTH_SECONDS = 2.0  # between two looks at a replica
FAREWELL_SECONDS = 0.5  # for the last events of responses that are ended
DRAIN_SECONDS = 30.0  # over the longest response, until a replica that is removed counts as stuck


class ClusterSettings(BaseModel):
    """The arguments of the application. What a replica serves is in Settings, as for a Cog server.

    Raises InvalidConfiguration if they contradict each other.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    replicas: PositiveInt = 1  # the fewest
    max_replicas: PositiveInt | None = None  # None: no more than the fewest
    target_ongoing_requests: PositiveFloat | None = None  # a replica, on average; None: half of its slots
    upscale_delay_s: NonNegativeFloat = 10  # of more load, before a replica is added
    downscale_delay_s: NonNegativeFloat = 600  # of less load, before one is removed: a new one takes minutes to load
    gateway: GatewaySettings = Field(default_factory=GatewaySettings)

    @model_validator(mode="after")
    def _check(self) -> "ClusterSettings":
        if self.max_replicas is not None and self.max_replicas < self.replicas:
            raise InvalidConfiguration(
                "max_replicas", f"is {self.max_replicas}, fewer than the {self.replicas} replicas"
            )
        return self


def application(args: ClusterSettings) -> Application:
    """The application, as `serve run` and KubeRay's RayService import it. The environment has the settings.

    Raises InvalidConfiguration: see Settings.load.
    """
    settings = Settings.load()
    resources = resources_of(settings)
    number: Json = {"num_replicas": args.replicas}
    if args.max_replicas:
        number = {
            "autoscaling_config": {
                "min_replicas": args.replicas,
                "max_replicas": args.max_replicas,
                "target_ongoing_requests": args.target_ongoing_requests or settings.slots / 2,
                "upscale_delay_s": args.upscale_delay_s,
                "downscale_delay_s": args.downscale_delay_s,
            }
        }
    replicas = serve.deployment(Replica).options(
        **number,
        placement_group_bundles=[resources],  # all of a replica on one node
        placement_group_strategy="STRICT_PACK",
        ray_actor_options={"num_cpus": resources["CPU"], "num_gpus": resources.get("GPU", 0)},
        max_ongoing_requests=settings.slots,
        max_constructor_retry_count=2,
        health_check_period_s=HEALTH_SECONDS,
        graceful_shutdown_timeout_s=settings.request_timeout + DRAIN_SECONDS,
    )
    ingress = serve.deployment(serve.ingress()(Ingress)).options(
        ray_actor_options={"num_cpus": 0}, max_ongoing_requests=INGRESS_REQUESTS
    )
    gateway = replace(args.gateway, grace=settings.shutdown_grace)
    return ingress.bind(gateway, replicas.bind(settings), settings.slots)


def resources_of(settings: Settings) -> dict[str, int]:
    """What a replica holds, by Ray's names of resources; vLLM's workers are its child processes.

    Raises InvalidConfiguration if the engine is to run on several nodes.
    """
    workers = tensor_parallel_size(settings)
    return {"CPU": 1, "GPU": workers} if settings.defaults.on_gpus else {"CPU": workers}


def tensor_parallel_size(settings: Settings) -> int:
    """The GPUs of one engine, or its worker processes on a CPU.

    Raises InvalidConfiguration if the engine is to run on several nodes.
    """
    arguments = EngineArguments.read(settings.arguments({}, quantised=False))
    workers = arguments.tensor_parallel_size
    if arguments.local_gpus != workers or arguments.nnodes > 1 or arguments.distributed_executor_backend == "ray":
        raise InvalidConfiguration("engine_args", "here an engine runs on one node; set tensor_parallel_size only")
    return workers


class Replica:
    """A process with one engine. When Ray ends it, its guard ends the engine."""

    async def __init__(self, settings: Settings):  # type: ignore[misc]  # Serve awaits it
        """Get the weights and start the engine. Replicas of one node share its folder of weights, and its lock.

        Raises what ChatService.start raises; Ray reports it.
        """
        os.chdir(PROJECT)  # paths in the settings start there
        log_to_stderr()
        start_guard(os.getppid())  # Ray's own process on this node
        if tensor_parallel_size(settings) > 1:  # inside of a placement group, vLLM would take Ray
            arguments = {"distributed_executor_backend": "mp", **settings.engine_args}
            settings = settings.model_copy(update={"engine_args": arguments})
        inputs = PredictorSource(PROJECT / "predict.py").inputs()
        self._defaults = {name: schema.get("default") for name, schema in inputs.items()}
        self._chat = await ChatService.start(settings)
        self._ending = asyncio.create_task(self._end_after_death())

    async def answer(self, inputs: Mapping[str, Any]) -> AsyncGenerator[tuple[str, Json], None]:
        """The events of one prediction, as coglet sends them, or GONE alone: ask another replica."""
        if not self._chat.engine.alive:
            yield GONE, {}
            return
        yield "start", {}
        metrics: Json = {}
        given = {name: inputs.get(name, default) for name, default in self._defaults.items()}
        result: Json = {"status": "succeeded", "metrics": metrics}
        try:
            async with aclosing(aiter(self._chat.respond(metrics.__setitem__, **cast(Inputs, given)))) as pieces:
                async for piece in pieces:
                    yield "output", {"chunk": piece}
        except HermesError as error:
            result |= {"status": "failed", "error": str(error)}
        yield "completed", result

    async def check_health(self) -> None:
        """Raises RuntimeError if the engine is dead. Serve asks."""
        if not self._chat.engine.alive:
            raise RuntimeError("the engine is dead")

    async def _end_after_death(self) -> None:
        """End this process soon after its engine: Ray then starts another, and sends nothing here any more."""
        await self._chat.engine.died.wait()
        logger.error("replica: the engine is dead; this process ends, and Ray starts another")
        await asyncio.sleep(FAREWELL_SECONDS)
        os._exit(1)


class Ingress:
    """The gateway, before the replicas. There is one: its queue, its limits and its metrics are for all callers."""

    def __init__(self, settings: GatewaySettings, replicas: "DeploymentHandle[Any]", slots: int):
        log_to_stderr()
        self._upstream = RayUpstream(replicas, slots)
        self._gateway = Gateway(settings, [self._upstream])

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """What serve.ingress asks for after the constructor."""
        tune_process()
        return self._gateway.app()

    async def stop(self, grace: float) -> None:
        """Give running predictions `grace` seconds, then end them with E1205. What waits in the queue has as long."""
        await asyncio.gather(self._upstream.stop(grace), self._gateway.stop())
        await asyncio.sleep(FAREWELL_SECONDS)
