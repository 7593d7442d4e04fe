"""Replicate's webhooks: signed POSTs that say what became of a run (https://www.standardwebhooks.com)."""

import asyncio
import base64
import json
import logging
import secrets
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from typing import Literal

import httpx
from standardwebhooks import Webhook

from hermes.client.cog import Json, tls
from hermes.gateway.problems import Problem
from hermes.gateway.run import Run
from hermes.gateway.settings import is_loopback

log = logging.getLogger(__name__)
Events = Literal["start", "output", "logs", "completed"]

BETWEEN_SECONDS = 0.5  # two of output and logs
TRIES = 4  # of the last one; the wait doubles from a second on


class Webhooks:
    """What sends them. They go to this machine only, unless others are allowed: a URL is a client's to choose."""

    def __init__(self, *, anywhere: bool):
        self.secret = f"whsec_{base64.b64encode(secrets.token_bytes(24)).decode()}"
        self._anywhere = anywhere
        self._http = httpx.AsyncClient(timeout=10, follow_redirects=False, verify=tls())
        self._tasks: set[asyncio.Task[None]] = set()

    def require_allowed(self, url: str) -> None:
        """Raises Problem if webhooks may not go there."""
        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise Problem(422, f"webhook: {error}", param="webhook") from error
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise Problem(422, "webhook: has to be an http or https URL", param="webhook")
        if not (self._anywhere or is_loopback(parsed.host)):
            raise Problem(
                422,
                f"webhook: {parsed.host} is another machine; start the gateway with --webhooks-anywhere",
                param="webhook",
            )

    def follow(self, run: Run, url: str, events: Collection[Events], body: Callable[[], Json]) -> None:
        """Send what happens to a run, or only those events. `body` gives the prediction as it is."""
        task = asyncio.create_task(self._follow(run, url, events, body))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Stop sending."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._http.aclose()

    async def _follow(self, run: Run, url: str, events: Collection[Events], body: Callable[[], Json]) -> None:
        wanted = events or ("start", "output", "logs", "completed")
        if "start" in wanted:
            await self._send(url, run.id, body())
        pieces, logs = 0, 0
        while not run.ended:
            change = run.change
            grown = ("output" in wanted and len(run.output) > pieces) or ("logs" in wanted and len(run.logs) > logs)
            if grown:
                pieces, logs = len(run.output), len(run.logs)
                await self._send(url, run.id, body())
                await asyncio.sleep(BETWEEN_SECONDS)
            else:
                await change.wait()
        if "completed" in wanted:
            wait = 1
            for _ in range(TRIES):
                if await self._send(url, run.id, body()):
                    return
                await asyncio.sleep(wait)
                wait *= 2
            log.warning("gateway: run %s: its webhook did not take the last event", run.id)

    async def _send(self, url: str, run_id: str, body: Json) -> bool:
        """Whether it arrived."""
        content, now = json.dumps(body), datetime.now(UTC)
        message_id = f"msg_{run_id}_{secrets.token_hex(6)}"
        headers = {
            "Content-Type": "application/json",
            "webhook-id": message_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": Webhook(self.secret).sign(message_id, now, content),
        }
        try:
            return (await self._http.post(url, content=content, headers=headers)).is_success
        except httpx.HTTPError:
            return False
