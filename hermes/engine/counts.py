"""What the engine itself counts: tokens, preemptions, and when it last computed something."""

import time
from dataclasses import dataclass, field
from typing import Any


@dataclass
class EngineCounts:
    """Of all requests since the start."""

    prompt_tokens: int = 0
    output_tokens: int = 0
    preemptions: int = 0  # a request that had to give its KV cache to others, and is computed again later
    last_sign: float = field(default_factory=time.monotonic)  # time.monotonic() of the last step that was reported

    def add(self, iteration: Any) -> None:
        """One step of the engine: vLLM's IterationStats, or None of a step that gave nobody a token."""
        self.last_sign = time.monotonic()
        if iteration:
            self.prompt_tokens += iteration.num_prompt_tokens
            self.output_tokens += iteration.num_generation_tokens
            self.preemptions += iteration.num_preempted_reqs
