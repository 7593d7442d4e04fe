"""A response that has not begun. It can be written to a function, or be read piece by piece."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass

Put = Callable[[str], object]  # takes a piece


@dataclass(frozen=True)
class Response:
    """Joined, the pieces are exactly the text of the response. To write or read it twice would generate it twice."""

    write_to: Callable[[Put], Awaitable[None]]  # the work; it raises what ends the response

    async def __aiter__(self) -> AsyncGenerator[str, None]:
        """The pieces. To close the generator ends the response."""
        pieces: asyncio.Queue[str | None] = asyncio.Queue()
        writing = asyncio.ensure_future(self.write_to(pieces.put_nowait))
        writing.add_done_callback(lambda _: pieces.put_nowait(None))
        try:
            while (piece := await pieces.get()) is not None:
                yield piece
            await writing
        finally:
            writing.cancel()
            await asyncio.wait([writing])
            if not writing.cancelled():
                writing.exception()  # whoever has left does not ask for it
            del writing  # the traceback of its error leads to this frame and to the inputs, which may be megabytes
