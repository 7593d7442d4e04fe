"""A predictor without an engine: it yields numbered pieces at a steady pace, through our relay."""

import asyncio
from pathlib import Path
from typing import Optional

from cog import AsyncConcatenateIterator, BasePredictor, Input, concurrent, current_scope, streaming

from hermes.serving.relay import relayed
from hermes.serving.response import Response


class Predictor(BasePredictor):
    async def setup(self) -> None:
        self.running = 0
        self.cancelled = 0

    @streaming
    @concurrent(max=4)
    @relayed
    async def predict(
        self,
        name: str = Input(description="What to call the pieces", default="piece"),
        count: int = Input(description="How many pieces", default=5, ge=0),
        pause: float = Input(description="Seconds before each", default=0.05),
        gate: Optional[str] = Input(description="Piece n waits for the file of this name and n - 1", default=None),
        fail_at: Optional[int] = Input(description="Raise instead of yielding this piece", default=None),
    ) -> AsyncConcatenateIterator[str]:
        scope = current_scope()

        async def write_to(put):
            self.running += 1
            try:
                for number in range(count):
                    await asyncio.sleep(pause)
                    while number and gate and not Path(f"{gate}{number - 1}").exists():
                        await asyncio.sleep(0.01)
                    if number == fail_at:
                        raise ValueError(f"failed at {number}")
                    put(f"{name} {number};")
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
            finally:
                self.running -= 1
                scope.record_metric("pieces", count)
                scope.record_metric("running", self.running)
                scope.record_metric("cancelled_so_far", self.cancelled)

        return Response(write_to)
