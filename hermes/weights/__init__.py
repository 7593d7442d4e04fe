"""A source (the hub, an archive, a folder, the built-in small model) becomes a folder of verified weights on disk."""

from hermes.weights.resolve import open_store, resolve
from hermes.weights.store import Store, Weights

__all__ = ["Store", "Weights", "open_store", "resolve"]
