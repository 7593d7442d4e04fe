"""Replicate's webhooks: signed POSTs that say what became of a prediction (https://www.standardwebhooks.com)."""

import asyncio
import base64
import hmac
import logging
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, Literal

import httpx
from standardwebhooks import Webhook

from hermes.environment import tls
from hermes.gateway.bodies import Bodies
from hermes.gateway.destinations import Busy, Destination, Destinations, Forbidden, Unresolved
from hermes.gateway.memory import Memory
from hermes.gateway.pool import Pool
from hermes.gateway.predictions import Predictions
from hermes.gateway.problems import Problem
from hermes.gateway.run import Hook, Run
from hermes.gateway.runs import Runs
from hermes.gateway.settings import GatewaySettings
from hermes.gateway.store import Store
from hermes.gateway.upstream import is_replicate, replicate_url

log = logging.getLogger(__name__)
Events = Literal["start", "output", "logs", "completed"]
START = "start"

BETWEEN_SECONDS = 0.5  # two of output and logs
TRIES = 4  # of the last one
SECOND_TRY_SECONDS = 1.0  # after the first; it doubles for each further one
SEND_SECONDS = 10.0
CONNECT_SECONDS = 4.0
CLOSE_SECONDS = 2.0  # for what is under way when the gateway stops
AT_ONCE = 16  # that are sent, for one token
MAX_UNDELIVERED = 200  # predictions of one token, running or ended, whose webhook is not delivered yet


class Webhooks:
    """What sends them. They are disabled unless the operator lists where they may go."""

    def __init__(self, settings: GatewaySettings, pool: Pool, store: Store, runs: Runs, bodies: Bodies, memory: Memory):
        """Args:
        settings: say which hosts are allowed.
        pool: its upstreams are never sent a webhook.
        store: has those that were not delivered before the gateway ended, and the key for signatures.
        runs: have what is sent.
        bodies: has the threads where large ones are written.
        memory: counts what is being sent.
        """
        self._memory = memory
        self._base = settings.urls[0]
        self._destinations = Destinations(settings.webhooks, lambda: [*settings.urls, *_upstream_urls(pool)])
        self._enabled = bool(settings.webhooks)
        self._key, self._store, self._runs, self._bodies = store.secret(), store, runs, bodies
        self._predictions = Predictions(settings.model, bodies)
        self._http = httpx.AsyncClient(
            timeout=httpx.Timeout(SEND_SECONDS, connect=CONNECT_SECONDS),
            # a connection is to an address: one that was checked for this webhook, and for no other host
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
            follow_redirects=False,
            trust_env=False,  # a proxy would look up the name again
            verify=tls(),
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self._undelivered: Counter[str] = Counter()  # by the name of the token
        self._slots: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(AT_ONCE))

    def secret(self, owner: str) -> str:
        """Returns the secret for the signatures of a token's webhooks; it stays while the store does."""
        key = hmac.digest(self._key, b"webhooks of " + owner.encode(errors="surrogatepass"), "sha256")
        return f"whsec_{base64.b64encode(key).decode()}"

    async def require_allowed(self, url: str, owner: str) -> None:
        """Raises Problem if webhooks may not go there, or too many of this token wait for receivers or lookups."""
        if self._undelivered[owner] >= MAX_UNDELIVERED:
            what = f"{self._undelivered[owner]} webhooks of this token are not delivered yet, as many as may"
            raise Problem(429, f"webhook: {what}; see to their receivers", code="too_many_webhooks", retry_after=10)
        try:
            await self._destinations.find(url, owner)
        except (Forbidden, Unresolved) as why:
            raise Problem(422, f"webhook: {why}", param="webhook") from why
        except Busy as why:
            raise Problem(503, f"webhook: {why}", param="webhook", code="lookups_busy", retry_after=5) from why

    def follow(self, run: Run, base: str) -> None:
        """Send what happens to a kept prediction to its webhook; `base` is the gateway's URL, as its client has it."""
        if run.webhook:
            self._begin(self._follow(run, run.webhook, base))

    async def resume(self) -> None:
        """Begin to send what was not delivered when the gateway last ended."""
        undelivered = await self._store.undelivered()
        if undelivered and not self._enabled:
            log.warning("gateway: %s webhooks of earlier are not delivered: they are disabled", len(undelivered))
            return
        backlog: defaultdict[str, list[tuple[str, Hook]]] = defaultdict(list)
        for run_id, owner, hook in undelivered:
            backlog[owner].append((run_id, hook))
        for owner, theirs in backlog.items():
            left = iter(theirs)
            for _ in theirs[:AT_ONCE]:
                self._begin(self._resend(owner, left))

    async def close(self) -> None:
        """Stop sending, after a moment for those that ended just now. The store has the others."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_SECONDS)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._destinations.close()
        await self._http.aclose()

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _resend(self, owner: str, left: Iterator[tuple[str, Hook]]) -> None:
        for run_id, hook in left:
            with self._counted(owner):
                await self._deliver(run_id, owner, hook, self._base)

    async def _follow(self, run: Run, hook: Hook, base: str) -> None:
        run_id, owner = run.id, run.owner
        with self._counted(owner):
            try:
                await self._tell(run, hook, base)
            except Forbidden as why:
                await self._end(run_id, str(why))
                return
            except Exception as error:  # a bug; its text may quote a prompt
                log.error("gateway: run %s: its webhook before the end: %s", run_id, type(error).__name__)  # noqa: TRY400
            await run.end()
            del run  # it may be megabytes
            if hook.wants_end:
                await self._deliver(run_id, owner, hook, base)

    @contextmanager
    def _counted(self, owner: str) -> Iterator[None]:
        self._undelivered[owner] += 1
        try:
            yield
        finally:
            self._undelivered[owner] -= 1

    async def _tell(self, run: Run, hook: Hook, base: str) -> None:
        """What happens until the end."""
        wanted = hook.events or (START, "output", "logs")
        if START in wanted:
            await self._say(run, hook, base, START)
        pieces, logs, sent = 0, 0, 0
        while not run.ended:
            change = run.change
            grown = ("output" in wanted and len(run.output) > pieces) or ("logs" in wanted and len(run.logs) > logs)
            if grown:
                pieces, logs, sent = len(run.output), len(run.logs), sent + 1
                await self._say(run, hook, base, str(sent))
                await asyncio.sleep(BETWEEN_SECONDS)
            else:
                await change.wait()

    async def _say(self, run: Run, hook: Hook, base: str, event: str) -> None:
        """Send an event before the last, once, if a slot is free: a later one has what it had."""
        slots = self._slots[run.owner]
        if slots.locked():
            return  # a run that waited would be held uncounted, after its end too
        async with slots:
            with suppress(Unresolved):
                await self._send(run, hook, base, event)

    async def _deliver(self, run_id: str, owner: str, hook: Hook, base: str) -> None:
        """Send the last event of an ended prediction, until it is taken or cannot be."""
        try:
            try:
                problem = await self._try(run_id, owner, hook, base)
            except Forbidden as why:
                problem = str(why)
            await self._end(run_id, problem)
        except (Unresolved, Problem) as why:  # there is no DNS, or the store cannot be read
            log.warning("gateway: run %s: its webhook is sent at the next start: %s", run_id, why)
        except Exception as error:  # a bug; its text may quote a prompt
            name = type(error).__name__
            log.error("gateway: run %s: its webhook is sent at the next start: %s", run_id, name)  # noqa: TRY400

    async def _try(self, run_id: str, owner: str, hook: Hook, base: str) -> str | None:
        """Returns why the last event was not taken, or None. The prediction is read for each try."""
        run: Run | None
        problem = None
        for left in reversed(range(TRIES)):
            try:
                async with self._slots[owner]:  # before the prediction is read: a token may have hundreds
                    if (run := await self._runs.find(run_id, owner)) is None:
                        return "the prediction is no longer kept"
                    if not (problem := await self._send(run, hook, base, "completed")):
                        return None
            except Unresolved:
                if not left:
                    raise
            run = None  # it may be megabytes
            if left:
                await asyncio.sleep(SECOND_TRY_SECONDS * 2 ** (TRIES - 1 - left))
        return f"{TRIES} tries failed, the last one with: {problem}"

    async def _end(self, run_id: str, problem: str | None) -> None:
        """Nothing more is sent for a prediction."""
        if problem:
            log.warning("gateway: run %s: webhook not delivered: %s", run_id, problem)
        try:
            await self._store.delivered(run_id)
        except sqlite3.Error as error:
            log.warning("gateway: run %s: its webhook: it may be sent again: %s", run_id, error)

    async def _send(self, run: Run, hook: Hook, base: str, event: str) -> str | None:
        """Returns why it was not taken, or None. Raises Forbidden if it may not go there any more, and Unresolved."""
        to = await self._destinations.find(hook.url, run.owner, patient=True)
        content = await self._predictions.one(run, base, starting=event == START)
        message_id, secret = f"msg_{run.id}_{event}", self.secret(run.owner)  # the same at each try, for receivers
        now = datetime.now(UTC)
        signature = await self._bodies.in_thread(
            len(content), lambda: Webhook(secret).sign(message_id, now, content.decode()), run.owner
        )
        headers = {
            "Content-Type": "application/json",
            "webhook-id": message_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": signature,
        }
        held = run.size + len(content)
        self._memory.add(held, run.owner)
        try:
            return await self._post(to, content, headers)
        finally:
            self._memory.give_back(held, run.owner)

    async def _post(self, to: Destination, content: bytes, headers: dict[str, str]) -> str | None:
        """Returns why it was not taken, or None."""
        problem = "no connection"
        headers = headers | {"Host": to.url.netloc.decode()}
        try:
            async with asyncio.timeout(SEND_SECONDS):
                for address in to.addresses:
                    try:
                        async with self._http.stream(
                            "POST",
                            to.url.copy_with(host=str(address)),
                            content=content,
                            headers=headers,
                            extensions={"sni_hostname": to.host},
                        ) as response:  # its body, of whatever length, is not read
                            return None if response.is_success else f"it answered {response.status_code}"
                    except (httpx.ConnectError, httpx.ConnectTimeout):
                        continue  # such as IPv6 where there is none
        except (httpx.HTTPError, TimeoutError) as error:
            problem = str(error) or type(error).__name__
        return problem


def _upstream_urls(pool: Pool) -> Iterator[str]:
    for backend in pool.backends:
        name = backend.upstream.name
        if is_replicate(name):
            yield replicate_url()
        elif "://" in name:
            yield name
