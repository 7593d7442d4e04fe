"""The OpenAPI document of a predictor, from its source text, as `cog build` makes it.

coglet reads it from .cog/openapi_schema.json. Without that file, coglet checks no input, shows no default and refuses
to stream. `cog build` needs Docker, so a server outside of an image gets the file from here. Like Cog's static parser,
this module reads the source and never runs it. It refuses what Cog's parser would drop or change without a word.

tests/data/cog holds a predictor with the document that Cog itself makes of it.
"""

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hermes.devserver.openapi import Json, document
from hermes.errors import InvalidConfiguration

DOCUMENT = Path(".cog/openapi_schema.json")  # in the folder of predict.py

PRIMITIVES = {"str": "string", "int": "integer", "float": "number", "bool": "boolean", "dict": "object"}
KEYWORDS = {
    "description": "description",
    "default": "default",
    "ge": "minimum",
    "le": "maximum",
    "min_length": "minLength",
    "max_length": "maxLength",
    "regex": "pattern",
    "deprecated": "deprecated",
}
NAMES_ALLOWED = {"default", "description"}  # elsewhere Cog's parser drops a name


class PredictorSource:
    """A predictor file, as text.

    Raises InvalidConfiguration if Cog's parser would not read something in it as it is written.
    """

    def __init__(self, path: Path, class_name: str = "Predictor"):
        self._path = path
        text = path.read_bytes()
        self._lines = text.splitlines(keepends=True)
        module = ast.parse(text)
        self._names = dict(_assignments(module))
        predict = self._method(module, class_name)
        self._decorators = {_name(each): each for each in predict.decorator_list}
        self._inputs = list(self._read_inputs(predict.args))

    def inputs(self) -> dict[str, Json]:
        """The schema of each input by its name."""
        return {name: schema for name, schema, _ in self._inputs}

    def openapi(self) -> Json:
        """The OpenAPI 3.0.2 document."""
        required = [name for name, schema, _ in self._inputs if "default" not in schema]
        choices = {name: enum for name, _, enum in self._inputs if enum}
        inputs: Json = {"properties": self.inputs(), "title": "Input", "type": "object"}
        if required:
            inputs["required"] = required
        return document(inputs, choices, streaming="streaming" in self._decorators)

    def max_concurrency(self) -> int:
        """N of @concurrent(max=N), or 1. The build reads it, the server does not."""
        decorator = self._decorators.get("concurrent")
        if isinstance(decorator, ast.Call):
            for keyword in decorator.keywords:
                if keyword.arg == "max":
                    return int(self._literal(keyword.value))
        return 1

    def write_openapi(self) -> Path:
        """Write the document where coglet looks for it."""
        path = self._path.parent / DOCUMENT
        try:
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(self.openapi()), encoding="utf-8")
        except OSError as error:
            problem = f"can't be written ({error.strerror or error}); run this in a copy of the project that can be"
            raise InvalidConfiguration(str(path), problem) from error
        return path

    def _method(self, module: ast.Module, class_name: str) -> ast.FunctionDef | ast.AsyncFunctionDef:
        for node in module.body:
            if isinstance(node, ast.ClassDef) and node.name == class_name:
                for item in node.body:
                    if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef) and item.name == "predict":
                        return item
        raise InvalidConfiguration(self._path.name, f"there is no method {class_name}.predict")

    def _read_inputs(self, arguments: ast.arguments) -> Iterator[tuple[str, Json, Json | None]]:
        names = arguments.args[1:]  # without self
        defaults = [None] * (len(names) - len(arguments.defaults)) + arguments.defaults
        for order, (argument, default) in enumerate(zip(names, defaults, strict=True)):
            options = self._options(default)
            choices = options.pop("choices", None)
            schema, nullable = self._type(argument.annotation, argument)
            enum = None
            if choices:
                enum = {
                    "description": "An enumeration.",
                    "enum": choices,
                    "title": argument.arg,
                    "type": schema["type"],
                }
                schema = {"allOf": [{"$ref": f"#/components/schemas/{argument.arg}"}]}
            else:
                schema["title"] = " ".join(word[:1].upper() + word[1:] for word in argument.arg.split("_"))
            if nullable:
                schema["nullable"] = True
            elif "default" in options and options["default"] is None:
                del options["default"]  # to Cog, a default of None for a type without None is no default
            schema |= {KEYWORDS[name]: value for name, value in options.items()}
            schema["x-order"] = order
            yield argument.arg, schema, enum

    def _options(self, default: ast.expr | None) -> Json:
        """What Input(...) says, or the bare default."""
        if default is None:
            return {}
        if not isinstance(default, ast.Call):
            return {"default": self._literal(default)}
        options = {}
        for keyword in default.keywords:
            if keyword.arg is None or keyword.arg not in {*KEYWORDS, "choices"}:
                raise self._refusal(default, f"Input() takes no {keyword.arg!r} here")
            written = self._source(keyword).partition("=")[2].strip()
            if written.startswith("("):
                raise self._refusal(keyword, f"{keyword.arg} must be one plain literal, without parentheses")
            options[keyword.arg] = self._literal(keyword.value, names_allowed=keyword.arg in NAMES_ALLOWED)
        if default.args:
            raise self._refusal(default, "Input() is read by keyword only")
        return options

    def _literal(self, node: ast.expr, *, names_allowed: bool = True) -> Any:
        if isinstance(node, ast.Name):
            if not names_allowed or node.id not in self._names:
                raise self._refusal(node, f"{node.id} must be a literal, or a name assigned one in this file")
            return self._literal(self._names[node.id], names_allowed=False)
        try:
            value = ast.literal_eval(node)
        except ValueError as error:
            raise self._refusal(node, f"{ast.unparse(node)} must be a literal") from error
        if isinstance(value, str) and value != self._source(node)[1:-1]:
            raise self._refusal(node, "a string must be one plain literal in one piece, without escapes")
        return value

    def _source(self, node: ast.expr | ast.keyword) -> str:
        """The source text of a node. ast.get_source_segment would split the whole file for each node."""
        *lines, last = self._lines[node.lineno - 1 : node.end_lineno]
        return b"".join([*lines, last[: node.end_col_offset]])[node.col_offset :].decode("utf-8")

    def _type(self, annotation: ast.expr | None, where: ast.AST) -> tuple[Json, bool]:
        """The JSON Schema of a type annotation, and whether None is a value of it."""
        match annotation:
            case ast.Name(id=name) if name in PRIMITIVES:
                return {"type": PRIMITIVES[name]}, False
            case ast.Subscript(value=ast.Name(id="Optional"), slice=inner):
                return self._type(inner, where)[0], True
            case ast.Subscript(value=ast.Name(id="list"), slice=inner):
                return {"items": self._type(inner, where)[0], "type": "array"}, False
            case ast.Subscript(value=ast.Name(id="dict")):
                return {"type": "object"}, False
            case ast.BinOp(op=ast.BitOr()):
                return self._union(list(_members(annotation)), where)
        seen = ast.unparse(annotation) if annotation else "no type"
        raise self._refusal(where, f"{seen} is not an input type that this knows")

    def _union(self, members: list[ast.expr], where: ast.AST) -> tuple[Json, bool]:
        variants = [each for each in members if not _is_none(each)]
        nullable = len(variants) < len(members)
        if len(variants) == 1:
            return self._type(variants[0], where)[0], nullable
        mark = {"nullable": True} if nullable else {}
        return {"anyOf": [self._type(each, where)[0] | mark for each in variants]}, nullable

    def _refusal(self, node: ast.AST, problem: str) -> InvalidConfiguration:
        line = getattr(node, "lineno", 0)
        return InvalidConfiguration(f"{self._path.name} line {line}", f"{problem}; Cog's build reads it as text")


def _assignments(module: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    for node in module.body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            yield node.targets[0].id, node.value


def _members(node: ast.expr) -> Iterator[ast.expr]:
    if isinstance(node, ast.BinOp):
        yield from _members(node.left)
        yield from _members(node.right)
    else:
        yield node


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _name(decorator: ast.expr) -> str:
    return ast.unparse(decorator.func if isinstance(decorator, ast.Call) else decorator)
