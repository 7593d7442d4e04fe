"""Does a value satisfy a JSON schema (draft 2020-12), and if not, where and why: one line that a model can act on.

The schema comes from a caller, so a check against it is bounded: nothing is fetched, there is a time limit for all of
it and one for its patterns (20 definitions, each with two references to the next, are a million branches), and a schema
or value that breaks the checker is a problem to report. Formats are not asserted.
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

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError
    from jsonschema.protocols import Validator as Checker

CHECK_SECONDS = 1.0  # of processor time, for all that is checked of one text
PATTERN_SECONDS = 0.1  # for all the patterns that one value meets
MAX_SHOWN = 60  # characters of a value in a message
MAX_MESSAGE = 200
ERRORS_COMPARED = 100  # the most telling of so many is reported

Path = tuple[str | int, ...]
Errors = Iterator["ValidationError"]

PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,59}")


@dataclass
class Patience:
    """The time that checks may still take. Validators for the values in one text share it."""

    seconds: float = field(default_factory=lambda: CHECK_SECONDS)


class _Deadlines(NamedTuple):
    whole: float  # on the clock of this thread's processor time
    patterns: float  # on the wall's, as `regex` has it


deadlines: ContextVar[_Deadlines] = ContextVar("deadlines")  # of the check that runs


class Validator:
    """One schema, to check many values against. Whether it is a schema shows when a value meets it."""

    def __init__(self, schema: Mapping[str, Any], patience: Patience | None = None):
        self._schema = schema
        self._patience = patience

    def problem(self, value: Any) -> str | None:
        """What is wrong with a JSON value, as `$.path: problem`; None if nothing is."""
        from referencing.exceptions import Unresolvable

        _checker_class()  # the first call imports jsonschema, which is no time of the check
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
        except Exception as error:  # jsonschema fails in any way on what is not a schema
            return (
                f"$: can't be checked against the schema ({shortened(f'{type(error).__name__}: {error}', MAX_MESSAGE)})"
            )
        finally:
            deadlines.reset(token)
            patience.seconds -= time.thread_time() - began

    def _most_telling(self, value: Any) -> str | None:
        from jsonschema.exceptions import best_match

        error = best_match(islice(self._checker.iter_errors(value), ERRORS_COMPARED))
        return error and f"{_path(error.absolute_path)}: {shortened(error.message, MAX_MESSAGE)}"

    @functools.cached_property
    def _checker(self) -> "Checker":
        from referencing import Registry

        written = json.dumps(dict(self._schema))
        if '"unevaluatedProperties"' in written and '"patternProperties"' in written:
            raise NotImplementedError("unevaluatedProperties beside patternProperties")  # would match with `re`
        return _checker_class()(self._schema, registry=Registry())  # jsonschema's own registry would fetch


def shown(value: Any) -> str:
    """A JSON value for a message: one line, and cut."""
    if isinstance(value, str):
        return _cut(repr(value[: MAX_SHOWN + 1]), MAX_SHOWN)
    text = ""
    try:
        for part in json.JSONEncoder(ensure_ascii=False).iterencode(value):  # by parts: it may be large, or deep
            text += part
            if len(text) > MAX_SHOWN:
                break
    except ValueError:  # Python writes no number of more than 4,300 digits
        text += "a number of very many digits"
    return shortened(text, MAX_SHOWN)


def shortened(text: str, length: int) -> str:
    """The text on one line, no longer than that, and such that it can be encoded."""
    line = " ".join(text[: 2 * length].split())
    return _cut(line.encode(errors="backslashreplace").decode(), length)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 3]}..."


def _path(keys: Iterable[str | int]) -> str:
    steps = (f".{key}" if PLAIN_KEY.fullmatch(str(key)) else f"[{shown(key)}]" for key in keys)
    return _cut("$" + "".join(steps), MAX_MESSAGE)


class _CheckTakesTooLongError(Exception):
    pass


def _check_time() -> None:
    if time.thread_time() > deadlines.get().whole:
        raise _CheckTakesTooLongError


class _PatternTakesTooLongError(Exception):
    def __init__(self, text: str):
        self.text = text


def _where(text: str, value: Any) -> Path:
    """Where a string, or the key that it is, first turns up in a value."""
    waiting: list[tuple[Path, Any]] = [((), value)]
    while waiting:
        path, value = waiting.pop()
        if value is text or (path and path[-1] is text):
            return path
        children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        waiting += reversed([((*path, key), child) for key, child in children])
    return ()


@functools.cache
def _checker_class() -> "type[Checker]":
    """Draft 2020-12 with our words for what goes wrong most, and with no keyword that can hang."""
    from jsonschema import Draft202012Validator
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
    checker: type[Checker] = extend(Draft202012Validator, ours)  # type: ignore[no-untyped-call]
    checker.evolve = _evolve  # type: ignore[assignment, method-assign]
    return checker


def _evolve(checker: Any, **changes: Any) -> "Checker":
    """The checker of a subschema. jsonschema's own leaves our keywords behind where the subschema has a "$schema".

    Each step of a check comes through here.
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
    if _frozen(value) not in map(_frozen, allowed):
        yield _error(f"{shown(value)} is none of {', '.join(map(shown, allowed))}")


def _additional_properties(checker: Any, others: Any, value: Any, schema: Mapping[str, Any]) -> Errors:
    if not checker.is_type(value, "object"):
        return
    patterns = schema.get("patternProperties", {})
    extra = [key for key in value if key not in schema.get("properties", {})]
    for key in extra:
        if any(_matches(pattern, key) for pattern in patterns):
            continue
        if others is False:
            yield _error("not a property that the schema knows", key)
        else:
            yield from checker.descend(value[key], others, path=key)


def _pattern(checker: "Checker", pattern: str, value: Any, _: Any) -> Errors:
    if checker.is_type(value, "string") and not _matches(pattern, value):
        yield _error(f"{shown(value)} does not match the pattern {shown(pattern)}")


def _pattern_properties(checker: Any, patterns: Mapping[str, Any], value: Any, _: Any) -> Errors:
    if checker.is_type(value, "object"):
        for pattern, schema in patterns.items():
            for key in value:
                if _matches(pattern, key):
                    yield from checker.descend(value[key], schema, path=key, schema_path=pattern)


def _matches(pattern: str, text: str) -> bool:
    """Python's `re` has no time limit, and (a+)+$ needs one."""
    import regex  # type: ignore[import-untyped]

    try:
        return regex.search(pattern, text, timeout=max(deadlines.get().patterns - time.monotonic(), 1e-3)) is not None
    except TimeoutError as error:
        raise _PatternTakesTooLongError(text) from error


def _unique_items(checker: "Checker", unique: bool, value: Any, _: Any) -> Errors:
    """jsonschema compares each item with each other."""
    if unique and checker.is_type(value, "array") and len({_frozen(item) for item in value}) < len(value):
        yield _error(f"{shown(value)} has the same item twice")


def _frozen(value: Any) -> Hashable:
    """Equal as JSON is equal as this: 1 is 1.0 and not true."""
    if isinstance(value, dict):
        return frozenset((key, _frozen(child)) for key, child in value.items())
    if isinstance(value, list):
        return tuple(_frozen(child) for child in value)
    return (type(value), value) if isinstance(value, bool) else value
