"""Validate a value against a JSON schema, and say in one line where and why it is not valid.

The schema comes from a client, so a check is bounded. It fetches nothing. It has a time limit, and a shorter one for
patterns: 20 definitions with two references each to the next make a million branches. If the checker fails on a schema
or a value, that is reported as a problem. Formats are not checked.
https://json-schema.org/draft/2020-12/json-schema-validation
"""

import functools
import json
import re
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from hermes.json_schema.limits import SchemaProblem, dialect, fitting
from hermes.json_schema.patterns import portable
from hermes.json_schema.repair import Budget, repaired
from hermes.text import cut, shortened, shown

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError
    from jsonschema.protocols import Validator as Checker

CHECK_SECONDS = 1.0  # of processor time, for all checks of one text
PATTERN_SECONDS = 0.1  # for all patterns against one value
REPAIR_SECONDS = 0.1  # for a schema that is not remembered, see json_schema.repair
MAX_MESSAGE = 200
MAX_NESTED = 80  # references within references; each takes about ten frames
REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
ERRORS_COMPARED = 100  # of these, the most telling one is reported

Path = tuple[str | int, ...]
Errors = Iterator["ValidationError"]

PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,59}")


@dataclass
class Patience:
    """The time that is left for checks. The validators of one text share it."""

    seconds: float = field(default_factory=lambda: CHECK_SECONDS)


class _Deadlines(NamedTuple):
    whole: float  # on the clock of this thread's processor time
    patterns: float  # on the wall clock, as `regex` needs it


nested: ContextVar[int] = ContextVar("nested", default=0)  # references followed now, one within another
deadlines: ContextVar[_Deadlines] = ContextVar("deadlines")  # of the running check


class Validator:
    """Checks values against one schema. The first check also finds out whether the schema is valid."""

    def __init__(self, schema: Mapping[str, Any], patience: Patience | None = None, *, in_part: bool = False):
        """Args:
        schema: for the values.
        patience: shared with other validators.
        in_part: leave out what cannot be used of the schema, see json_schema.repair.
        """
        self._schema = schema
        self._patience = patience
        self._in_part = in_part

    def problem(self, value: Any) -> str | None:
        """Describe what is wrong with a JSON value, as `$.path: problem`; None if it is valid."""
        import jsonschema  # noqa: F401  so that the first import does not count as time of the check
        from referencing.exceptions import Unresolvable

        patience, began = self._patience or Patience(), time.thread_time()
        pattern_seconds = min(PATTERN_SECONDS, patience.seconds)
        token = deadlines.set(_Deadlines(began + patience.seconds, time.monotonic() + pattern_seconds))
        try:
            _check_time()
            return self._most_telling(value)
        except _CheckTakesTooLongError:
            return "$: checking it against the schema takes too long"
        except _PatternTakesTooLongError as late:
            return f"{_path(_where(late.text, value))}: matching its pattern takes too long"
        except RecursionError:
            return "$: nested too deeply to be checked"
        except Unresolvable as error:
            return f"$: the schema refers to {shown(error.ref)}, which is not in it"
        except Exception as error:  # jsonschema may raise anything for an invalid schema
            why = shortened(f"{type(error).__name__}: {error}", MAX_MESSAGE)
            return f"$: can't be checked against the schema ({why})"
        finally:
            deadlines.reset(token)
            patience.seconds -= time.thread_time() - began

    def _most_telling(self, value: Any) -> str | None:
        from jsonschema.exceptions import best_match

        error = best_match(islice(self._checker.iter_errors(value), ERRORS_COMPARED))
        return error and f"{_path(error.absolute_path)}: {shortened(error.message, MAX_MESSAGE)}"

    @functools.cached_property
    def _checker(self) -> "Checker":
        from jsonschema_specifications import REGISTRY

        schema = self._schema
        written = json.dumps(dict(schema))
        if '"unevaluatedProperties"' in written and '"patternProperties"' in written:
            # jsonschema would match with `re`, which has no time limit
            raise NotImplementedError("unevaluatedProperties beside patternProperties")
        draft = None
        if self._in_part:
            try:
                schema, draft, _ = repaired(schema, Budget(REPAIR_SECONDS))
            except SchemaProblem:  # it is too large, or nobody can check it
                draft = fitting(schema)
                schema = schema if draft else {}
        return _ours(draft or dialect(schema))(schema, registry=REGISTRY)  # jsonschema's default registry fetches


def _path(keys: Iterable[str | int]) -> str:
    steps = (f".{key}" if PLAIN_KEY.fullmatch(str(key)) else f"[{shown(key)}]" for key in keys)
    return cut("$" + "".join(steps), MAX_MESSAGE)


class _CheckTakesTooLongError(Exception):
    pass


def _check_time() -> None:
    if time.thread_time() > deadlines.get().whole:
        raise _CheckTakesTooLongError


class _PatternTakesTooLongError(Exception):
    def __init__(self, text: str):
        self.text = text


def _where(text: str, value: Any) -> Path:
    """Find the first place of a string, or of a key, in a value."""
    waiting: list[tuple[Path, Any]] = [((), value)]
    while waiting:
        path, value = waiting.pop()
        if value is text or (path and path[-1] is text):
            return path
        children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        waiting += reversed([((*path, key), child) for key, child in children])
    return ()


@functools.cache
def _ours(draft: "type[Checker]") -> "type[Checker]":
    """Extend a draft's checker: our words for frequent errors, and a time limit for each keyword that can hang."""
    from jsonschema.validators import extend

    ours: dict[str, Callable[..., Errors]] = {
        "type": _type,
        "required": _required,
        "enum": _enum,
        "additionalProperties": _additional_properties,
        "pattern": _pattern,
        "patternProperties": _pattern_properties,
        "uniqueItems": _unique_items,
    }
    ours |= {each: _bounded(follow) for each, follow in draft.VALIDATORS.items() if each in REFERENCES}
    checker: type[Checker] = extend(draft, ours)  # type: ignore[no-untyped-call]
    checker.evolve = _evolve  # type: ignore[assignment, method-assign]
    return checker


def _bounded(follow: Callable[..., Errors]) -> Callable[..., Errors]:
    """Limit the depth of references: Python's own recursion limit does not hold in all parts of jsonschema."""

    def bounded(*args: Any) -> Errors:
        token = nested.set(nested.get() + 1)
        try:
            if nested.get() > MAX_NESTED:
                raise RecursionError
            yield from follow(*args)
        finally:
            nested.reset(token)

    return bounded


def _evolve(checker: Any, **changes: Any) -> "Checker":
    """Make the checker of a subschema. jsonschema's own method loses our keywords if the subschema has a "$schema".

    Each step of a check calls this.
    """
    _check_time()
    settings = {"schema": checker.schema, "_resolver": checker._resolver, "registry": checker._registry}
    evolved: Checker = type(checker)(**{**settings, **changes})
    return evolved


def _error(message: str, *path: str) -> "ValidationError":
    from jsonschema.exceptions import ValidationError

    return ValidationError(message, path=path)


def _type(checker: "Checker", types: str | list[str], value: Any, _: Any) -> Errors:
    allowed = [types] if isinstance(types, str) else types
    if not any(checker.is_type(value, each) for each in allowed):
        yield _error(f"expected {' or '.join(allowed)}, got {shown(value)}")


def _required(checker: "Checker", names: list[str], value: Any, _: Any) -> Errors:
    if checker.is_type(value, "object"):
        yield from (_error(f"{shown(name)} is missing") for name in names if name not in value)


def _enum(_: Any, allowed: list[Any], value: Any, __: Any) -> Errors:
    if frozen(value) not in map(frozen, allowed):
        yield _error(f"{shown(value)} is not one of {', '.join(map(shown, allowed))}")


def _additional_properties(checker: Any, others: Any, value: Any, schema: Mapping[str, Any]) -> Errors:
    if not checker.is_type(value, "object"):
        return
    patterns = schema.get("patternProperties", {})
    extra = [key for key in value if key not in schema.get("properties", {})]
    for key in extra:
        if any(_matches(pattern, key) is not False for pattern in patterns):
            continue
        if others is False:
            yield _error("the schema does not allow this property", key)
        else:
            yield from checker.descend(value[key], others, path=key)


def _pattern(checker: "Checker", pattern: str, value: Any, _: Any) -> Errors:
    if checker.is_type(value, "string") and _matches(pattern, value) is False:
        yield _error(f"{shown(value)} does not match the pattern {shown(pattern)}")


def _pattern_properties(checker: Any, patterns: Mapping[str, Any], value: Any, _: Any) -> Errors:
    if checker.is_type(value, "object"):
        for pattern, schema in patterns.items():
            for key in value:
                if _matches(pattern, key):
                    yield from checker.descend(value[key], schema, path=key, schema_path=pattern)


def _matches(pattern: str, text: str) -> bool | None:
    """Search with a time limit, which (a+)+$ needs and Python's `re` does not have.

    Returns None if no engine reads the pattern.
    """
    import regex  # type: ignore[import-untyped]

    seconds = max(deadlines.get().patterns - time.monotonic(), 1e-3)
    try:
        return regex.search(portable(pattern) or pattern, text, timeout=seconds) is not None
    except regex.error:
        return None
    except TimeoutError as error:
        raise _PatternTakesTooLongError(text) from error


def _unique_items(checker: "Checker", unique: bool, value: Any, _: Any) -> Errors:
    """Compare by hash; jsonschema compares each item with each other."""
    if unique and checker.is_type(value, "array") and len({frozen(item) for item in value}) < len(value):
        yield _error(f"{shown(value)} has the same item twice")


def frozen(value: Any) -> Hashable:
    """Make a hashable value. Two are equal exactly if the JSON values are equal: 1 is 1.0 but not true."""
    if isinstance(value, dict):
        return frozenset((key, frozen(child)) for key, child in value.items())
    if isinstance(value, list):
        return tuple(frozen(child) for child in value)
    return (type(value), value) if isinstance(value, bool) else value
