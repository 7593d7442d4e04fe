"""python -m hermes predict | serve: Cog's server of this folder, without Docker."""

import os
import time
from typing import Annotated, Any

import typer
from rich.console import Console

from hermes.cli.inputs import input_types, parse_inputs, read_json, require_known
from hermes.client.cog import stream_prediction
from hermes.client.errors import PredictionFailed
from hermes.devserver import LocalServer, ServerFailed
from hermes.errors import find_error

notes = Console(stderr=True, highlight=False, soft_wrap=True)


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
        completed = print_stream(server.url, values)
    notes.print(summary(completed["metrics"]), style="dim")


def serve(
    host: Annotated[str, typer.Option(help="the address to listen on; 0.0.0.0 for every one")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="the port to listen on")] = 5000,
) -> None:
    """Run the server until Ctrl-C."""
    with local_server(host=host, port=port) as server:
        wait_until_ready(server)
        notes.print(f"serving at {server.url}; Ctrl-C to stop")
        wait_for_interrupt(server)
        notes.print("stopping")


def local_server(host: str = "127.0.0.1", port: int | None = None) -> LocalServer:
    """This folder's server. It has the small model on the CPU unless HERMES_PROFILE asks for another profile."""
    environment = {"HERMES_PROFILE": os.environ.get("HERMES_PROFILE", "local")}
    return LocalServer(host=host, port=port, environment=environment, on_log=show_progress)


def show_progress(message: str) -> None:
    """Show a message of this package. The rest of the server's log is vLLM's and Cog's."""
    if message.startswith("hermes: ") and not message.startswith(("hermes: prediction: ", "hermes: boot report: ")):
        notes.print(message.removeprefix("hermes: "), markup=False, style="dim")


def wait_until_ready(server: LocalServer) -> None:
    """Wait for the server, with a spinner."""
    with notes.status("starting the server"):
        server.wait_until_ready()


def wait_for_interrupt(server: LocalServer) -> None:
    """Wait for Ctrl-C. Raises ServerFailed if the server ends first."""
    try:
        while server.health()["status"] != "STOPPED":
            time.sleep(1)
    except KeyboardInterrupt:
        return
    raise ServerFailed("the server has ended by itself")


def print_stream(url: str, values: dict[str, Any]) -> dict[str, Any]:
    """Print the pieces of a response as they come, and return the completed prediction."""
    for name, data in stream_prediction(url, values):
        if name == "output":
            print(data["chunk"], end="", flush=True)
        elif name == "completed":
            print(flush=True)
            if data["status"] != "succeeded":
                text = data.get("error") or data["status"]
                raise PredictionFailed(find_error(text) or text)
            return data
        elif name == "error":
            raise PredictionFailed(data["error"])
    raise PredictionFailed("the stream ended before the prediction was complete")


def summary(metrics: dict[str, Any]) -> str:
    """One line about a completed prediction."""
    return (
        f"{metrics['output_token_count']} tokens, the first after {metrics['time_to_first_token']:.2f} s, "
        f"{metrics['tokens_per_second']:.0f} a second; "
        f"finish_reason {metrics['finish_reason']}, seed {metrics['seed']}"
    )
