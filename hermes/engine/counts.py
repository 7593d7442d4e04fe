"""What the engine itself counts: its tokens, and when it last computed something."""

import time
from dataclasses import dataclass
from typing import Any


@dataclass
class EngineCounts:
    """Of all requests since the start."""

    output_tokens: int = 0
    last_sign: float | None = None  # time.monotonic() of the last step that was reported

    def add(self, iteration: Any) -> None:
        """One step of the engine: vLLM's IterationStats, or None of a step that gave nobody a token."""
        self.last_sign = time.monotonic()
        if iteration:
            self.output_tokens += iteration.num_generation_tokens
