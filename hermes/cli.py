"""python -m hermes: run the Cog server of this folder with no Docker, see to weights, plan memory."""

import json
import os
import sys
import time
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.exceptions import TyperException

from hermes.caller.cog_client import stream_prediction
from hermes.caller.errors import PredictionFailed
from hermes.cli_weights import plan, weights
from hermes.errors import HermesError, find_error
from hermes.serving.schema import PredictorSource
from hermes.serving.server import PROJECT, LocalServer, ServerFailed

DONE, FAILED, MISUSE, INTERRUPTED = 0, 1, 2, 130

app = typer.Typer(add_completion=False, help=__doc__, pretty_exceptions_enable=False)
notes = Console(stderr=True, highlight=False, soft_wrap=True)


@app.command()
def predict(
    inputs: Annotated[
        list[str] | None, typer.Option("--input", "-i", help="name=value; name=@file for a text in a file")
    ] = None,
    json_source: Annotated[
        str | None, typer.Option("--json", help="all inputs as a JSON object: a file, or - for standard input")
    ] = None,
) -> None:
    """Start the server, stream one answer to standard output, stop the server."""
    types = input_types()
    values = read_json(json_source) if json_source else {}
    require_known(values, types)
    values |= parse_inputs(inputs or [], types)
    with local_server() as server:
        wait_until_ready(server)
        completed = print_stream(server.url, values)
    notes.print(summary(completed["metrics"]), style="dim")


@app.command()
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


app.add_typer(weights, name="weights")
app.command()(plan)


def main(arguments: list[str] | None = None) -> int:
    """Run a command. Returns 0 done, 1 failed (one line on standard error), 2 misuse, 130 interrupted."""
    try:
        return int(app(args=arguments, standalone_mode=False) or DONE)  # typer gives 130 back for Ctrl-C in a command
    except TyperException as misuse:
        notes.print(f"{misuse.format_message()} (--help shows how)", markup=False)
        return MISUSE
    except (HermesError, ServerFailed, PredictionFailed) as error:
        notes.print(str(error), markup=False)
        return FAILED
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED


def local_server(host: str = "127.0.0.1", port: int | None = None) -> LocalServer:
    """This folder's server, with the small model on the CPU unless the environment asks for another profile."""
    environment = {"HERMES_PROFILE": os.environ.get("HERMES_PROFILE", "local")}
    return LocalServer(host=host, port=port, environment=environment, on_log=show_progress)


def show_progress(message: str) -> None:
    """Show what this package logs; the rest of the server's log is vLLM's and Cog's own."""
    if message.startswith("hermes: ") and not message.startswith(("hermes: prediction: ", "hermes: boot report: ")):
        notes.print(message.removeprefix("hermes: "), markup=False, style="dim")


def wait_until_ready(server: LocalServer) -> None:
    with notes.status("starting the server"):
        server.wait_until_ready()


def wait_for_interrupt(server: LocalServer) -> None:
    try:
        while server.health()["status"] != "STOPPED":
            time.sleep(1)
    except KeyboardInterrupt:
        return
    raise ServerFailed("the server has ended by itself")


def print_stream(url: str, values: dict[str, Any]) -> dict[str, Any]:
    """Print the pieces of an answer as they come and return the completed prediction."""
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


def input_types() -> dict[str, str]:
    """The JSON type of each input of predict.py."""
    properties = PredictorSource(PROJECT / "predict.py").openapi()["components"]["schemas"]["Input"]["properties"]
    return {name: schema.get("type", "string") for name, schema in properties.items()}


def require_known(names: Iterable[str], types: Mapping[str, str]) -> None:
    """Raises typer.BadParameter at the first name that is no input: coglet would drop it in silence."""
    for name in names:
        if name not in types:
            close = get_close_matches(name, types, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(types)}"
            raise typer.BadParameter(f"there is no input {name!r}; {hint}")


def parse_inputs(pairs: list[str], types: dict[str, str]) -> dict[str, Any]:
    """name=value pairs as inputs: a string as it is, anything else as JSON; @file is the text of a file.

    Raises:
        typer.BadParameter: a pair, a name, a value or a file that cannot be used.
    """
    return dict(_parse_input(pair, types) for pair in pairs)


def _parse_input(pair: str, types: dict[str, str]) -> tuple[str, Any]:
    name, equals, value = pair.partition("=")
    if not equals:
        raise typer.BadParameter(f"-i {pair}: write name=value")
    require_known([name], types)
    if value.startswith("@"):
        value = _read(Path(value[1:]))
    if types[name] == "string":
        return name, value
    try:
        return name, json.loads(value)
    except ValueError as error:
        raise typer.BadParameter(f"{name}: {value!r} is no {types[name]}") from error


def read_json(source: str) -> dict[str, Any]:
    """A JSON object from a file (FILE or @FILE, as cog predict writes it) or from standard input (-).

    Raises:
        typer.BadParameter: there is no such file, or no object in it.
    """
    name = source.removeprefix("@")
    text = sys.stdin.read() if name == "-" else _read(Path(name))
    try:
        values = json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"--json {source}: this is not JSON ({error})") from error
    if not isinstance(values, dict):
        raise typer.BadParameter(f"--json {source}: inputs are a JSON object")
    return values


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{path}: {error}") from error
