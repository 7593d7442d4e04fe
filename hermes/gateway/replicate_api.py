"""Replicate's API (https://replicate.com/docs/reference/http), over runs."""

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from jsonschema import Draft202012Validator
from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from hermes.client.cog import Json, given
from hermes.gateway.openai_api import EVENT_STREAM, NO_CACHE, read_body
from hermes.gateway.problems import Problem, of_failed
from hermes.gateway.run import Run
from hermes.gateway.runs import Runs
from hermes.gateway.settings import GatewaySettings
from hermes.gateway.upstream import input_check
from hermes.gateway.webhooks import Events, Webhooks
from hermes.text import shortened

MAX_WAIT = 60.0  # s that `Prefer: wait` waits; replicate's clients stop reading half a second later
PING_SECONDS = 15.0
PAGE = 100
MAX_SAID = 300  # characters
LINE_ENDS = re.compile("\r\n|[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")  # where replicate's client ends a line


class Create(BaseModel):
    """The body that makes a prediction. Unknown fields are let through."""

    model_config = ConfigDict(strict=True, extra="ignore")

    input: Json = {}
    version: str | None = None
    webhook: str | None = None
    webhook_completed: str | None = None
    webhook_events_filter: list[Events] | None = None


class ReplicateApi:
    """The endpoints. The model has one version, whose id is the SHA-256 of its OpenAPI document."""

    def __init__(self, settings: GatewaySettings, runs: Runs, webhooks: Webhooks, document: Callable[[], Json]):
        self._settings, self._runs, self._webhooks, self._document = settings, runs, webhooks, document
        self._began = datetime.now(UTC)

    async def create(self, request: Request) -> Response:
        """POST /v1/predictions, /v1/models/{owner}/{name}/predictions and /v1/deployments/... likewise."""
        asked = await read_body(Create, request)
        version = asked.version or "/".join(request.path_params.values())
        if not version:
            raise Problem(422, "version: is missing; send the id of a version, or owner/name", param="version")
        self._require_known(version)
        inputs = given(asked.input)  # null is what is left out
        self._check(inputs)
        seconds = wait_seconds(request.headers.get("prefer", ""))
        webhook = asked.webhook or asked.webhook_completed
        if webhook:
            self._webhooks.require_allowed(webhook)
        run = self._runs.start(inputs)
        if webhook:
            only: list[Events] = [] if asked.webhook else ["completed"]
            events = asked.webhook_events_filter or only
            self._webhooks.follow(run, webhook, events, lambda: self.prediction(run, base_url(request)))
        headers = {}
        if seconds:
            headers = {"Preference-Applied": "wait"}
            try:
                async with asyncio.timeout(seconds):
                    await run.end()
            except TimeoutError:
                pass  # the client goes on to ask for it
        body = self.prediction(run, base_url(request))
        if run.retry_after:
            raise of_failed(run)
        if not run.ended:  # "processing" would be taken as the final answer
            body |= {"status": "starting", "output": None}
        return JSONResponse(body, 201, headers)

    async def get(self, request: Request) -> Response:
        """GET /v1/predictions/{id}."""
        return JSONResponse(self.prediction(self._find(request), base_url(request)))

    async def list(self, request: Request) -> Response:
        """GET /v1/predictions, the newest first, PAGE at a time."""
        runs = self._runs.newest_first()
        if cursor := request.query_params.get("cursor"):
            places = [index for index, run in enumerate(runs) if run.id == cursor]
            if not places:
                raise Problem(400, "cursor: the prediction is no longer here", param="cursor")
            runs = runs[places[0] + 1 :]
        base = base_url(request)
        following = f"{base}/v1/predictions?cursor={runs[PAGE - 1].id}" if len(runs) > PAGE else None
        return JSONResponse(page([self.prediction(run, base) for run in runs[:PAGE]], following))

    async def cancel(self, request: Request) -> Response:
        """POST /v1/predictions/{id}/cancel."""
        run = self._find(request)
        await self._runs.cancel(run)
        return JSONResponse(self.prediction(run, base_url(request)))

    async def stream(self, request: Request) -> Response:
        """GET /stream/{id}/{secret}, the address in urls.stream. Who knows it may read, and come back."""
        run = self._find(request)
        if request.path_params["secret"] != run.secret:
            raise Problem(404, "there is no such stream")
        pieces, _, logs = request.headers.get("last-event-id", "").partition(":")
        start = (int(pieces), int(logs)) if pieces.isdecimal() and logs.isdecimal() else (0, 0)
        return StreamingResponse(_stream(run, *start), media_type=EVENT_STREAM, headers=NO_CACHE)

    async def models(self, request: Request) -> Response:
        """GET /v1/models, for both dialects: OpenAI's `data`, Replicate's `results`."""
        described = self._model(base_url(request))
        data = [described | {"id": name} for name in self._settings.names]
        return JSONResponse({"object": "list", "data": data, **page([described])})

    async def model(self, request: Request) -> Response:
        """GET /v1/models/{owner}/{name}, or /v1/models/{alias} as OpenAI's client asks."""
        name = "/".join(request.path_params.values())
        self._require_known(name)
        return JSONResponse(self._model(base_url(request)) | {"id": name})

    async def versions(self, request: Request) -> Response:
        """GET /v1/models/{owner}/{name}/versions."""
        self._require_known("/".join(request.path_params.values()))
        return JSONResponse(page([self._version()]))

    async def version(self, request: Request) -> Response:
        """GET /v1/models/{owner}/{name}/versions/{id}."""
        self._require_known("{owner}/{name}:{id}".format(**request.path_params))
        return JSONResponse(self._version())

    async def deployment(self, request: Request) -> Response:
        """GET /v1/deployments/{owner}/{name}."""
        name = "/".join(request.path_params.values())
        self._require_known(name)
        owner, _, short = name.partition("/")
        release = {
            "number": 1,
            "model": self._settings.model,
            "version": self.version_id,
            "created_at": written(self._began),
            "created_by": self._account(),
            "configuration": {"hardware": "local", "min_instances": 1, "max_instances": 1},
        }
        return JSONResponse({"owner": owner, "name": short, "current_release": release})

    async def account(self, request: Request) -> Response:  # noqa: ARG002
        """GET /v1/account."""
        return JSONResponse(self._account())

    async def webhook_secret(self, request: Request) -> Response:  # noqa: ARG002
        """GET /v1/webhooks/default/secret."""
        return JSONResponse({"key": self._webhooks.secret})

    @cached_property
    def version_id(self) -> str:
        """The id of the version."""
        return hashlib.sha256(json.dumps(self._document(), sort_keys=True).encode()).hexdigest()

    @cached_property
    def _inputs(self) -> Draft202012Validator:
        return input_check(self._document())

    def prediction(self, run: Run, base: str) -> Json:
        """A run as Replicate writes a prediction."""
        at = f"{base}/v1/predictions/{run.id}"
        return {
            "id": run.id,
            "model": self._settings.model,
            "version": self.version_id,
            "input": dict(run.inputs),
            "output": run.output or (None if run.status != "succeeded" else []),
            "logs": run.logs,
            "error": run.error,
            "status": run.status,
            "created_at": written(run.created),
            "started_at": written(run.started),
            "completed_at": written(run.ended),
            "data_removed": False,
            "source": "api",
            "metrics": run.metrics | ({"total_time": (run.ended - run.created).total_seconds()} if run.ended else {}),
            "urls": {
                "get": at,
                "cancel": f"{at}/cancel",
                "web": f"{base}/",
                "stream": f"{base}/stream/{run.id}/{run.secret}",
            },
        }

    def _find(self, request: Request) -> Run:
        run_id = request.path_params["id"]
        if run := self._runs.find(run_id):
            return run
        raise Problem(404, f"there is no prediction {run_id!r}; the gateway keeps one for an hour after its end")

    def _require_known(self, reference: str) -> None:
        """Raises Problem unless it is the model, its version, or model:version."""
        name, _, version = reference.partition(":")
        if name == self.version_id or (name in self._settings.names and version in ("", self.version_id)):
            return
        raise Problem(404, f"there is no {reference!r} here; there is {self._settings.model}:{self.version_id}")

    def _check(self, inputs: Json) -> None:
        """Raises Problem at the first input that is not as the OpenAPI document has it, as Replicate does."""
        if problem := next(self._inputs.iter_errors(inputs), None):
            place = ".".join(["input", *map(str, problem.absolute_path)])
            raise Problem(422, f"{place}: {shortened(problem.message, MAX_SAID)}", param=place)

    def _model(self, base: str) -> Json:
        """The model, with the fields of both dialects."""
        owner, _, name = self._settings.model.partition("/")
        return {
            "id": self._settings.model,
            "object": "model",
            "created": int(self._began.timestamp()),
            "owned_by": owner,
            "url": f"{base}/",
            "owner": owner,
            "name": name,
            "description": "A Hermes chat model behind this gateway.",
            "visibility": "private",
            "github_url": None,
            "paper_url": None,
            "license_url": None,
            "run_count": len(self._runs.newest_first()),
            "cover_image_url": None,
            "default_example": None,
            "is_official": False,
            "latest_version": self._version(),
        }

    def _version(self) -> Json:
        document = self._document()
        return {
            "id": self.version_id,
            "created_at": written(self._began),
            "cog_version": document["info"]["version"],
            "openapi_schema": document,
        }

    @staticmethod
    def _account() -> Json:
        return {"type": "user", "username": "local", "name": "This gateway", "github_url": None, "avatar_url": None}


def page(results: Sequence[Mapping[str, Any]], following: str | None = None) -> Json:
    """A page of Replicate's lists. `following`, an absolute URL: npm's client doubles a relative one."""
    return {"previous": None, "next": following, "results": list(results)}


def written(moment: datetime | None) -> str | None:
    """A time as Replicate writes it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ") if moment else None


def base_url(request: Request) -> str:
    """Where the client found the gateway."""
    return str(request.base_url).rstrip("/")


def wait_seconds(prefer: str) -> float:
    """How long a `Prefer` header asks to wait, in s; 0 if it does not ask."""
    wait = re.search(r"\bwait(?:=(\d+))?", prefer)
    return min(float(wait[1] or MAX_WAIT), MAX_WAIT) if wait else 0.0


async def _stream(run: Run, pieces: int, logs: int) -> AsyncIterator[str]:
    """The events of a stream, from so many pieces and characters of the logs on.

    Replicate's client drops everything until an event has an id, and raises at an event that it does not know.
    """
    while True:
        changed = run.change
        events = []
        for piece in run.output[pieces:]:
            pieces += 1
            events.append(_event("output", f"{pieces}:{logs}", piece))
        if len(run.logs) > logs:
            said, logs = run.logs[logs:], len(run.logs)
            events.append(_event("logs", f"{pieces}:{logs}", said))
        if events:
            yield "".join(events)
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


def _event(name: str, event_id: str, text: str) -> str:
    data = "\n".join(f"data: {line}" for line in LINE_ENDS.split(text))
    return f"event: {name}\nid: {event_id}\n{data}\n\n"
