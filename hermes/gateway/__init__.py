"""Replicate's, OpenAI's and Anthropic's APIs, and a page to chat on, before Cog servers or a model on Replicate.

Their dialects share one core of runs: a request becomes the inputs of predict.py, a run reads the answer to its end,
and each dialect writes what it reads. The gateway is a process of its own and imports nothing of a server.
"""

from hermes.gateway.settings import GatewaySettings

__all__ = ["GatewaySettings"]
