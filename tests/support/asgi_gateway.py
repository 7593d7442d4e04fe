"""A gateway in the test's own process and event loop, with an upstream that says what the test tells it to."""

import asyncio
from contextlib import asynccontextmanager

import httpx

from hermes.gateway import GatewaySettings
from hermes.gateway.app import Gateway

INPUT = {"prompt": {"type": "string"}, "temperature": {"type": "number", "maximum": 2}}
DOCUMENT = {
    "info": {"version": "0.1"},
    "components": {"schemas": {"Input": {"type": "object", "properties": INPUT}}},
}


class FakeUpstream:
    """Says the pieces of a prediction; with `hold`, it waits for `go` before the end."""

    def __init__(self, *pieces, hold=False, document=DOCUMENT, name="http://127.0.0.1:9", logs="", metrics=None):
        self.name, self.slots = name, 100
        self.pieces, self.description = pieces or ("Hel", "lo"), document
        self.end = {"status": "succeeded", "metrics": metrics or {"output_token_count": 2}, "logs": logs}
        self.go = asyncio.Event()
        if not hold:
            self.go.set()

    async def ready(self):
        return True

    async def document(self):
        return self.description

    async def run(self, run_id, inputs):
        for piece in self.pieces:
            yield "output", {"chunk": piece}
        await self.go.wait()
        yield "completed", self.end

    async def cancel(self, run_id):
        self.end = {"status": "canceled"}
        self.go.set()

    async def close(self):
        pass


@asynccontextmanager
async def serving(upstream=None, base="http://127.0.0.1:8000", **settings):
    """A gateway that is ready, as (gateway, client)."""
    gateway = Gateway(GatewaySettings(**{"tokens": (), **settings}), [upstream or FakeUpstream()])
    app = gateway.app()
    async with gateway._lifespan(app):
        while not gateway.pool.document:
            await asyncio.sleep(0)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=base) as client:
            yield gateway, client
