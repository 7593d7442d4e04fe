"""The shapes in which clients send JSON schemas, and the schema that is meant.

They wrap it for an API, write null for an absent keyword, `[]` for `{}` as PHP does, types as in Python or Gemini,
`required: true` as in draft 3, or references that start outside of the schema.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from hermes.json_schema.keywords import KEYWORDS
from hermes.json_schema.limits import SchemaProblem, check_size

TYPES = {"object", "array", "string", "number", "integer", "boolean", "null"}
ANY = "any"  # no type of JSON Schema
OTHER_TYPES = {
    **dict.fromkeys(("int", "long"), "integer"),
    **dict.fromkeys(("float", "double"), "number"),
    **dict.fromkeys(("dict", "map"), "object"),
    **dict.fromkeys(("none", "nonetype"), "null"),
    "str": "string",
    "bool": "boolean",
    "list": "array",
    ANY: ANY,
}

# Keywords that hold schemas by name, those that hold a list of them, and those that hold one (drafts 4 to 2020-12).
DEFINITIONS = ("$defs", "definitions")
BY_NAME = {"properties", "patternProperties", *DEFINITIONS, "dependentSchemas", "dependencies"}
LISTS = {"allOf", "anyOf", "oneOf", "prefixItems"}
WITHIN = {
    *("items", "additionalItems", "contains", "unevaluatedItems"),  # before 2020-12, items may be a list
    *("additionalProperties", "propertyNames", "unevaluatedProperties"),
    *(*LISTS, "not", "if", "then", "else"),
}
LISTED = {*LISTS, "required", "enum"}  # keywords that hold a list and nothing else
MAY_BE_NULL = {"const", "default"}
STRUCTURING = {"properties", "$ref", "anyOf", "allOf", "oneOf"}
# Keywords that restrict a value. `type` is not one of them: alone it says little.
TELLING = {*BY_NAME - {*DEFINITIONS}, *WITHIN, "$ref", "$dynamicRef", "$recursiveRef", "enum", "const"}
VALUES = {*MAY_BE_NULL, "examples", "example"}  # keywords whose value may look like a schema
TEXTS = {"type", "format", "pattern", "title", "description", "$comment"}  # keywords whose value may name a type
HOLDERS = {"function", "parameters", "input_schema", "inputSchema", "json_schema", "schema"}  # of a schema


def tidy(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Write a schema in the usual way, wherever what was sent can mean one thing only."""
    tidied: dict[str, Any] = _tidied(schema, schema)
    return tidied


def _tidied(schema: Any, root: Mapping[str, Any]) -> Any:
    if isinstance(schema, str) and _type_of(schema):
        schema = {"type": schema}
    if not isinstance(schema, Mapping):
        return {} if schema == [] else schema
    given = {key: value for key, value in schema.items() if value is not None or key in MAY_BE_NULL}
    said = {key: _listed(value) if key in LISTED else value for key, value in given.items()}
    needed = [*_required_by_themselves(said.get("properties"))]
    if isinstance(said.get("required"), bool):  # in draft 3; the schema around this one has it
        del said["required"]
    names = said.get("required", needed)
    names = [names] if isinstance(names, str) else names
    if names and isinstance(names, list) and all(isinstance(name, str | None) for name in names):
        said["required"] = [*dict.fromkeys(name for name in [*names, *needed] if name is not None)]
    if kind := _type_of(said.get("type")):
        said["type"] = kind
    if said.get("type") == ANY:
        del said["type"]
    if isinstance(reference := said.get("$ref"), str):
        said["$ref"] = _reference(reference, root)
    return {key: _tidied_within(key, value, root) for key, value in said.items()}


def _tidied_within(keyword: str, value: Any, root: Mapping[str, Any]) -> Any:
    if keyword == "components" and isinstance(value, Mapping) and isinstance(value.get("schemas"), Mapping):
        return {**value, "schemas": _tidied_within("definitions", value["schemas"], root)}
    if keyword in BY_NAME and isinstance(value, Mapping):
        return {
            name: each if isinstance(each, str) and keyword == "dependencies" else _tidied(each, root)
            for name, each in value.items()
        }
    if keyword in WITHIN and isinstance(value, list) and value:
        return [_tidied(each, root) for each in value]
    return _tidied(value, root) if keyword in BY_NAME | WITHIN - LISTS else value


def _listed(value: Any) -> Any:
    """Read a list that PHP wrote as an object, because its numbers had a hole."""
    return [*value.values()] if isinstance(value, Mapping) and all(map(str.isdecimal, value)) else value


def _required_by_themselves(properties: Any) -> Iterator[str]:
    if isinstance(properties, Mapping):
        yield from (
            name for name, each in properties.items() if isinstance(each, Mapping) and each.get("required") is True
        )


def _type_of(said: Any) -> Any:
    """Read a type, or a list of types; None if it is none, or an unknown one."""
    if isinstance(said, list):
        kinds = [_type_of(each) for each in said]
        known = bool(kinds) and all(isinstance(kind, str) for kind in kinds)
        return (ANY if ANY in kinds else [*dict.fromkeys(kinds)]) if known else None
    name = said.lower() if isinstance(said, str) else ""
    return name if name in TYPES else OTHER_TYPES.get(name)


def _reference(reference: str, root: Mapping[str, Any]) -> str:
    """Write a reference that leads nowhere as it was meant: its name may have slashes, or it starts too far outside."""
    if not reference.startswith("#/") or _leads(reference, root):
        return reference
    steps = unquote(reference[2:]).split("/")
    while len(steps) > 1 and steps[0] in HOLDERS:
        del steps[0]
    name = "/".join(steps[1:])
    for holder in (steps[0], *(DEFINITIONS if steps[0] in DEFINITIONS else ())):
        if isinstance(root.get(holder), Mapping) and name in root[holder]:
            return f"#/{holder}/{name.replace('~', '~0').replace('/', '~1').replace('%', '%25')}"
    inside = f"#/{'/'.join(steps)}"
    return inside if _leads(inside, root) else reference


def _leads(reference: str, root: Any) -> bool:
    for step in unquote(reference[2:]).split("/"):
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(root, list) and name.isdecimal() and int(name) < len(root):
            root = root[int(name)]
        elif isinstance(root, Mapping) and name in root:
            root = root[name]
        else:
            return False
    return True


def plain_schema(given: Any) -> dict[str, Any]:
    """Find the schema in what a client sent: it may be inside OpenAI's `response_format` or its `json_schema`.

    Raises SchemaProblem if the schema is too large, not an object, or restricts nothing and has a misplaced schema.
    """
    check_size(given)
    if given.get("type") == "json_object":
        given = given.get("schema", {"type": "object"})  # as llama.cpp's server has it
    elif given.get("type") == "json_schema":
        holder = given.get("json_schema", given)
        given = holder.get("schema") if isinstance(holder, Mapping) else None
    elif "schema" in given and not given.keys() & {"type", *TELLING}:
        given = given["schema"]
    if not isinstance(given, Mapping):
        raise SchemaProblem("$", "schema", "must be an object")
    plain = tidy(given)
    if not plain.keys() & TELLING and (stray := stray_schema(plain, DEFINITIONS)):
        raise SchemaProblem("$", stray, "looks like a schema but is not a keyword; put it under 'properties'")
    return plain


def arguments_schema(given: Mapping[str, Any]) -> dict[str, Any]:
    """Find the schema of arguments in what a client sent: properties may stand where keywords should."""
    known = {*TELLING, *DEFINITIONS, *VALUES, "components"}
    others = ((key, each) for key, each in given.items() if key not in known)
    stray = {key: each for key, each in others if isinstance(each, Mapping) or (key not in TEXTS and _is_type(each))}
    rest = {key: each for key, each in given.items() if key not in stray}
    is_meant = any(_is_type(each) or looks_like_schema(each) for each in stray.values())
    return tidy({**rest, "properties": stray} if is_meant and not rest.keys() & TELLING else given)


def _is_type(value: Any) -> bool:
    return isinstance(value, str) and _type_of(value) is not None


def unrestricted(schema: Mapping[str, Any]) -> str | None:
    """Describe a schema that has keywords, none of which restricts a value; None of any other. {} is chosen."""
    if not schema or schema.keys() & {*TELLING, *KEYWORDS, "dependentRequired"}:
        return None
    return "$: no keyword of the schema restricts the response, so anything is valid; an example is no schema"


def stray_schema(holder: Mapping[str, Any], known: Collection[str]) -> str | None:
    """Find the first key, except the known ones, whose value looks like a JSON schema."""
    return next((str(key) for key, value in holder.items() if key not in known and looks_like_schema(value)), None)


def looks_like_schema(value: Any) -> bool:
    """Whether a value is probably a schema: it has a type, or a keyword that holds schemas."""
    return isinstance(value, Mapping) and bool(_type_of(value.get("type")) or not STRUCTURING.isdisjoint(value))
