"""The limits of a JSON schema: its size, and the metaschema of its draft. They are checked before anything else.

To check 32 KB against a metaschema takes a tenth of a second, so it is done once, and not again for a schema that comes
again soon.
"""

import hashlib
import json
import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from hermes.json_schema.patterns import pattern_problem
from hermes.text import shortened, shown, surrogate_problem

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError
    from jsonschema.protocols import Validator as Checker

MAX_BYTES = 65_536  # as JSON; twice what a context of 8,192 tokens holds
MAX_SCHEMAS = 3_000  # objects and booleans: each may be a schema
MAX_VALUES = 2_000  # in one enum, or any other list or object
MAX_DEPTH = 32
MAX_PATH = 200  # characters of a path in a message; the client chose its keys
MAX_WHY = 300
REMEMBERED = 64  # schemas

_drafts: "dict[bytes, type[Checker]]" = {}  # of the schemas that were valid last, by digest
_drafts_lock = threading.Lock()


class SchemaProblem(ValueError):
    """A schema can't be used. The message has the JSON path, the keyword and the reason."""

    def __init__(self, path: str, keyword: str | None, why: str):
        path, why = shortened(path, MAX_PATH), shortened(why, MAX_WHY)
        super().__init__(f"{path}: {keyword!r} {why}" if keyword else f"{path} {why}")


def check_schema(schema: Any) -> "type[Checker]":
    """Find the draft of a schema, see `dialect`.

    Raises SchemaProblem if the schema is not valid, is too large, or has a pattern that can't be used.
    """
    if draft := draft_of(schema):
        return draft
    draft = dialect(schema)
    check_patterns(schema, draft)
    return draft


def draft_of(schema: Any) -> "type[Checker] | None":
    """Find the draft of a schema; None if it is not valid, or has a pattern that can't be used.

    Raises SchemaProblem if the schema is too large.
    """
    digest = hashlib.sha256(written(schema)).digest()
    with _drafts_lock:
        draft = _drafts.pop(digest, None)
    if draft is None:
        patterns: set[str] = set()
        draft = fitting(schema, patterns)
        if draft is None or (any(map(pattern_problem, patterns)) and any(_errors(schema, draft))):
            return None
    with _drafts_lock:
        _drafts[digest] = draft  # the last of all
        if len(_drafts) > REMEMBERED:
            del _drafts[next(iter(_drafts))]
    return draft


def check_size(schema: Any) -> int:
    """Count the bytes of a schema as JSON.

    Raises SchemaProblem if the schema is too large, nested too deeply, or not JSON.
    """
    return len(written(schema))


def written(schema: Any) -> bytes:
    """Write a schema as JSON. Raises what `check_size` raises."""
    if not isinstance(schema, Mapping):
        raise SchemaProblem("$", None, f"must be an object, not {type(schema).__name__}")
    try:
        text = json.dumps(schema, ensure_ascii=False, allow_nan=False).encode(errors="surrogatepass")
    except ValueError as error:
        raise SchemaProblem("$", None, "holds NaN, an infinity or a number of thousands of digits") from error
    except RecursionError as error:
        raise SchemaProblem("$", None, f"is nested more than {MAX_DEPTH} levels deep") from error
    if len(text) > MAX_BYTES:
        raise SchemaProblem("$", None, f"is {len(text)} bytes of JSON; at most {MAX_BYTES}")
    if (schemas := _check_values(schema, "$", MAX_DEPTH)) > MAX_SCHEMAS:
        raise SchemaProblem("$", None, f"holds {schemas} objects and booleans; at most {MAX_SCHEMAS}")
    return text


def _check_values(value: Any, at: str, deeper: int) -> int:
    """Count the objects and booleans. Raise SchemaProblem for a value that is too large, too deep or not Unicode."""
    if deeper < 0:
        raise SchemaProblem(at, None, f"is nested more than {MAX_DEPTH} levels deep")
    inside = value if isinstance(value, Mapping | list) else ()
    if len(inside) > MAX_VALUES:
        raise SchemaProblem(at, None, f"has {len(inside)} entries; at most {MAX_VALUES}")
    for text in [value] if isinstance(value, str) else inside:
        if isinstance(text, str) and (problem := surrogate_problem(text)):
            raise SchemaProblem(at, None, problem)
    if isinstance(value, Mapping):
        steps = [(f"{at}.{name[:MAX_PATH]}", each) for name, each in value.items()]
    else:
        steps = [(f"{at}[{index}]", each) for index, each in enumerate(inside)]
    return isinstance(value, Mapping | bool) + sum(_check_values(each, step, deeper - 1) for step, each in steps)


def dialect(schema: Mapping[str, Any]) -> "type[Checker]":
    """Find the draft of a schema, as jsonschema's validator class: the one in $schema, else the newest that fits.

    Raises SchemaProblem if the schema is not valid in its draft.
    """
    from jsonschema.exceptions import best_match

    if draft := fitting(schema):
        return draft
    newest = _drafts_of(schema)[0]
    problem = best_match(newest(newest.META_SCHEMA).iter_errors(schema))
    raise SchemaProblem(problem.json_path, None, f"is not valid in a JSON schema: {problem.message[:200]}")


def fitting(schema: Mapping[str, Any], patterns: set[str] | None = None) -> "type[Checker] | None":
    """Find the draft of a schema; None if it is not valid in it. `patterns` gets what may be a pattern in it."""
    from jsonschema import FormatChecker

    formats = FormatChecker(formats=())

    @formats.checks("regex")
    def note(pattern: object) -> bool:
        if patterns is not None and isinstance(pattern, str):
            patterns.add(pattern)
        return True

    fitting = (each for each in _drafts_of(schema) if each(each.META_SCHEMA, format_checker=formats).is_valid(schema))
    return next(fitting, None)


def _drafts_of(schema: Mapping[str, Any]) -> "list[type[Checker]]":
    """List the drafts that a schema may be of."""
    from jsonschema import validators

    newest = validators.Draft202012Validator
    unsaid: list[Any] = [newest, validators.Draft7Validator, validators.Draft4Validator]
    known = [*unsaid, validators.Draft201909Validator, validators.Draft6Validator]
    named = validators.validator_for({"$schema": str(schema.get("$schema"))}, default=validators.Draft3Validator)
    return [named] if named in known else unsaid


def check_patterns(schema: Mapping[str, Any], draft: "type[Checker]") -> None:
    """Raises SchemaProblem for a pattern that can't be used, in any subschema: where the draft says it has one."""
    for error in _leaves(_errors(schema, draft)):
        if error.validator == "format":
            *at, keyword = error.absolute_path
            path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in at)
            pattern = str(error.instance)
            raise SchemaProblem(f"${path}", str(keyword), f"{shown(pattern)} is refused: {pattern_problem(pattern)}")


def faults(schema: Mapping[str, Any]) -> "Iterator[tuple[str | int, ...]]":
    """Yield the path of each value that is not valid in a schema, or is a pattern that can't be used."""
    for error in _errors(schema, _drafts_of(schema)[0]):
        while error.context:
            error = max(error.context, key=lambda each: (len(each.absolute_path), each.json_path))
        yield (*error.absolute_path,)


def _errors(schema: Mapping[str, Any], draft: "type[Checker]") -> "Iterator[ValidationError]":
    from jsonschema import FormatChecker

    formats = FormatChecker(formats=())
    formats.checks("regex")(lambda pattern: not isinstance(pattern, str) or pattern_problem(pattern) is None)
    return draft(draft.META_SCHEMA, format_checker=formats).iter_errors(schema)


def _leaves(errors: "Iterable[ValidationError]") -> "Iterator[ValidationError]":
    for error in errors:
        yield from _leaves(error.context) if error.context else [error]
