"""Replicate's API (https://replicate.com/docs/reference/http), over runs. Each token sees its own."""

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from hermes.client.cog import Json, given
from hermes.gateway.bodies import SMALL, Bodies
from hermes.gateway.caller import Caller, caller_of
from hermes.gateway.events import EVENT_STREAM, NO_CACHE, PING_SECONDS
from hermes.gateway.inputs import InputCheck
from hermes.gateway.memory import Memory
from hermes.gateway.predictions import Predictions, time
from hermes.gateway.problems import Problem, of_failed
from hermes.gateway.replicate_headers import cancel_after, last_event, wait_seconds
from hermes.gateway.run import Hook, Run
from hermes.gateway.runs import Runs
from hermes.gateway.settings import GatewaySettings
from hermes.gateway.webhooks import Events, Webhooks
from hermes.text import shortened

PAGE, PAGE_BYTES = 100, 2 * 2**20
MAX_REFERENCE = 300  # characters of owner/name:version
MAX_ID = 64  # characters
BATCH = 200  # pieces of a stream at once
LINE_ENDS = re.compile("\r\n|[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")  # where replicate's client ends a line


class Create(BaseModel):
    """The body that makes a prediction. Unknown fields are let through."""

    model_config = ConfigDict(strict=True, extra="ignore")

    input: Json = {}
    version: Annotated[str, Field(max_length=MAX_REFERENCE)] | None = None
    webhook: str | None = None
    webhook_completed: str | None = None
    webhook_events_filter: Annotated[list[Events], Field(max_length=10)] | None = None

    @property
    def hook(self) -> Hook | None:
        """The webhook that is asked for."""
        only = () if self.webhook else ("completed",)
        url = self.webhook or self.webhook_completed
        return Hook(url, tuple(self.webhook_events_filter or only)) if url else None


@dataclass(frozen=True)
class Creation:
    """A prediction to be made."""

    inputs: bytes
    version: str  # its id
    hook: Hook | None


class ReplicateApi:
    """The endpoints. The model has one version, whose id is the SHA-256 of its OpenAPI document."""

    def __init__(
        self,
        settings: GatewaySettings,
        runs: Runs,
        bodies: Bodies,
        webhooks: Webhooks,
        document: Callable[[], Json],
        check: Callable[[], InputCheck],
        memory: Memory,
    ):
        """Args:
        settings: the names of the model.
        runs: begins and keeps the predictions.
        bodies: reads requests, and has the threads for what is large.
        webhooks: sends them.
        document: returns the OpenAPI document of the upstreams; raises Problem while none was ready.
        check: of the inputs that the upstreams take; raises Problem likewise.
        memory: counts inputs whose webhook is being looked up.
        """
        self._settings, self._runs, self._bodies, self._webhooks = settings, runs, bodies, webhooks
        self._document, self._check, self._memory = document, check, memory
        self._predictions = Predictions(settings.model, bodies)
        self._began = datetime.now(UTC)
        self._version_id: tuple[Json, str] | None = None

    async def create(self, request: Request) -> Response:
        """POST /v1/predictions, /v1/models/{owner}/{name}/predictions and /v1/deployments/... likewise."""
        seconds = wait_seconds(request.headers.getlist("prefer"))
        deadline = cancel_after(request.headers.getlist("cancel-after"))
        path = "/".join(request.path_params.values())
        creation = await self._bodies.read(request, lambda value: self._creation(path, value))
        caller, base = caller_of(request), request.state.base
        if creation.hook:
            self._memory.take(len(creation.inputs))  # its DNS may take seconds
            try:
                await self._webhooks.require_allowed(creation.hook.url, caller.token)
            finally:
                self._memory.give_back(len(creation.inputs))
        run = self._runs.start(
            creation.inputs, caller, version=creation.version, kept=True, hook=creation.hook, cancel_after=deadline
        )
        await self._runs.stored(run)
        self._webhooks.follow(run, base)
        headers = {"Preference-Applied": "wait"} if seconds else {}
        if seconds:
            with suppress(TimeoutError):  # the client goes on to ask for it
                async with asyncio.timeout(seconds):
                    await run.end()
        if run.retry_after:
            raise of_failed(run)
        return _json(await self._predictions.one(run, base, starting=True), 201, headers)

    async def get(self, request: Request) -> Response:
        """GET /v1/predictions/{id}."""
        run = await self._find(request)
        return _json(await self._predictions.one(run, request.state.base))

    async def list(self, request: Request) -> Response:
        """GET /v1/predictions: those of the token, the newest first, PAGE at a time."""
        parameters = request.query_params.multi_items()
        for name, _ in parameters:
            if name != "cursor" or len(parameters) > 1:
                said = shortened(repr(name), MAX_ID)
                raise Problem(
                    400, f"{said} is no filter of this gateway's list; send one cursor, or nothing", param=name
                )
        cursor = request.query_params.get("cursor", "")[:MAX_ID] or None
        owner, base = caller_of(request).token, request.state.base
        try:
            runs, following = await self._runs.page(owner, cursor, PAGE, PAGE_BYTES)
        except KeyError:
            raise Problem(400, "cursor: the prediction is no longer here; begin without one", param="cursor") from None
        url = f"{base}/v1/predictions?cursor={following}" if following else None
        return _json(await self._predictions.page(runs, base, url))

    async def cancel(self, request: Request) -> Response:
        """POST /v1/predictions/{id}/cancel."""
        run = await self._find(request)
        await self._runs.cancel(run)
        return _json(await self._predictions.one(run, request.state.base))

    async def stream(self, request: Request) -> Response:
        """GET /stream/{id}/{secret}, the address in urls.stream. Who knows it may read, and come back."""
        run_id, secret = request.path_params["id"], request.path_params["secret"]
        run = await self._runs.find_by_secret(run_id, secret) if len(run_id) <= MAX_ID else None
        if not run:
            raise Problem(404, "there is no such stream")
        start = last_event(request.headers.get("last-event-id", ""))
        return StreamingResponse(self._events(run, *start), media_type=EVENT_STREAM, headers=NO_CACHE)

    async def models(self, request: Request) -> Response:
        """GET /v1/models, for both dialects: OpenAI's `data`, Replicate's `results`."""
        data = [self._entry(name) for name in self._settings.names]
        return JSONResponse({"object": "list", "data": data, **page([self._model(request.state.base)])})

    async def model(self, request: Request) -> Response:
        """GET /v1/models/{owner}/{name}, or /v1/models/{alias} as OpenAI's client asks."""
        name = "/".join(request.path_params.values())
        self._known(name)
        described = self._model(request.state.base) if "owner" in request.path_params else {}
        return JSONResponse(described | self._entry(name))

    async def versions(self, request: Request) -> Response:
        """GET /v1/models/{owner}/{name}/versions."""
        self._known("/".join(request.path_params.values()))
        return JSONResponse(page([self._version()]))

    async def version(self, request: Request) -> Response:
        """GET /v1/models/{owner}/{name}/versions/{id}."""
        self._known("{owner}/{name}:{id}".format(**request.path_params))
        return JSONResponse(self._version())

    async def deployment(self, request: Request) -> Response:
        """GET /v1/deployments/{owner}/{name}."""
        name = "/".join(request.path_params.values())
        version = self._known(name)
        owner, _, short = name.partition("/")
        release = {
            "number": 1,
            "model": self._settings.model,
            "version": version,
            "created_at": time(self._began),
            "created_by": _account(caller_of(request)),
            "configuration": {"hardware": "local", "min_instances": 1, "max_instances": 1},
        }
        return JSONResponse({"owner": owner, "name": short, "current_release": release})

    async def account(self, request: Request) -> Response:
        """GET /v1/account."""
        return JSONResponse(_account(caller_of(request)))

    async def webhook_secret(self, request: Request) -> Response:
        """GET /v1/webhooks/default/secret: the token's own."""
        return JSONResponse({"key": self._webhooks.secret(caller_of(request).token)})

    @property
    def version_id(self) -> str:
        """The id of the version. It changes with the document: an upstream may come back as another version."""
        document = self._document()
        if not (self._version_id and self._version_id[0] is document):
            digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
            self._version_id = document, digest
        return self._version_id[1]

    def _creation(self, path: str, value: Any) -> Creation:
        """What a body asks for; `path` may name the model. It runs in a thread."""
        body = Create.model_validate(value)
        if not (references := [each for each in (path, body.version) if each]):
            raise Problem(422, "version: is missing; send the id of a version, or owner/name", param="version")
        version = [self._known(each) for each in references][-1]
        inputs = self._check().written(given(body.input), status=422, at="input.")
        return Creation(inputs, version, body.hook)

    def _known(self, reference: str) -> str:
        """Returns the id of the version. Raises Problem unless the reference is it, the model, or model:version."""
        name, _, version = reference.partition(":")
        current = self.version_id
        if not (reference == current or (name in self._settings.names and version in ("", current))):
            said = shortened(repr(reference), MAX_REFERENCE)
            raise Problem(404, f"there is no {said} here; there is {self._settings.model}:{current}")
        return current

    async def _find(self, request: Request) -> Run:
        """The prediction of that id, if it is the token's."""
        run_id = request.path_params["id"]
        run = await self._runs.find(run_id, caller_of(request).token) if len(run_id) <= MAX_ID else None
        if not run:
            said = shortened(repr(run_id), MAX_ID)
            hours = f"{self._settings.keep / 3600:g} h"
            raise Problem(404, f"there is no prediction {said}; the gateway keeps one for {hours} after its end")
        return run

    def _entry(self, name: str) -> Json:
        """The model as OpenAI's API has it."""
        owner = self._settings.model.partition("/")[0]
        return {"id": name, "object": "model", "created": int(self._began.timestamp()), "owned_by": owner}

    def _model(self, base: str) -> Json:
        """The model as Replicate's API has it."""
        owner, _, name = self._settings.model.partition("/")
        return {
            "url": f"{base}/",
            "owner": owner,
            "name": name,
            "description": "A Hermes chat model behind this gateway.",
            "visibility": "private",
            "github_url": None,
            "paper_url": None,
            "license_url": None,
            "run_count": 0,  # of everybody, which is told to nobody; clients want a number
            "cover_image_url": None,
            "default_example": None,
            "is_official": False,
            "latest_version": self._version(),
        }

    def _version(self) -> Json:
        document = self._document()
        return {
            "id": self.version_id,
            "created_at": time(self._began),
            "cog_version": document["info"]["version"],
            "openapi_schema": document,
        }

    async def _events(self, run: Run, pieces: int, logs: int) -> AsyncIterator[str]:
        """The events of a stream, from so many pieces and characters of the logs on.

        Replicate's client drops everything until an event has an id, and raises at an event that it does not know.
        """
        while True:
            changed = run.change
            more, said = run.output[pieces : pieces + BATCH], run.logs[logs:]
            if more or said:
                size = sum(map(len, more)) + len(said)
                begin = pieces, logs
                if size <= SMALL:
                    yield _written(more, said, *begin)
                else:
                    yield await self._bodies.in_thread(size, lambda: _written(more, said, *begin))  # noqa: B023
                pieces, logs = pieces + len(more), logs + len(said)
                await asyncio.sleep(0)  # a reader that is fast would keep the event loop
            elif run.ended:
                break
            else:
                try:
                    async with asyncio.timeout(PING_SECONDS):
                        await changed.wait()
                except TimeoutError:
                    yield ": ping\n\n"
        if run.status == "failed":
            yield _event("error", f"{pieces}:{logs}", json.dumps({"detail": run.error}))
        yield _event("done", f"{pieces}:{logs}", json.dumps({"reason": "canceled"} if run.status == "canceled" else {}))


def page(results: Sequence[Mapping[str, Any]]) -> Json:
    """Returns the only page of one of Replicate's lists."""
    return {"previous": None, "next": None, "results": list(results)}


def _account(caller: Caller) -> Json:
    name = caller.token or "local"
    return {"type": "user", "username": name, "name": "This gateway", "github_url": None, "avatar_url": None}


def _json(body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(body, status, headers, media_type="application/json")


def _written(pieces: Sequence[str], said: str, number: int, logs: int) -> str:
    """The events of some pieces of the output after `number`, and of what the logs have after `logs`."""
    events = [_event("output", f"{number + index}:{logs}", piece) for index, piece in enumerate(pieces, 1)]
    if said:
        events.append(_event("logs", f"{number + len(pieces)}:{logs + len(said)}", said))
    return "".join(events)


def _event(name: str, event_id: str, text: str) -> str:
    data = "\n".join(f"data: {line}" for line in LINE_ENDS.split(text))
    return f"event: {name}\nid: {event_id}\n{data}\n\n"
