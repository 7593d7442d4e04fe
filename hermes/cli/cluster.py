"""python -m hermes cluster: the gateway before many replicas of the model, by Ray Serve."""

import importlib.util
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hermes.cli.gateway import OPTIONS, gateway_options, say_where
from hermes.cli.notes import notes
from hermes.devserver import PROJECT, ServerFailed
from hermes.engine.installation import installed_build, is_for_cpus
from hermes.errors import InvalidConfiguration, NoAccelerator, find_error
from hermes.gateway.settings import GatewaySettings
from hermes.serving import start_guard
from hermes.settings import Settings

if TYPE_CHECKING:
    from hermes.cluster import ClusterSettings

NAME = "hermes"  # of the application
PACKAGES = PROJECT / ".cluster"  # where `make cluster` installs Ray
THIS_MACHINE: dict[str, Any] = {  # how Ray starts on one machine
    "include_dashboard": False,
    "object_store_memory": 100 * 2**20,  # bytes; pieces of text need none, and by default it is 30 % of the memory
}
NOT_ON_A_CLUSTER = ("published", "store", "grace")  # Ray may move the gateway; HERMES_SHUTDOWN_GRACE is for both
POLL_SECONDS = 1.0
STOP_SECONDS = 10.0  # for Ray to answer
ENVIRONMENT = {
    "RAY_AUTH_MODE": "token",  # who reaches Ray's ports may run code
    "RAY_USAGE_STATS_ENABLED": "0",  # Ray reports to its makers otherwise
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",  # as an object of Ray's, a piece of text costs the gateway twice as much
    "HERMES_PROFILE": "local",
}


@gateway_options(*(name for name in OPTIONS if name not in NOT_ON_A_CLUSTER))
def cluster(
    gateway: GatewaySettings,
    replicas: Annotated[int, typer.Option(help="engines; the fewest with --max-replicas", min=1)] = 1,
    max_replicas: Annotated[int | None, typer.Option(help="most engines; Ray adds and removes some by load")] = None,
    scale_up_after: Annotated[float, typer.Option(help="seconds of more load, before one is added", min=0)] = 10,
    scale_down_after: Annotated[float, typer.Option(help="seconds of less load, before one is removed", min=0)] = 600,
) -> None:
    """Serve from many replicas until Ctrl-C: on this machine, or on the Ray cluster that RAY_ADDRESS names."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    settings = Settings.load()
    require_ray()
    from hermes.cluster import ClusterSettings

    args = ClusterSettings(
        replicas=replicas,
        max_replicas=max_replicas,
        upscale_delay_s=scale_up_after,
        downscale_delay_s=scale_down_after,
        gateway=gateway,
    )
    try:
        run(args, settings, here=not os.environ.get("RAY_ADDRESS"))
    except (RuntimeError, ConnectionError, TimeoutError) as error:  # Ray's
        raise ServerFailed(f"Ray: {(str(error) or repr(error)).splitlines()[-1]}") from error


def run(args: "ClusterSettings", settings: Settings, *, here: bool) -> None:
    """Start Ray `here`, or join the cluster that RAY_ADDRESS names, and serve until Ctrl-C."""
    import ray
    from ray import serve

    from hermes.cluster import application, resources_of

    if here:
        start_guard(os.getpid())
    ray.init(log_to_driver=False, logging_level=logging.ERROR, **(THIS_MACHINE if here else {}))
    try:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # Ray has taken it
        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        if here:
            require_resources(settings, resources_of(settings), args.replicas, ray.cluster_resources())
        if serve.status().proxies:
            raise ServerFailed("this cluster runs Ray Serve already; deploy hermes.cluster:application there")
        notes.print(f"Ray's log is in {Path(ray.nodes()[0]['ObjectStoreSocketName']).parents[1]}/logs", style="dim")
        with suppress(KeyboardInterrupt):
            with notes.status("starting the replicas"):
                serve.start(http_options={"host": args.gateway.host, "port": args.gateway.port})
                target = serve.RunTarget(application(args), name=NAME)
                serve.run_many([target], wait_for_applications_running=False)
                wait(serve.status, until="RUNNING")
            say_where(args.gateway)
            wait(serve.status)
        notes.print("stopping")
        if has_gateway(serve.status()):
            stopping = serve.get_app_handle(NAME).stop.remote(settings.shutdown_grace)
            stopping.result(timeout_s=settings.shutdown_grace + STOP_SECONDS)
        if not here:
            serve.delete(NAME)
    finally:
        ray.shutdown()  # with it ends what has been started here; the guard ends what Ray leaves behind


def wait(serve_status: Callable[[], Any], until: str | None = None) -> None:
    """Wait until the application has a status, or for ever. Raises ServerFailed if it fails to start, or is deleted."""
    while (found := serve_status().applications.get(NAME)) is None or found.status != until:
        if found is None:
            raise ServerFailed(f"Ray: the application {NAME} is not on the cluster; it may have been deleted elsewhere")
        if found.status == "DEPLOY_FAILED":
            said = [each.message for each in found.deployments.values()]
            raise ServerFailed(find_error("\n".join(said)) or f"Ray: {found.message}")
        time.sleep(POLL_SECONDS)


def has_gateway(serve_status: Any) -> bool:
    """Whether a gateway runs."""
    found = serve_status.applications.get(NAME)
    ingress = found and found.deployments.get("Ingress")
    return bool(ingress and ingress.replica_states.get("RUNNING"))


def require_ray() -> None:
    """Find Ray for this process and for those that it starts. Raises InvalidConfiguration if it is not installed."""
    if PACKAGES.is_dir():
        sys.path.insert(1, str(PACKAGES))
    if not importlib.util.find_spec("ray"):
        raise InvalidConfiguration(
            "ray", "is not installed; run `make cluster`, or the image of docker/cluster.Dockerfile"
        )
    paths = [str(PROJECT), *([str(PACKAGES)] if PACKAGES.is_dir() else []), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))


def require_resources(
    settings: Settings, replica: Mapping[str, int], replicas: int, found: Mapping[str, float]
) -> None:
    """Raises an error if this machine has too little: Ray would wait for more machines, without a word.

    Args:
        settings: of the server.
        replica: the resources of one, by Ray's names: CPU and GPU.
        replicas: how many there are to be.
        found: the resources of this machine.

    Raises:
        NoAccelerator: there are too few GPUs.
        InvalidConfiguration: there are too few CPUs.
    """
    for kind, count in replica.items():
        needed, there = replicas * count, int(found.get(kind, 0))
        if there < needed and kind == "GPU":
            raise NoAccelerator(settings.profile, needed, there, cpu_build=is_for_cpus(installed_build()))
        if there < needed:
            raise InvalidConfiguration("--replicas", f"{replicas} take {needed} CPUs, and this machine has {there}")
