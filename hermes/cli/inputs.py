"""The inputs of a prediction, from the command line or a file."""

import json
import sys
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import typer

from hermes.devserver import PROJECT, PredictorSource


def input_types() -> dict[str, str]:
    """The JSON type of each input of predict.py."""
    inputs = PredictorSource(PROJECT / "predict.py").inputs()
    return {name: schema.get("type", "string") for name, schema in inputs.items()}


def require_known(names: Iterable[str], types: Mapping[str, str]) -> None:
    """Raises typer.BadParameter at the first name that is not an input: coglet would drop it without a word."""
    for name in names:
        if name not in types:
            close = get_close_matches(name, types, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(types)}"
            raise typer.BadParameter(f"there is no input {name!r}; {hint}")


def parse_inputs(pairs: list[str], types: dict[str, str]) -> dict[str, Any]:
    """name=value pairs as inputs. Strings are taken as they are, other values as JSON, @file as the text of a file.

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
    return json_object(f"--json {source}", sys.stdin.read() if name == "-" else _read(Path(name)))


def json_object(option: str, text: str) -> dict[str, Any]:
    """The JSON object in the text of an option. Raises typer.BadParameter if it is not one."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"{option}: this is not JSON ({error})") from error
    if not isinstance(value, dict):
        raise typer.BadParameter(f"{option}: this is not a JSON object")
    return value


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{path}: {error}") from error
