"""Hermes-2-Theta-Llama-3-70B as a Replicate Cog package, on vLLM."""

from hermes.conversation import Message, Request
from hermes.errors import HermesError
from hermes.settings import Settings

__all__ = ["HermesError", "Message", "Request", "Settings"]
