"""Counts of the engine itself: its tokens and its steps."""

from dataclasses import dataclass
from typing import Any


@dataclass
class EngineCounts:
    """Counts of all requests since the start."""

    output_tokens: int = 0
    steps: int = 0  # that were reported

    def add(self, iteration: Any) -> None:
        """Count one step of the engine. `iteration` is vLLM's IterationStats, or None if no request got a token."""
        self.steps += 1
        if iteration:
            self.output_tokens += iteration.num_generation_tokens
