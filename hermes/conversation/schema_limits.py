"""What is refused of a JSON schema before anything walks it in earnest: by its size, and by its own metaschema."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

MAX_BYTES = 65_536  # as JSON: twice what a context of 8,192 tokens holds
MAX_DEPTH = 32
MAX_VALUES = 2_000  # in one enum, or any other list or object
MAX_PATTERNS = 4_000  # characters in all patterns; each becomes up to ninety for the grammar


class SchemaProblem(ValueError):
    """What can't be kept to in a schema: the JSON path, the keyword and why."""

    def __init__(self, path: str, keyword: str | None, why: str):
        super().__init__(f"{path}: {keyword!r} {why}" if keyword else f"{path} {why}")


def check_size(schema: Any) -> None:
    """Raises SchemaProblem if it is too large, or nested too deeply."""
    if not isinstance(schema, Mapping):
        raise SchemaProblem("$", None, f"has to be an object, not {type(schema).__name__}")
    pattern_characters = 0
    for path, depth, value in _walk(schema):
        if depth > MAX_DEPTH:
            raise SchemaProblem(path, None, f"is nested more than {MAX_DEPTH} levels deep")
        if isinstance(value, dict | list) and len(value) > MAX_VALUES:
            raise SchemaProblem(path, None, f"has {len(value)} entries; at most {MAX_VALUES}")
        pattern_characters += len(value) if isinstance(value, str) and path.endswith(".pattern") else 0
    if pattern_characters > MAX_PATTERNS:
        raise SchemaProblem("$", "pattern", f"has {pattern_characters} characters in all; at most {MAX_PATTERNS}")
    size = len(json.dumps(schema, ensure_ascii=False).encode(errors="replace"))
    if size > MAX_BYTES:
        raise SchemaProblem("$", None, f"is {size} bytes of JSON; at most {MAX_BYTES}")


def _walk(schema: Any) -> Iterator[tuple[str, int, Any]]:
    """Every value inside, with its path and depth, without recursion."""
    waiting: list[tuple[str, int, Any]] = [("$", 0, schema)]
    while waiting:
        path, depth, value = waiting.pop()
        yield path, depth, value
        if isinstance(value, Mapping):
            waiting += [(f"{path}.{key}", depth + 1, each) for key, each in value.items()]
        elif isinstance(value, list):
            waiting += [(f"{path}[{index}]", depth + 1, each) for index, each in enumerate(value)]


def check_metaschema(schema: Mapping[str, Any]) -> None:
    """Raises SchemaProblem if it is no JSON schema."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    problem = best_match(Draft202012Validator(Draft202012Validator.META_SCHEMA).iter_errors(schema))
    if problem is not None:
        raise SchemaProblem(problem.json_path, None, f"is not valid in a JSON schema: {problem.message[:200]}")
