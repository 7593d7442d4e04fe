"""The engine: token ids in, text and token counts out. Only engine.py imports vLLM, when the engine starts."""

from hermes.engine.breaker import Breaker
from hermes.engine.chunk import Chunk, GrammarRefused, Take, TextEngine
from hermes.engine.devices import require_devices, require_fit
from hermes.engine.installation import require_installation
from hermes.engine.speculation import engine_arguments

__all__ = [
    "Breaker",
    "Chunk",
    "GrammarRefused",
    "Take",
    "TextEngine",
    "engine_arguments",
    "require_devices",
    "require_fit",
    "require_installation",
]
