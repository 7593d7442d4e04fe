"""Memory plans: whether a model fits on some GPUs, and how much it can serve there."""

from hermes.sizing.arguments import EngineArguments
from hermes.sizing.gpus import Gpu, parse_gpus
from hermes.sizing.plan import MemoryPlan, plan_memory
from hermes.sizing.report import costs, describe
from hermes.sizing.shape import KNOWN_SHAPES, ModelShape

__all__ = [
    "KNOWN_SHAPES",
    "EngineArguments",
    "Gpu",
    "MemoryPlan",
    "ModelShape",
    "costs",
    "describe",
    "parse_gpus",
    "plan_memory",
]
