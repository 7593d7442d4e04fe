"""Turns a source (the hub, an archive, a folder, a file, the built-in model) into a folder of checked weights."""

from hermes.weights.resolve import is_converted, open_store, resolve
from hermes.weights.store import Store, Weights

__all__ = ["Store", "Weights", "is_converted", "open_store", "resolve"]
