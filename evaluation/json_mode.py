"""JSON mode over HTTP: one document for each of many schemas, checked with the library jsonschema.

The schemas are those of `make bench-schemas`: JSON lines with `id` and `schema`, such as MaskBench's
(https://github.com/guidance-ai/jsonschemabench). They are no part of this project.
"""

import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jsonschema
from jsonschema.exceptions import SchemaError
from referencing.exceptions import Unresolvable

from evaluation.asking import Question, Reply, sampled

PROMPT = "Write an example that satisfies the schema. Keep it short."
MAX_TOKENS = 512


@dataclass
class Documents:
    """What came of the schemas."""

    schemas: int = 0
    valid: int = 0
    invalid: list[str] = field(default_factory=list)
    invalid_though_enforced: list[str] = field(default_factory=list)  # the part of them that should not be
    cut_off: int = 0  # by max_tokens
    refused: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)  # of each that was not refused


def schemas_in(path: Path, most: int | None, seed: int) -> list[dict[str, Any]]:
    """Some of the schemas in a file of JSON lines, which may be compressed by gzip; drawn by the seed."""
    content = path.read_bytes()
    lines = (gzip.decompress(content) if path.suffix == ".gz" else content).splitlines()
    return sampled([json.loads(line) for line in lines], most, seed)


def asked(schemas: Sequence[Mapping[str, Any]], seed: int) -> list[Question]:
    """A question for each schema."""
    sampling = {"temperature": 0, "max_tokens": MAX_TOKENS, "seed": seed}
    return [Question(each["id"], {"prompt": PROMPT, "json_schema": each["schema"], **sampling}) for each in schemas]


def documents(schemas: Sequence[Mapping[str, Any]], replies: Mapping[str, Reply]) -> Documents:
    """Count what came of the schemas."""
    result = Documents(schemas=len(schemas))
    for each in schemas:
        reply = replies[each["id"]]
        if reply.status != "succeeded":
            result.refused.append(f"{each['id']}: {reply.error}")
            continue
        result.seconds.append(reply.seconds)
        if reply.metrics.get("finish_reason") != "stop":
            result.cut_off += 1
        elif problem := _problem(each["schema"], reply.text):
            result.invalid.append(f"{each['id']}: {problem}")
            if not reply.metrics.get("json_unenforced"):
                result.invalid_though_enforced.append(f"{each['id']}: {problem}")
        else:
            result.valid += 1
    return result


def _problem(schema: Any, text: str) -> str | None:
    try:
        return problem_of(schema, json.loads(text))
    except ValueError as problem:
        return f"no JSON: {problem}"


def problem_of(schema: Any, value: Any) -> str | None:
    """What the library jsonschema finds wrong with a value first; None if it is valid."""
    try:
        kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
        error = next(kind(schema).iter_errors(value), None)
    except (SchemaError, Unresolvable) as problem:
        return f"jsonschema can't check it: {problem}"
    return f"{error.json_path}: {error.message[:200]}" if error else None
