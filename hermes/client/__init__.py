"""The caller's side: ask a model, let it use Python functions as tools, get data back as pydantic models.

For any machine with httpx, pydantic and docstring-parser, and replicate to ask a model there.
"""

from hermes.client.errors import ExtractionFailed, PredictionFailed, PredictionRefused, ToolCallCutOff
from hermes.client.extraction import extract
from hermes.client.functions import BadArguments, Tool, tool
from hermes.client.models import CogServer, ReplicateModel
from hermes.client.response import Model, Response
from hermes.client.tool_loop import ToolRun, run_tools
from hermes.tool_calls.call import BadToolCall, ToolCall

__all__ = [
    "BadArguments",
    "BadToolCall",
    "CogServer",
    "ExtractionFailed",
    "Model",
    "PredictionFailed",
    "PredictionRefused",
    "ReplicateModel",
    "Response",
    "Tool",
    "ToolCall",
    "ToolCallCutOff",
    "ToolRun",
    "extract",
    "run_tools",
    "tool",
]
