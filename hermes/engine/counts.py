"""Counts of the engine itself: its tokens, and the time of its last step."""

import time
from dataclasses import dataclass
from typing import Any


@dataclass
class EngineCounts:
    """Counts of all requests since the start."""

    output_tokens: int = 0
    last_sign: float | None = None  # time.monotonic() of the last step that was reported

    def add(self, iteration: Any) -> None:
        """Count one step of the engine. `iteration` is vLLM's IterationStats, or None if no request got a token."""
        self.last_sign = time.monotonic()
        if iteration:
            self.output_tokens += iteration.num_generation_tokens
