"""The tools of a response: functions, and what can be called as one.

What only OpenAI's servers run is left out beside functions, and the response's metadata says so: Codex and others send
it by default. Where there is nothing else, it is refused.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from hermes.client.cog import Json
from hermes.gateway.problems import unsupported
from hermes.text import shortened

WARNING = "hermes_warning"  # a key of metadata, which may have MAX_KEYS
MAX_KEYS, MAX_VALUE = 16, 512
BUILT_IN = (
    "apply_patch",
    "code_interpreter",
    "computer",
    "file_search",
    "image_generation",
    "local_shell",
    "mcp",
    "namespace",
    "programmatic_tool_calling",
    "shell",
    "tool_search",
    "web_search",
)
INPUT = {
    "type": "object",
    "properties": {"input": {"type": "string"}},
    "required": ["input"],
    "additionalProperties": False,
}


@dataclass(frozen=True)
class Tools:
    """The tools of a request."""

    functions: list[Json]  # as predict.py takes them
    echoed: list[Json]  # as the response has them
    custom: frozenset[str]  # names of functions whose one argument is a text
    left_out: list[str]

    def warned(self, metadata: dict[str, str]) -> dict[str, str]:
        """Returns the metadata of the response. Where it is full, there is no warning."""
        if not self.left_out or len(metadata) >= MAX_KEYS:
            return metadata
        said = f"these tools run elsewhere, and were left out: {', '.join(self.left_out)}"
        return {**metadata, WARNING: shortened(said, MAX_VALUE)}

    def choice(self, choice: str | Json) -> str | Json:
        """Returns tool_choice, of whose allowed tools those that were left out are gone."""
        if (
            isinstance(choice, str)
            or choice.get("type") != "allowed_tools"
            or not isinstance(choice.get("tools"), list)
        ):
            return choice
        return {**choice, "tools": [each for each in choice["tools"] if not _is_built_in(_type(each))]}


def tools_of(tools: Sequence[Json]) -> Tools:
    """Returns the tools of a request. Raises Problem at one that is unknown, or that the model cannot call alone."""
    functions, echoed, custom, left_out = [], [], [], []
    for index, tool in enumerate(tools):
        kind = _type(tool)
        if kind == "function":
            functions.append(tool)
            echoed.append({"description": None, "parameters": None, "strict": True, **tool})
        elif kind == "custom" and _is_text(tool.get("format")):
            functions.append(_as_function(tool))
            echoed.append(tool)
            custom.append(tool.get("name"))
        elif kind == "custom" or _is_built_in(kind):
            left_out.append(f"{kind} {tool['name']}" if isinstance(tool.get("name"), str) else kind)
        else:
            raise unsupported(f"tools[{index}]", f"is {kind!r}; it has to be a function or a custom tool")
    if left_out and not functions:
        raise unsupported("tools[0]", f"is {left_out[0]!r}, which the gateway cannot run; send functions")
    return Tools(functions, echoed, frozenset(name for name in custom if isinstance(name, str)), _once(left_out))


def _type(tool: Any) -> str:
    return str(tool.get("type", "")) if isinstance(tool, dict) else ""


def _is_built_in(kind: str) -> bool:
    """Whether a type is one of OpenAI's own tools; some have a date, as web_search_preview_2025_03_11 has."""
    return kind in BUILT_IN or kind.startswith(("web_search_", "computer_", "computer-"))


def _is_text(form: Any) -> bool:
    return form is None or (isinstance(form, dict) and form.get("type", "text") == "text")


def _as_function(tool: Json) -> Json:
    described: Json = {key: tool[key] for key in ("name", "description") if key in tool}
    return {"type": "function", **described, "parameters": INPUT}


def _once(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
