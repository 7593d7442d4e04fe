"""The client: ask a model, let it call Python functions, read pydantic models out of its responses.

It needs httpx, pydantic and docstring-parser, and replicate for a model on Replicate.
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
