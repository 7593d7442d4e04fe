"""What is refused of a JSON schema before anything walks it in earnest: by its size, and by its own metaschema."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from hermes.conversation.surrogates import surrogate_problem
from hermes.conversation.validation import shortened

MAX_DEPTH = 32
MAX_VALUES = 2_000  # in one enum, or any other list or object
MAX_PATH = 200  # characters of a path in a message; its keys are the caller's
MAX_WHY = 300

Trail = tuple[Any, ...]  # the way to a value: () at the root, else the trail of what holds it, and the last step


class Size(NamedTuple):
    """What a schema costs to check and to make a grammar of."""

    bytes: int  # as JSON
    schemas: int  # objects and booleans, each of which may be one
    pattern_characters: int  # each becomes up to ninety for the grammar


LARGEST = Size(bytes=65_536, schemas=3_000, pattern_characters=4_000)  # twice what a context of 8,192 tokens holds


class SchemaProblem(ValueError):
    """What can't be kept to in a schema: the JSON path, the keyword and why."""

    def __init__(self, path: str, keyword: str | None, why: str):
        path, why = shortened(path, MAX_PATH), shortened(why, MAX_WHY)
        super().__init__(f"{path}: {keyword!r} {why}" if keyword else f"{path} {why}")


def check_size(schema: Any) -> Size:
    """How large it is.

    Raises:
        SchemaProblem: it is too large or nested too deeply, or no JSON.
    """
    if not isinstance(schema, Mapping):
        raise SchemaProblem("$", None, f"has to be an object, not {type(schema).__name__}")
    schemas = pattern_characters = 0
    for trail, depth, value in _walk(schema):
        if depth > MAX_DEPTH:
            raise SchemaProblem(_path(trail), None, f"is nested more than {MAX_DEPTH} levels deep")
        if isinstance(value, dict | list) and len(value) > MAX_VALUES:
            raise SchemaProblem(_path(trail), None, f"has {len(value)} entries; at most {MAX_VALUES}")
        for text in value if isinstance(value, dict) else [value]:
            if isinstance(text, str) and (problem := surrogate_problem(text)):
                raise SchemaProblem(_path(trail), None, problem)
        schemas += isinstance(value, dict | bool)
        pattern_characters += len(value) if isinstance(value, str) and trail[1] == "pattern" else 0
    if pattern_characters > LARGEST.pattern_characters:
        raise SchemaProblem(
            "$", "pattern", f"has {pattern_characters} characters in all; at most {LARGEST.pattern_characters}"
        )
    try:
        bytes_of_json = len(json.dumps(schema, ensure_ascii=False, allow_nan=False).encode())
    except ValueError as error:
        raise SchemaProblem("$", None, "holds NaN, an infinity or a number of thousands of digits") from error
    if bytes_of_json > LARGEST.bytes:
        raise SchemaProblem("$", None, f"is {bytes_of_json} bytes of JSON; at most {LARGEST.bytes}")
    if schemas > LARGEST.schemas:
        raise SchemaProblem("$", None, f"holds {schemas} objects and booleans; at most {LARGEST.schemas}")
    return Size(bytes_of_json, schemas, pattern_characters)


def _walk(schema: Any) -> Iterator[tuple[Trail, int, Any]]:
    """Every value inside, with the way to it and its depth, without recursion."""
    waiting: list[tuple[Trail, int, Any]] = [((), 0, schema)]
    while waiting:
        trail, depth, value = waiting.pop()
        yield trail, depth, value
        children = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
        waiting += [((trail, step), depth + 1, child) for step, child in children]


def _path(trail: Trail) -> str:
    """As text only where there is a problem: keys may be long, and each is part of many paths."""
    path = ""
    while trail:
        trail, step = trail
        path = (f"[{step}]" if isinstance(step, int) else f".{step[:MAX_PATH]}") + path
    return f"${path}"


def check_metaschema(schema: Mapping[str, Any]) -> None:
    """Raises SchemaProblem if it is no JSON schema."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    problem = best_match(Draft202012Validator(Draft202012Validator.META_SCHEMA).iter_errors(schema))
    if problem is not None:
        raise SchemaProblem(problem.json_path, None, f"is not valid in a JSON schema: {problem.message[:200]}")
