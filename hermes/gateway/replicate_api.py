"""Replicate's API (https://replicate.com/docs/reference/http), over runs. Each token sees its own."""

import asyncio
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from hermes.client.cog import Json, given
from hermes.gateway.bodies import Bodies
from hermes.gateway.caller import Caller, caller_of
from hermes.gateway.context import Context
from hermes.gateway.counted import CountedResponse
from hermes.gateway.inputs import InputCheck
from hermes.gateway.memory import Memory
from hermes.gateway.predictions import Predictions, time
from hermes.gateway.problems import Problem, of_failed
from hermes.gateway.replicate_headers import cancel_after, last_event, wait_seconds
from hermes.gateway.run import Hook, Run
from hermes.gateway.runs import Runs
from hermes.gateway.settings import GatewaySettings
from hermes.gateway.streams import Streams
from hermes.gateway.turns import Turns
from hermes.gateway.webhooks import Events, Webhooks
from hermes.text import shortened

PAGE, PAGE_BYTES = 100, 2 * 2**20
MAX_REFERENCE = 300  # characters of owner/name:version
MAX_ID = 64  # characters


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
        context: Context,
    ):
        """Args:
        settings: the names of the model.
        runs: begins and keeps the predictions.
        bodies: reads requests, and has the threads for what is large.
        webhooks: sends them.
        document: returns the OpenAPI document of the upstreams; raises Problem while none was ready.
        check: of the inputs that the upstreams take; raises Problem likewise.
        memory: counts inputs whose webhook is being looked up, and responses.
        context: knows the model's.
        """
        self._context = context
        self._settings, self._runs, self._bodies, self._webhooks = settings, runs, bodies, webhooks
        self._document, self._check, self._memory = document, check, memory
        self._predictions, self._streams = Predictions(settings.model, bodies), Streams(bodies, memory)
        self._turns = Turns()  # to read predictions from the store and write them: nothing counts them so long
        self._began = datetime.now(UTC)
        self._version_id: tuple[Json, str] | None = None

    async def create(self, request: Request) -> Response:
        """POST /v1/predictions, /v1/models/{owner}/{name}/predictions and /v1/deployments/... likewise."""
        seconds = wait_seconds(request.headers.getlist("prefer"))
        deadline = cancel_after(request.headers.getlist("cancel-after"))
        path = _reference(request)
        creation = await self._bodies.read(request, lambda value: self._creation(path, value))
        caller, base = caller_of(request), request.state.base
        if creation.hook:
            self._memory.take(len(creation.inputs), caller.token)  # its DNS may take seconds
            try:
                await self._webhooks.require_allowed(creation.hook.url, caller.token)
            finally:
                self._memory.give_back(len(creation.inputs), caller.token)
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
        async with self._turns.of(caller.token):
            written = await self._predictions.one(run, base, starting=True)
        return CountedResponse(written, self._memory, caller.token, 201, headers, always=True)

    async def get(self, request: Request) -> Response:
        """GET /v1/predictions/{id}."""
        owner = caller_of(request).token
        async with self._turns.of(owner):
            written = await self._predictions.one(await self._find(request), request.state.base)
        return CountedResponse(written, self._memory, owner)

    async def list(self, request: Request) -> Response:
        """GET /v1/predictions: those of the token, the newest first, PAGE at a time."""
        parameters = request.query_params.multi_items()
        for name, _ in parameters:
            if name != "cursor" or len(parameters) > 1:
                quoted = shortened(repr(name), MAX_ID)
                raise Problem(
                    400, f"{quoted} is no filter of this gateway's list; send one cursor, or nothing", param=name
                )
        cursor = request.query_params.get("cursor", "")[:MAX_ID] or None
        owner, base = caller_of(request).token, request.state.base
        async with self._turns.of((owner, "list")):
            try:
                runs, following = await self._runs.page(owner, cursor, PAGE, PAGE_BYTES)
            except KeyError:
                gone = "cursor: the prediction is no longer here; begin without one"
                raise Problem(400, gone, param="cursor") from None
            url = f"{base}/v1/predictions?cursor={following}" if following else None
            written = await self._predictions.page(runs, base, url)
        return CountedResponse(written, self._memory, owner)

    async def cancel(self, request: Request) -> Response:
        """POST /v1/predictions/{id}/cancel."""
        owner = caller_of(request).token
        async with self._turns.of(owner):
            run = await self._find(request)
            if run.ended:
                written = await self._predictions.one(run, request.state.base)
        if not run.ended:
            await self._runs.cancel(run)
            written = await self._predictions.one(run, request.state.base)
        return CountedResponse(written, self._memory, owner)

    async def stream(self, request: Request) -> Response:
        """GET /stream/{id}/{secret}, the address in urls.stream. Who knows it may read, and come back."""
        run_id, secret = request.path_params["id"], request.path_params["secret"]
        run = await self._runs.find_by_secret(run_id, secret) if len(run_id) <= MAX_ID else None
        if not run:
            raise Problem(404, "there is no such stream")
        return self._streams.response(run, *last_event(request.headers.get("last-event-id", "")))

    async def models(self, request: Request) -> Response:
        """GET /v1/models, for both dialects: OpenAI's `data`, Replicate's `results`. It has no OpenAPI document."""
        context = await self._context_tokens(request)
        data = [self._entry(name, context) for name in self._settings.names]
        results = [self._model(request.state.base, with_schema=False)]
        return JSONResponse({"object": "list", "data": data, **page(results)})

    async def model(self, request: Request) -> Response:
        """GET /v1/models/{owner}/{name}, or /v1/models/{alias} as OpenAI's client asks."""
        name = _reference(request)
        self._known(name)
        described = self._model(request.state.base) if "owner" in request.path_params else {}
        return JSONResponse(described | self._entry(name, await self._context_tokens(request)))

    async def versions(self, request: Request) -> Response:
        """GET /v1/models/{owner}/{name}/versions."""
        self._known(_reference(request))
        return JSONResponse(page([self._version()]))

    async def version(self, request: Request) -> Response:
        """GET /v1/models/{owner}/{name}/versions/{id}."""
        self._known("{owner}/{name}:{id}".format(**request.path_params))
        return JSONResponse(self._version())

    async def deployment(self, request: Request) -> Response:
        """GET /v1/deployments/{owner}/{name}."""
        name = _reference(request)
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
            quoted = shortened(repr(reference), MAX_REFERENCE)
            raise Problem(404, f"there is no {quoted} here; there is {self._settings.model}:{current}")
        return current

    async def _find(self, request: Request) -> Run:
        """The prediction of that id, if it is the token's."""
        run_id = request.path_params["id"]
        run = await self._runs.find(run_id, caller_of(request).token) if len(run_id) <= MAX_ID else None
        if not run:
            quoted = shortened(repr(run_id), MAX_ID)
            seconds = f"{self._settings.keep:g} s"
            raise Problem(404, f"there is no prediction {quoted}; the gateway keeps one for {seconds} after its end")
        return run

    async def _context_tokens(self, request: Request) -> int | None:
        return await self._context.tokens(self._runs, caller_of(request))

    def _entry(self, name: str, context: int | None) -> Json:
        """The model as OpenAI's API has it, with its context as vLLM's server has it."""
        owner = self._settings.model.partition("/")[0]
        entry = {"id": name, "object": "model", "created": int(self._began.timestamp()), "owned_by": owner}
        return entry | {"root": self._settings.model, "parent": None, "max_model_len": context}

    def _model(self, base: str, *, with_schema: bool = True) -> Json:
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
            "latest_version": self._version(with_schema=with_schema),
        }

    def _version(self, *, with_schema: bool = True) -> Json:
        document = self._document()
        return {
            "id": self.version_id,
            "created_at": time(self._began),
            "cog_version": document["info"]["version"],
            "openapi_schema": document if with_schema else {},
        }


def page(results: Sequence[Mapping[str, Any]]) -> Json:
    """Returns the only page of one of Replicate's lists."""
    return {"previous": None, "next": None, "results": list(results)}


def _reference(request: Request) -> str:
    """The name in a path: owner/name, an alias, or ""."""
    return "/".join(request.path_params.values())


def _account(caller: Caller) -> Json:
    name = caller.token or "local"
    return {"type": "user", "username": name, "name": "This gateway", "github_url": None, "avatar_url": None}
