"""Hermes-2-Theta-Llama-3-70B as a Replicate Cog package, on vLLM."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hermes.errors import HermesError

if TYPE_CHECKING:
    from hermes.caller import CogServer, ReplicateModel, extract, run_tools, tool
    from hermes.conversation import Message, Request
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

_ROOM = {"Message": "conversation", "Request": "conversation", "Settings": "settings"}


def __getattr__(name: str) -> Any:
    """Load a room only when something of it is used: a caller's machine has no tokenizers, a server no replicate."""
    if name not in __all__:
        raise AttributeError(f"module 'hermes' has no attribute {name!r}")
    return getattr(import_module(f"hermes.{_ROOM.get(name, 'caller')}"), name)
