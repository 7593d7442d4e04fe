"""A predictor written the documented way: an async generator, with no relay."""

import asyncio

from cog import AsyncConcatenateIterator, BasePredictor, concurrent, streaming


class Predictor(BasePredictor):
    async def setup(self) -> None:
        pass

    @streaming
    @concurrent(max=4)
    async def predict(self, count: int = 5) -> AsyncConcatenateIterator[str]:
        for number in range(count):
            await asyncio.sleep(0.1)
            yield f"{number};"
