"""JSON schemas for a grammar: the part of JSON Schema that xgrammar keeps to, and nothing it would drop in silence.

`narrowed` turns a schema into one that means the same or less, written only in forms that were seen to hold: every
text that the grammar then allows satisfies the schema as it was sent. A keyword for which there is no such form is
refused with its path. Source: JSON Schema 2020-12 (https://json-schema.org/draft/2020-12), and random texts drawn from
xgrammar 0.2.8 (tests/integration/test_grammar.py).
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from hermes.conversation.schema_leaves import BOUNDS, bounds_of, number, string, values
from hermes.conversation.schema_limits import MAX_DEPTH, SchemaProblem, check_metaschema, check_size
from hermes.conversation.schema_types import Marks
from hermes.conversation.validation import shown

Schema = Mapping[str, Any]
Place = tuple[str, ...]  # the keys from the root of the schema

MAX_PROPERTIES = 300  # optional ones cost the grammar compiler their number squared
MAX_BRANCHES = 256  # of a oneOf, each compared with each

# What a type's own keywords are. All other keywords that assert something are in REFUSED or handled by name.
KEYWORDS = {
    "object": ("properties", "required", "additionalProperties", "minProperties", "maxProperties"),
    "array": ("items", "prefixItems", "minItems", "maxItems"),
    "string": ("pattern", "format", "minLength", "maxLength"),
    "number": BOUNDS,
    "integer": BOUNDS,
    "boolean": (),
    "null": (),
}
REFUSED = (
    *("not", "if", "then", "else", "dependentRequired", "dependentSchemas", "dependencies", "propertyNames"),
    *("patternProperties", "unevaluatedProperties", "unevaluatedItems", "additionalItems", "contains", "minContains"),
    *("maxContains", "uniqueItems", "multipleOf", "$anchor", "$dynamicRef", "$dynamicAnchor", "$recursiveRef"),
)
HOLDING = ("$defs", "definitions", "properties", "prefixItems", "anyOf", "oneOf", "allOf")  # schemas by name or index
INDEX = re.compile("0|[1-9][0-9]{0,8}")
COMBINING = ("$ref", "enum", "const", "anyOf", "oneOf", "allOf")
ASSERTING = {*COMBINING, "type", *(keyword for keywords in KEYWORDS.values() for keyword in keywords)}


def narrowed(schema: Any) -> dict[str, Any]:
    """The schema for the grammar.

    Raises:
        SchemaProblem: it is no JSON schema, too large, or asks for something that the grammar can't keep to.
    """
    check_size(schema)
    check_metaschema(schema)
    try:
        return _Narrowing(schema).whole()
    except RecursionError:
        raise SchemaProblem("$", "$ref", "leads through too many others") from None


class _Narrowing:
    """One walk over one schema. References become entries of $defs, each narrowed once."""

    def __init__(self, root: Any):
        self._root = root
        self._names: dict[Place, str] = {}  # of places that references point to
        self._defs: dict[str, dict[str, Any]] = {}

    def whole(self) -> dict[str, Any]:
        narrow = self._node(self._root, "$", ())
        return {**narrow, "$defs": self._defs} if self._defs else narrow

    def _node(self, schema: Any, path: str, open_places: tuple[Place, ...]) -> dict[str, Any]:
        """One schema. `open_places` have begun and no object or array has begun since."""
        if schema is True:
            return {}
        if schema is False:
            raise SchemaProblem(path, None, "is false, which no value satisfies")
        for keyword in REFUSED:
            if keyword in schema:
                raise SchemaProblem(path, keyword, "is not enforced by the grammar; leave it out")
        if "$id" in schema and path != "$":
            raise SchemaProblem(path, "$id", "changes what references mean from here on; leave it out")
        combining = [keyword for keyword in COMBINING if keyword in schema]
        if not combining:
            return self._typed(schema, path)
        keyword = combining[0]
        beside = [each for each in schema if each in ASSERTING and each not in (keyword, "type")]
        if beside:
            raise SchemaProblem(path, beside[0], f"beside {keyword!r} is not enforced by the grammar; put it inside")
        if keyword in ("enum", "const"):
            return values(schema, path)
        if keyword == "$ref":
            if "type" in schema:
                raise SchemaProblem(path, "type", "beside '$ref' is not enforced by the grammar; leave it out")
            return self._reference(schema["$ref"], path, open_places)
        branches = [_with_type(branch, schema, f"{path}.{keyword}[{n}]") for n, branch in enumerate(schema[keyword])]
        if keyword == "allOf" and len(branches) > 1:
            raise SchemaProblem(path, keyword, "of several is not enforced by the grammar; merge them into one")
        if keyword == "oneOf":
            self._check_that_one_excludes_another(branches, path)
        narrow = [self._node(each, f"{path}.{keyword}[{n}]", open_places) for n, each in enumerate(branches)]
        return narrow[0] if len(narrow) == 1 else {"anyOf": narrow}

    def _typed(self, schema: Schema, path: str) -> dict[str, Any]:
        """A schema that goes by its type alone, which may be several or, where its keywords tell, left out."""
        given = schema.get("type")
        types = [given] if isinstance(given, str) else given or _types_by_keyword(schema, path)
        if not types:
            return {}
        by_type = {
            "object": self._object,
            "array": self._array,
            "string": string,
            "number": number,
            "integer": number,
            "boolean": lambda *_: {"type": "boolean"},
            "null": lambda *_: {"type": "null"},
        }
        narrow = [by_type[each]({**schema, "type": each}, path) for each in types]
        return narrow[0] if len(narrow) == 1 else {"anyOf": narrow}

    def _object(self, schema: Schema, path: str) -> dict[str, Any]:
        narrow: dict[str, Any] = {"type": "object"}
        others = schema.get("additionalProperties", True)
        required = list(dict.fromkeys(schema.get("required", [])))
        # The order of `required` comes first: coglet sorts the keys of objects, and only lists keep their order. A name
        # that is required and nothing more is what the schema says of the others.
        properties = schema.get("properties", {})
        declared = {name: properties.get(name, others) for name in required} | properties
        properties = {
            name: self._node(each, _child(path, "properties", name), ())
            for name, each in declared.items()
            if each is not False or name in required
        }
        if len(properties) - len(required) > MAX_PROPERTIES:
            raise SchemaProblem(
                path, "properties", f"has {len(properties)} properties; at most {MAX_PROPERTIES} optional ones"
            )
        least, most = bounds_of(schema, "minProperties", "maxProperties", path)
        unsaid = "properties" in schema and "additionalProperties" not in schema
        if properties or others is False or unsaid:  # closed: a free name could repeat one that is declared
            narrow |= {"properties": properties, "additionalProperties": False}
            if (most is not None and most < len(required)) or least > len(properties):
                raise SchemaProblem(path, None, "is satisfied by no object: its counts and its properties contradict")
        elif least > 1:
            raise SchemaProblem(path, "minProperties", "needs 'properties': free names may repeat in what is written")
        else:
            narrow["additionalProperties"] = self._node(others, f"{path}.additionalProperties", ())
        narrow |= {"required": required} if required else {}
        narrow |= {"minProperties": least} if least > len(required) else {}
        narrow |= {"maxProperties": most} if most is not None else {}
        return narrow

    def _array(self, schema: Schema, path: str) -> dict[str, Any]:
        least, most = bounds_of(schema, "minItems", "maxItems", path)
        first = [
            self._node(each, f"{path}.prefixItems[{index}]", ())
            for index, each in enumerate(schema.get("prefixItems", [])[:most])
        ]
        rest = schema.get("items", True)
        if rest is False and least > len(first):
            raise SchemaProblem(path, "minItems", f"is {least}, and 'items' is false after {len(first)} prefixItems")
        closed = rest is False or (most is not None and most == len(first))
        narrow: dict[str, Any] = {"type": "array", "items": False if closed else self._node(rest, f"{path}.items", ())}
        narrow |= {"prefixItems": first} if first else {}
        if closed:  # as many as are there, all of them
            return narrow | {"minItems": len(first), "maxItems": len(first)}
        return narrow | {"minItems": max(least, len(first))} | ({"maxItems": most} if most is not None else {})

    def _reference(self, reference: str, path: str, open_places: tuple[Place, ...]) -> dict[str, Any]:
        place, target = self._target(reference, path)
        if place in open_places:
            raise SchemaProblem(path, "$ref", f"to {shown(reference)} leads back to itself with nothing between")
        if place not in self._names:
            name = self._names[place] = f"d{len(self._names)}"
            self._defs[name] = self._node(target, reference, (*open_places, place))
        return {"$ref": f"#/$defs/{self._names[place]}"}

    def _target(self, reference: str, path: str) -> tuple[Place, Any]:
        """What a JSON pointer in this document points to (RFC 6901), and the pointer in its one plain form."""
        if not reference.startswith("#"):
            raise SchemaProblem(
                path, "$ref", f"to {shown(reference)} leaves the schema, and nothing is fetched; copy it in"
            )
        found = self._root
        place = tuple(key.replace("~1", "/").replace("~0", "~") for key in unquote(reference[1:]).split("/")[1:])
        for key in place:
            if isinstance(found, Mapping) and key in found:
                found = found[key]
            elif isinstance(found, list) and INDEX.fullmatch(key) and int(key) < len(found):
                found = found[int(key)]
            else:
                raise SchemaProblem(path, "$ref", f"to {shown(reference)} points to nothing")
        if not _holds_a_schema(place) or not f"{reference}/".startswith("#/"):
            raise SchemaProblem(path, "$ref", f"to {shown(reference)} is no place of a schema; point into '$defs'")
        return place, found

    def _check_that_one_excludes_another(self, branches: Sequence[Any], path: str) -> None:
        """oneOf may become anyOf where no value can satisfy two branches: by their types, or by a constant property."""
        if len(branches) > MAX_BRANCHES:
            raise SchemaProblem(path, "oneOf", f"has {len(branches)} branches; at most {MAX_BRANCHES}")
        seen = [Marks.of(self._seen_through(branch, path)) for branch in branches]
        for n, one in enumerate(seen):
            for other in seen[:n]:
                if not one.exclude(other):
                    raise SchemaProblem(
                        path,
                        "oneOf",
                        "is enforced only where types or a constant property tell its branches apart; use anyOf",
                    )

    def _seen_through(self, schema: Any, path: str) -> Any:
        for _ in range(MAX_DEPTH):
            if not isinstance(schema, Mapping) or "$ref" not in schema:
                return schema
            _, schema = self._target(schema["$ref"], path)
        raise SchemaProblem(path, "$ref", "leads through too many others")


def _holds_a_schema(place: Place) -> bool:
    """Whether what is there was checked to be a schema. A default or an enum may hold anything."""
    while place:
        steps = 2 if place[0] in HOLDING else 1 if place[0] in ("items", "additionalProperties") else 0
        if not 0 < steps <= len(place):
            return False
        place = place[steps:]
    return True


def _types_by_keyword(schema: Schema, path: str) -> list[str]:
    """The type that the keywords of a schema without one speak of; the grammar would drop them otherwise."""
    types = [name for name in KEYWORDS if name != "integer" and any(each in schema for each in KEYWORDS[name])]
    if len(types) > 1:
        raise SchemaProblem(path, None, f"has keywords for {' and '.join(types)} and no 'type'; say which it is")
    return types


def _with_type(branch: Any, schema: Schema, path: str) -> Any:
    """A branch of anyOf, oneOf or allOf with the type that is said beside it."""
    if "type" not in schema or branch is False:
        return branch
    if branch is True or not any(each in branch for each in ("type", *COMBINING)):
        return {**({} if branch is True else branch), "type": schema["type"]}
    if branch.get("type") != schema["type"]:
        raise SchemaProblem(path, None, f"has to be of type {schema['type']!r}, which is said beside it; say it inside")
    return branch


def _child(path: str, keyword: str, name: str) -> str:
    return f"{path}.{keyword}.{name}" if name.isidentifier() else f"{path}.{keyword}[{name!r}]"
