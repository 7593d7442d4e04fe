"""Pure values in, values out: messages, tools, ChatML, prompt templates, requests. No engine, no clock, no torch."""

from hermes.conversation.chatml import ChatML
from hermes.conversation.constraint import Constraint
from hermes.conversation.messages import Message
from hermes.conversation.request import Request, Sampling

__all__ = ["ChatML", "Constraint", "Message", "Request", "Sampling"]
