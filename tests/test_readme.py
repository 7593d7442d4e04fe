"""The tables of the README are what the code does."""

import asyncio
import re

from hermes.devserver.predictor import PredictorSource
from hermes.devserver.server import PROJECT
from hermes.serving.metrics import Meter
from hermes.settings import PREFIX, Settings
from tests.support.fakes import request
from tests.test_errors import CODED

README = (PROJECT / "README.md").read_text()


def rows(heading):
    """The rows of the first table under a heading, as lists of cells."""
    section = README.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    table = re.search(r"((?:^\|.*\n)+)", section, re.MULTILINE)[1].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table]


def test_the_inputs_are_those_of_predict_py():
    schemas = PredictorSource(PROJECT / "predict.py").openapi()["components"]["schemas"]

    def bounds(name, schema):
        if "maximum" in schema:
            return f"{schema['minimum']} to {schema['maximum']}"
        return " or ".join(f"`{choice}`" for choice in schemas.get(name, {}).get("enum", []))

    def shown(value):
        return "" if value is None else f"`{value}`" if value != "" else '`""`'

    assert rows("Inputs") == [
        [
            f"`{name}`",
            schema.get("type") or schemas[name]["type"],
            shown(schema["default"]),
            bounds(name, schema),
            schema["description"],
        ]
        for name, schema in schemas["Input"]["properties"].items()
    ]


def test_the_metrics_are_those_that_are_recorded():
    recorded = set()
    for inputs in ({"tools": [{"name": "f"}]}, {"json_schema": {}}, {"truncate": "oldest_turns"}):
        meter = Meter(
            request(**inputs),
            input_token_count=1,
            max_tokens=1,
            time_to_first_token=1.0,
            finish_reason="stop",
            preemptions=1,
        )
        asyncio.run(meter.read_text())
        recorded |= {f"`{name}`" for name, _ in meter.metrics()}
    assert {row[0] for row in rows("Metrics")} == recorded


def test_the_errors_are_those_of_the_tree():
    expected = [[child.code, child.__name__, child.__doc__] for child in CODED]
    assert rows("Errors") == sorted(expected)


def test_the_settings_are_those_that_are_read():
    documented = {row[0] for row in rows("Settings") if row[0].startswith(f"`{PREFIX}")}
    assert documented == {f"`{PREFIX}{name.upper()}`" for name in Settings.model_fields}


def test_the_commands_exist():
    targets = re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"`make ([a-z-]+)", README)) <= set(targets)


def test_the_first_command_stands_within_twenty_lines():
    assert any(line.startswith("$ make predict") for line in README.splitlines()[:20])
