"""Responses whose bytes are counted until they are sent: a client may read slowly, or not at all."""

from collections.abc import Mapping

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from hermes.gateway.memory import Memory

PART = 32 * 2**10  # bytes; the server waits before it takes one while its buffers are full


class CountedResponse(Response):
    """A response of JSON. Where the memory is full, its place is taken by a 429."""

    media_type = "application/json"

    def __init__(
        self,
        content: bytes,
        memory: Memory,
        owner: str,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        *,
        always: bool = False,
    ):
        """Args:
        content: the JSON.
        memory: counts it.
        owner: the name of the token that asked.
        status: of the response.
        headers: of the response.
        always: sends it even if the memory is full: it says what was done.
        """
        super().__init__(content, status, headers)
        self._memory, self._owner, self._always = memory, owner, always

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Send it, in parts. Raises Problem if the memory is full."""
        size = len(self.body)
        (self._memory.add if self._always else self._memory.take)(size, self._owner)
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            for at in range(0, size, PART):
                await send({"type": "http.response.body", "body": self.body[at : at + PART], "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            self._memory.give_back(size, self._owner)
