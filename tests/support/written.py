"""Predict methods of tests."""

import functools

from hermes.serving.response import Response


def written(pieces):
    """A method that is an async generator, as one that returns a Response."""

    @functools.wraps(pieces)
    async def predict(self, **inputs):
        async def write_to(put):
            async for piece in pieces(self, **inputs):
                put(piece)

        return Response(write_to)

    return predict
