"""A prediction of the gateway: what was asked, and what came of it so far."""

import asyncio
import secrets
import sys
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from hermes.chat.finish_reason import UNFINISHED
from hermes.client.cog import Json
from hermes.gateway.caller import Caller
from hermes.gateway.upstream import Upstream

Status = Literal["starting", "processing", "succeeded", "failed", "canceled"]

NOBODY = Caller()

# replicate's client makes a file of any piece that begins so, and fails to print it.
LIKE_A_FILE = ("https:", "data:")


@dataclass(frozen=True)
class Hook:
    """A webhook that a client asked for."""

    url: str
    events: tuple[str, ...]  # none: all of them

    @property
    def wants_end(self) -> bool:
        """Whether the end of the prediction is one of its events."""
        return not self.events or "completed" in self.events


@dataclass(frozen=True)
class Outcome:
    """How a prediction ended."""

    status: Status
    error: str | None = None
    refused: bool = False
    retry_after: int | None = None
    metrics: Json = field(default_factory=dict)
    logs: str | None = None  # None: those that came while it ran


@dataclass(eq=False)
class Run:
    """One prediction."""

    inputs: bytes  # a compact JSON object; it may be a megabyte, so it is never parsed on the event loop
    caller: Caller = NOBODY
    version: str = ""
    kept: bool = False  # it is stored, and in its owner's list; otherwise it is gone with its end
    webhook: Hook | None = None
    id: str = field(default_factory=lambda: secrets.token_hex(13))
    secret: str = field(default_factory=lambda: secrets.token_urlsafe(32))  # of the address of its stream
    status: Status = "starting"
    output: list[str] = field(default_factory=list)
    logs: str = ""
    error: str | None = None
    refused: bool = False  # the error is about the inputs
    retry_after: int | None = None  # s; it got no slot
    metrics: Json = field(default_factory=dict)
    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    started: datetime | None = None  # when its first event came
    first: datetime | None = None  # when its first piece came
    ended: datetime | None = None
    upstream: Upstream | None = None  # while it is there
    change: asyncio.Event = field(default_factory=asyncio.Event, repr=False)  # set at the next change, then replaced
    # what Runs needs while it is in flight
    task: "asyncio.Task[Outcome] | None" = field(default=None, repr=False)
    added: "asyncio.Future[None] | None" = field(default=None, repr=False)  # its row is written
    begun_there: bool = False  # its present upstream has sent an event
    cancel_asked: bool = False
    abandoned: bool = False  # nobody reads it
    holds_place: bool = False  # it counts for its token after its end too, until `Runs.release` or one that follows
    held: int = 0  # bytes that are counted for it
    characters: int = 0  # of its output

    def __post_init__(self) -> None:
        self.characters = sum(map(len, self.output))

    @property
    def owner(self) -> str:
        """The name of the token that it belongs to."""
        return self.caller.token

    @property
    def upstream_id(self) -> str:
        """Its id at the upstream."""
        return f"{self.id}-{self.caller.request_id}" if self.caller.request_id else self.id

    @property
    def cut_off(self) -> bool:
        """Whether the model would have gone on."""
        return self.metrics.get("finish_reason") in UNFINISHED

    @property
    def size(self) -> int:
        """About how many bytes a reader gets."""
        return len(self.inputs) + self.characters + len(self.logs)

    def add(self, piece: str) -> int:
        """Take a piece of the response. Returns how many bytes of memory it takes."""
        self.first = self.first or datetime.now(UTC)
        begin = next((len(start) - 1 for start in LIKE_A_FILE if piece.startswith(start)), 0)
        pieces = [piece[:begin], piece[begin:]] if begin else [piece]
        self.output += pieces
        self.characters += len(piece)
        return sum(map(sys.getsizeof, pieces))

    def finish(self, outcome: Outcome, ended: datetime) -> None:
        """Take its end, and wake those who wait."""
        self.status, self.error, self.metrics = outcome.status, outcome.error, outcome.metrics
        self.refused, self.retry_after = outcome.refused, outcome.retry_after
        self.logs = self.logs if outcome.logs is None else outcome.logs
        self.ended = ended
        self.notify()

    def notify(self) -> None:
        """Wake those who wait for a change."""
        change, self.change = self.change, asyncio.Event()
        change.set()

    async def pieces(self) -> AsyncGenerator[str]:
        """The pieces, joined as they have come together, until the run has ended."""
        start = 0
        while True:
            change = self.change
            if start < len(self.output):
                text = "".join(self.output[start:])
                start = len(self.output)
                yield text
            elif self.ended:
                return
            else:
                await change.wait()

    async def begun(self) -> None:
        """Wait for the first piece, or for the end."""
        while not (self.output or self.ended):
            await self.change.wait()

    async def end(self) -> None:
        """Wait for the end."""
        while not self.ended:
            await self.change.wait()
