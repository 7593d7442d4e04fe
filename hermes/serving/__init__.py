"""What Cog's runtime needs from us: the live stream, metrics, the OpenAPI document, a local server and its client."""

from hermes.serving.relay import relayed
from hermes.serving.service import ChatService
from hermes.serving.worker import CogWorker

__all__ = ["ChatService", "CogWorker", "relayed"]
