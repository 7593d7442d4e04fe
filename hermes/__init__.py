"""Hermes-2-Theta-Llama-3-70B as a Replicate Cog package, on vLLM."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hermes.errors import HermesError

if TYPE_CHECKING:
    from hermes.chat.messages import Message
    from hermes.chat.request import Request
    from hermes.client import CogServer, ReplicateModel, extract, run_tools, tool
    from hermes.settings import Settings

__all__ = [
    "CogServer",
    "HermesError",
    "Message",
    "ReplicateModel",
    "Request",
    "Settings",
    "extract",
    "run_tools",
    "tool",
]

_HOME = {"Message": "chat.messages", "Request": "chat.request", "Settings": "settings"}


def __getattr__(name: str) -> Any:
    """Import a room when one of its names is used: a client's machine has no tokenizers, a server no replicate."""
    if name not in __all__:
        raise AttributeError(f"module 'hermes' has no attribute {name!r}")
    return getattr(import_module(f"hermes.{_HOME.get(name, 'client')}"), name)
