"""The caller's side: ask a model, let it use Python functions as tools, get data back as pydantic models.

For any machine with httpx, pydantic and docstring-parser, and replicate to ask a model there.
"""

from hermes.caller.errors import ExtractionFailed, PredictionFailed, PredictionRefused, ToolCallCutOff
from hermes.caller.extraction import extract
from hermes.caller.models import CogServer, ReplicateModel
from hermes.caller.reply import Model, Reply, ToolCall, ToolCallError
from hermes.caller.tool_loop import ToolRun, run_tools
from hermes.caller.tools import BadArguments, Tool, tool

__all__ = [
    "BadArguments",
    "CogServer",
    "ExtractionFailed",
    "Model",
    "PredictionFailed",
    "PredictionRefused",
    "ReplicateModel",
    "Reply",
    "Tool",
    "ToolCall",
    "ToolCallCutOff",
    "ToolCallError",
    "ToolRun",
    "extract",
    "run_tools",
    "tool",
]
