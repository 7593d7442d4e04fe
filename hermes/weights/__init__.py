"""A source (a local folder, a hub repository, the built-in small model) becomes a folder of weights on disk."""

from hermes.weights.resolve import resolve

__all__ = ["resolve"]
