"""python -m hermes predict | serve: Cog's server of this folder, without Docker."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Annotated, Any

import typer

from hermes.cli.inputs import input_types, parse_inputs, read_json, require_known
from hermes.cli.notes import notes
from hermes.cli.ports import require_free
from hermes.client import CogServer
from hermes.devserver import LocalServer, ServerFailed
from hermes.serving.boot import REPORT


def predict(
    inputs: Annotated[
        list[str] | None, typer.Option("--input", "-i", help="name=value; name=@file for a text in a file")
    ] = None,
    json_source: Annotated[
        str | None, typer.Option("--json", help="all inputs as a JSON object: a file, or - for standard input")
    ] = None,
) -> None:
    """Start the server, stream one response to standard output, stop the server."""
    types = input_types()
    values = read_json(json_source) if json_source else {}
    require_known(values, types)
    values |= parse_inputs(inputs or [], types)
    with local_server() as server:
        wait_until_ready(server)
        try:
            response = CogServer(server.url).ask(values, partial(print, end="", flush=True))
        finally:
            print(flush=True)
    notes.print(summary(response.metrics), style="dim")


def serve(
    host: Annotated[str, typer.Option(help="the address to listen on; 0.0.0.0 for every one")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="the port to listen on", min=1, max=65535)] = 5000,
) -> None:
    """Run the server until Ctrl-C."""
    require_free(host, port)
    with local_server(host=host, port=port) as server:
        wait_until_ready(server)
        notes.print(f"serving at {server.url}; Ctrl-C to stop")
        with ending_with(server), suppress(KeyboardInterrupt):
            threading.Event().wait()
        notes.print("stopping")


def local_server(host: str = "127.0.0.1", port: int | None = None) -> LocalServer:
    """This folder's server. It has the small model on the CPU unless HERMES_PROFILE asks for another profile."""
    environment = {"HERMES_PROFILE": os.environ.get("HERMES_PROFILE", "local")}
    return LocalServer(host=host, port=port, environment=environment, on_log=show_progress)


def show_progress(message: str) -> None:
    """Show what a message of this package has for people. The rest of the server's log is vLLM's and Cog's."""
    if message.startswith("hermes: ") and not message.startswith("hermes: prediction: "):
        notes.print(message.removeprefix("hermes: ").partition(REPORT)[0], markup=False, style="dim")


def wait_until_ready(server: LocalServer) -> None:
    """Wait for the server, with a spinner."""
    with notes.status("starting the server"):
        server.wait_until_ready()


@contextmanager
def ending_with(server: LocalServer) -> Iterator[None]:
    """Run until Ctrl-C. If the server ends first, that ends what runs here in the same way, and raises ServerFailed."""
    done, ended = threading.Event(), threading.Event()

    def watch() -> None:
        while not done.wait(1):
            if server.health()["status"] == "STOPPED":
                ended.set()
                os.kill(os.getpid(), signal.SIGINT)
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
    if ended.is_set():
        raise ServerFailed("the server has ended by itself")


def summary(metrics: dict[str, Any]) -> str:
    """One line about a completed prediction."""
    return (
        f"{metrics['output_token_count']} tokens, the first after {metrics['time_to_first_token']:.2f} s, "
        f"{metrics['tokens_per_second']:.0f} a second; "
        f"finish_reason {metrics['finish_reason']}, seed {metrics['seed']}"
    )
