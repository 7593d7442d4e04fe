"""Python functions as tools, described to the model as its card has it: signature, " - ", docstring.

https://huggingface.co/NousResearch/Hermes-2-Theta-Llama-3-70B#prompt-format-for-function-calling
"""

import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import NoneType, UnionType
from typing import Annotated, Any, Generic, Literal, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

import docstring_parser
from pydantic import Field, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError
from pydantic_core import ArgsKwargs, to_jsonable_python

from hermes.client.schema import PlainSchema, problems

P = ParamSpec("P")
R = TypeVar("R")


class BadArguments(ValueError):
    """The arguments of a call do not fit the tool."""


@dataclass(frozen=True)
class Tool(Generic[P, R]):
    """A function that the model may call. Python code can still call it as before."""

    function: Callable[P, R]
    name: str
    description: str
    parameters: dict[str, Any]  # the JSON schema of its arguments
    arguments: TypeAdapter[Any] = field(repr=False, compare=False)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function."""
        return self.function(*args, **kwargs)

    def as_dict(self) -> dict[str, Any]:
        """The tool as an item of the input `tools`."""
        signature = {"name": self.name, "description": self.description, "parameters": self.parameters}
        return {"type": "function", "function": signature}

    def run(self, arguments: Mapping[str, Any]) -> Any:
        """Call the function with the model's arguments, by name, and return its result as a JSON value.

        Raises:
            BadArguments: an argument is missing, unknown or of the wrong type. The function was not called.
            UnicodeEncodeError: the result holds half of a character, as the names of some files do.
            Exception: the function raised it.
        """
        call: Callable[..., R] = self.function
        result = call(**self._validated(arguments))
        value = to_jsonable_python(result, fallback=str, bytes_mode="base64", inf_nan_mode="null")
        json.dumps(value, ensure_ascii=False).encode()
        return value

    def _validated(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return dict(self.arguments.validate_python(ArgsKwargs((), dict(arguments))))
        except ValidationError as error:
            raise BadArguments(problems(error)) from error


def tool(function: Callable[P, R]) -> Tool[P, R]:
    """Make a tool of a typed function with a docstring. It works as a decorator.

    Raises TypeError if the function has no docstring, an argument without a type or a name, or is async.
    """
    name = getattr(function, "__name__", repr(function))
    try:
        return _tool(function, name)
    except (TypeError, NameError, PydanticUserError) as error:
        raise TypeError(f"{name} cannot be a tool: {error}") from error


def _tool(function: Callable[P, R], name: str) -> Tool[P, R]:
    signature, docstring = inspect.signature(function), inspect.getdoc(function)
    _check(function, name, docstring, signature.parameters.values())
    hints = get_type_hints(function, include_extras=True)
    arguments = _arguments(signature, hints, _argument_descriptions(docstring or ""))
    return Tool(
        function=function,
        name=name,
        description=f"{name}{_readable_signature(signature, hints)} - {docstring}",
        parameters=arguments.json_schema(schema_generator=PlainSchema),
        arguments=arguments,
    )


def _check(
    function: Callable[..., Any], name: str, docstring: str | None, parameters: Iterable[inspect.Parameter]
) -> None:
    if not name.isidentifier():
        raise TypeError("a tool is a function with a name")
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError("it is async, and tools are called one after the other; wrap it in a plain function")
    if not docstring:
        raise TypeError("it has no docstring, which is what the model goes by")
    for parameter in parameters:
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise TypeError(f"{parameter.name!r} is positional-only, and the model gives arguments by name")
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise TypeError(f"'{parameter}' takes arguments that have no name in the signature")
        if parameter.annotation is parameter.empty:
            raise TypeError(f"{parameter.name!r} has no type annotation")


def _arguments(
    signature: inspect.Signature, hints: Mapping[str, Any], descriptions: Mapping[str, str]
) -> TypeAdapter[Any]:
    """The validator of the arguments.

    It is made of a function that takes the same arguments and only collects them. So pydantic knows the defaults, any
    name can be used (a model has no field `schema` or `_x`), and the real function is not called.
    """

    def collect(**arguments: Any) -> dict[str, Any]:
        return arguments

    parameters = signature.parameters.values()
    by_name = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
    collect.__signature__ = inspect.Signature(by_name)  # type: ignore[attr-defined]
    collect.__annotations__ = {
        name: Annotated[hints[name], Field(description=descriptions[name])] if name in descriptions else hints[name]
        for name in signature.parameters
    }
    return TypeAdapter(collect)  # type: ignore[arg-type]  # a function is as good as a type here


def _argument_descriptions(docstring: str) -> dict[str, str]:
    parameters = docstring_parser.parse(docstring).params
    return {each.arg_name: each.description for each in parameters if each.description}


def _readable_signature(signature: inspect.Signature, hints: Mapping[str, Any]) -> str:
    """The signature without quotes and module names: (symbol: str, days: int = 5) -> dict."""
    parameters = ", ".join(
        f"{name}: {_readable(hints[name])}{_readable_default(parameter.default)}"
        for name, parameter in signature.parameters.items()
    )
    return f"({parameters})" + (f" -> {_readable(hints['return'])}" if "return" in hints else "")


def _readable(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation in (None, NoneType):
        return "None"
    if annotation is Ellipsis:
        return "..."
    if origin is Annotated:
        return _readable(arguments[0])
    if origin is Literal:
        return f"Literal[{', '.join(map(repr, arguments))}]"
    if origin in (Union, UnionType):
        return " | ".join(map(_readable, arguments))
    if origin:
        return f"{origin.__name__}[{', '.join(map(_readable, arguments))}]"
    return str(getattr(annotation, "__name__", annotation))


def _readable_default(default: Any) -> str:
    """A default as the model would write it: the value of an Enum, not its repr."""
    if default is inspect.Parameter.empty:
        return ""
    try:
        return f" = {to_jsonable_python(default)!r}"
    except ValueError:
        return " = ..."
