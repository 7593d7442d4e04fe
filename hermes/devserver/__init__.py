"""Cog's own server on this machine, without Docker, and the OpenAPI document that `cog build` would make."""

from hermes.devserver.predictor import PredictorSource
from hermes.devserver.server import PROJECT, LocalServer, ServerFailed

__all__ = ["PROJECT", "LocalServer", "PredictorSource", "ServerFailed"]
