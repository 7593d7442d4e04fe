"""The fields of other people's request classes, read from their source: to import vLLM takes half a minute."""

import ast
from dataclasses import fields, is_dataclass
from importlib.util import find_spec
from pathlib import Path

UNKNOWN = object()  # a default that is no literal


def vllm_fields(module, name):
    """The public fields of a class in vllm/`module`, each with its default."""
    source = Path(find_spec("vllm").submodule_search_locations[0]) / module
    [found] = [
        node for node in ast.parse(source.read_text()).body if isinstance(node, ast.ClassDef) and node.name == name
    ]
    return dict(_field(node) for node in found.body if isinstance(node, ast.AnnAssign) and node.target.id[0] != "_")


def fields_of(kind):
    """The names of the fields of a TypedDict, of a dataclass or of pydantic's model."""
    if is_dataclass(kind):
        return {field.name for field in fields(kind)}
    names = {name for each in kind.__mro__ for name in getattr(each, "__annotations__", {})}
    return names | set(getattr(kind, "__optional_keys__", ())) | set(getattr(kind, "__required_keys__", ()))


def _field(node):
    name, value = node.target.id, node.value
    if isinstance(value, ast.Call):  # Field(default=None, alias="schema")
        given = {each.arg: each.value for each in value.keywords}
        if "alias" in given:
            name = ast.literal_eval(given["alias"])
        value = given.get("default")
    try:
        return name, UNKNOWN if value is None else ast.literal_eval(value)
    except ValueError:
        return name, UNKNOWN
