"""What a prediction reports about itself, however it ends."""

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from hermes.chat.finish_reason import FinishReason
from hermes.chat.record import typed_record
from hermes.chat.request import Request
from hermes.engine import Chunk


@dataclass
class Meter:
    """Counts one response."""

    request: Request | None = None  # None if the inputs are refused
    context_tokens: int | None = None  # of the model
    keeps_text: bool = False  # of every response; the text that is to be read is kept anyway
    started: float = field(default_factory=time.perf_counter)
    input_token_count: int | None = None
    dropped_turns: int = 0
    max_tokens: int | None = None  # that applied
    output_token_count: int = 0
    time_to_first_token: float | None = None
    finish_reason: FinishReason | None = None
    preemptions: int = 0
    code: str | None = None  # of the error that ended it
    text: list[str] = field(default_factory=list)
    tokenized: dict[str, Any] | None = None  # the prompt, where that is all that was asked for
    typed: list[tuple[str, Any]] = field(default_factory=list)  # metrics that describe the text

    def add(self, chunk: Chunk) -> None:
        """Count one step of the engine."""
        if self.time_to_first_token is None and chunk.token_count:
            self.time_to_first_token = self.seconds
        self.output_token_count += chunk.token_count
        self.finish_reason = chunk.finish_reason
        self.preemptions = max(self.preemptions, chunk.preemptions)
        if self.keeps_text or (self.request and self.request.constraint):
            self.text.append(chunk.text)

    @property
    def seconds(self) -> float:
        """Since the prediction began."""
        return time.perf_counter() - self.started

    def metrics(self) -> Iterator[tuple[str, Any]]:
        """The metrics that are known, by name."""
        if self.context_tokens is not None:
            yield "context_tokens", self.context_tokens
        if self.request is None:
            return
        yield "seed", self.request.sampling.seed
        if self.input_token_count is not None:
            yield "input_token_count", self.input_token_count
            yield "output_token_count", self.output_token_count
        if self.max_tokens is not None:
            yield "max_tokens", self.max_tokens
        if self.request.truncate:
            yield "dropped_turns", self.dropped_turns
        if self.time_to_first_token is not None:
            yield "time_to_first_token", round(self.time_to_first_token, 4)
            yield "tokens_per_second", round(self.output_token_count / self.seconds, 2)
        if self.tokenized is not None:
            yield "tokenized", self.tokenized
        if self.preemptions:
            yield "preemptions", self.preemptions
        if self.typed:
            yield from self.typed
        elif self.finish_reason is not None:
            yield "finish_reason", self.finish_reason

    async def read_text(self) -> None:
        """Read tool calls or JSON out of the response, in a thread: it may take a second."""
        request, text = self.request, "".join(self.text)
        if request and request.constraint:
            self.typed = await asyncio.to_thread(lambda: list(typed_record(request, text, self.finish_reason)))

    def line(self) -> dict[str, Any]:
        """The prediction's line in the log: counts, times and how it ended. It holds no text of client or model."""
        return {
            "input_tokens": self.input_token_count,
            "output_tokens": self.output_token_count,
            "time_to_first_token": self.time_to_first_token and round(self.time_to_first_token, 4),
            "seconds": round(self.seconds, 4),
            "finish_reason": self.finish_reason,
            "code": self.code,
            "preemptions": self.preemptions,
        }

    def record(self, take: Callable[[str, Any], object]) -> None:
        """Hand over the metrics, each with its name."""
        for name, value in self.metrics():
            take(name, value)
