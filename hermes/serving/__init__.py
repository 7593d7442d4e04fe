"""What runs in Cog's worker: the service, the relay that streams, metrics, and the guard."""

from hermes.serving.relay import relayed
from hermes.serving.service import ChatService
from hermes.serving.worker import CogWorker, start_guard

__all__ = ["ChatService", "CogWorker", "relayed", "start_guard"]
