"""What Cog's runtime needs from us: the live stream, metrics, the OpenAPI document, a local server and its client."""

from hermes.serving.relay import relayed
from hermes.serving.service import ChatService
from hermes.serving.worker import prepare_worker

__all__ = ["ChatService", "prepare_worker", "relayed"]
