"""The service: its routes, who may ask, and what is counted."""

import asyncio
import hmac
import json
import logging
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hermes.client.cog import Json
from hermes.gateway.openai_api import OpenAIApi
from hermes.gateway.pool import LineFull, Pool
from hermes.gateway.problems import Problem, of_full
from hermes.gateway.replicate_api import ReplicateApi
from hermes.gateway.responses_api import ResponsesApi
from hermes.gateway.runs import Run, Runs
from hermes.gateway.settings import GatewaySettings, is_loopback
from hermes.gateway.upstream import NotThere, Upstream
from hermes.gateway.webhooks import Webhooks

log = logging.getLogger(__name__)
PAGE = Path(__file__).parent / "page"
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PAGE_HEADERS = {"Content-Security-Policy": CSP, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
OPEN = ("/", "/healthz")  # without a token; so are the page's files, and streams, whose addresses are secrets
SECONDS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300)


class Gateway:
    """A gateway and its parts."""

    def __init__(self, settings: GatewaySettings, upstreams: Sequence[Upstream]):
        self.settings = settings
        self.pool = Pool(upstreams, max_waiting=settings.max_waiting, max_wait=settings.max_wait)
        self._metrics = _Metrics(self.pool)
        self.runs = Runs(
            self.pool,
            keep=settings.keep,
            keep_runs=settings.keep_runs,
            keep_bytes=settings.keep_bytes,
            on_end=self._metrics.count,
        )
        self._webhooks = Webhooks(anywhere=settings.webhooks_anywhere)
        self._document: Json = {}

    def app(self) -> ASGIApp:
        """The ASGI application."""
        openai = OpenAIApi(self.runs, self.settings.names, self.document)
        responses = ResponsesApi(openai)
        replicate = ReplicateApi(self.settings, self.runs, self._webhooks, self.document)
        routes = [
            Route("/", self._index),
            Route("/healthz", self._health),
            Route("/metrics", self._show_metrics),
            Route("/chat/completions", openai.chat, methods=["POST"]),
            Route("/completions", openai.complete, methods=["POST"]),
            Route("/responses", responses.respond, methods=["POST"]),
            Route("/predictions", replicate.create, methods=["POST"]),
            Route("/predictions", replicate.list),
            Route("/predictions/{id}", replicate.get),
            Route("/predictions/{id}/cancel", replicate.cancel, methods=["POST"]),
            Route("/stream/{id}/{secret}", replicate.stream),
            Route("/models", replicate.models),
            Route("/models/{name}", replicate.model),
            Route("/models/{owner}/{name}", replicate.model),
            Route("/models/{owner}/{name}/predictions", replicate.create, methods=["POST"]),
            Route("/models/{owner}/{name}/versions", replicate.versions),
            Route("/models/{owner}/{name}/versions/{id}", replicate.version),
            Route("/deployments/{owner}/{name}", replicate.deployment),
            Route("/deployments/{owner}/{name}/predictions", replicate.create, methods=["POST"]),
            Route("/account", replicate.account),
            Route("/webhooks/default/secret", replicate.webhook_secret),
            Mount("/page", _Page(directory=PAGE)),
        ]
        middleware = [Middleware(_Gate, settings=self.settings)]
        if self.settings.origins:
            allowed = ["GET", "POST"]
            cors = Middleware(
                CORSMiddleware, allow_origins=self.settings.origins, allow_methods=allowed, allow_headers=["*"]
            )
            middleware.insert(0, cors)
        return Starlette(
            routes=routes,
            middleware=middleware,
            lifespan=self._lifespan,
            exception_handlers={Problem: _problem, LineFull: _line_full, HTTPException: _no_route, Exception: _bug},
        )

    def document(self) -> Json:
        """The OpenAPI document of the upstreams. Raises Problem while none could be asked."""
        if not self._document:
            raise Problem(503, "no upstream has been ready yet", retry_after=5)
        return self._document

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:  # noqa: ARG002
        tasks = [asyncio.create_task(self.pool.watch()), asyncio.create_task(self._learn())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await self.runs.close()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._webhooks.close()
            for place in self.pool.places:
                await place.upstream.close()

    async def _learn(self) -> None:
        """Ask for the document until an upstream gives it."""
        while not self._document:
            for place in self.pool.places:
                try:
                    self._document = await place.upstream.document()
                    return
                except NotThere:
                    continue
            await asyncio.sleep(0.5)

    async def _index(self, request: Request) -> Response:  # noqa: ARG002
        return FileResponse(PAGE / "index.html", headers=PAGE_HEADERS)

    async def _health(self, request: Request) -> Response:  # noqa: ARG002
        upstreams = {place.upstream.name: "ready" if place.ready else "not ready" for place in self.pool.places}
        ready = bool(self._document) and "ready" in upstreams.values()
        body = {"status": "ready" if ready else "not ready", "upstreams": upstreams, "waiting": self.pool.waiting}
        return JSONResponse(body, 200 if ready else 503)

    async def _show_metrics(self, request: Request) -> Response:  # noqa: ARG002
        return Response(generate_latest(self._metrics.registry), media_type="text/plain; version=0.0.4; charset=utf-8")


class _Page(StaticFiles):
    """The page's files."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers.update(PAGE_HEADERS | {"Cache-Control": "no-cache"})
        return response


class _Gate:
    """Who may ask, and how much: it stands before the routes."""

    def __init__(self, app: ASGIApp, settings: GatewaySettings):
        self._app, self._settings = app, settings
        self._tokens = [token.encode() for token in settings.tokens]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"]
        while path.startswith("/v1/"):  # clients add it once more, or not at all
            path = path.removeprefix("/v1")
        scope = {**scope, "path": path}
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            self._check_origin(path, headers)
            self._check_token(path, headers)
            if int(headers.get("content-length") or 0) > self._settings.max_body:
                raise self._too_large()
        except Problem as problem:
            await _response(problem)(scope, receive, send)
            return
        await self._app(scope, self._limited(receive), send)

    def _check_origin(self, path: str, headers: Mapping[str, str]) -> None:
        """Web pages of others must not ask a gateway that serves this machine only, and without tokens."""
        host = re.sub(r":\d*\Z", "", headers.get("host", ""))
        if self._settings.local and not self._tokens and not is_loopback(host):
            raise Problem(403, f"the Host header is {host!r}; ask 127.0.0.1 or localhost")
        origin = headers.get("origin", "")
        foreign = origin and not self._tokens and origin.partition("://")[2] != headers.get("host")
        # browsers leave out Sec-Fetch-Site where they do not trust the address: plain HTTP on another machine
        site = headers.get("sec-fetch-site", "cross-site" if foreign else "none")
        navigates = path == "/" and headers.get("sec-fetch-mode") == "navigate"
        listed = origin in self._settings.origins or "*" in self._settings.origins
        if site not in ("none", "same-origin") and not listed and not navigates:
            raise Problem(403, f"a page of {origin or 'another site'} asks; allow it with --origin")

    def _check_token(self, path: str, headers: Mapping[str, str]) -> None:
        if not self._tokens or path in OPEN or path.startswith(("/page/", "/stream/")):
            return
        scheme, _, token = headers.get("authorization", "").partition(" ")
        given = token.strip().encode("latin-1")
        if scheme.lower() not in ("bearer", "token") or not sum(
            hmac.compare_digest(given, each)
            for each in self._tokens  # all of them: the time tells nothing
        ):
            raise Problem(401, "send one of the gateway's tokens: Authorization: Bearer TOKEN", code="invalid_api_key")

    def _limited(self, receive: Receive) -> Receive:
        received = 0

        async def limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._settings.max_body:
                raise self._too_large()
            return message

        return limited

    def _too_large(self) -> Problem:
        return Problem(413, f"the body is more than {self._settings.max_body} bytes")


def _response(problem: Problem) -> Response:
    return JSONResponse(problem.body(), problem.status, problem.headers(), media_type="application/problem+json")


async def _problem(request: Request, error: Exception) -> Response:  # noqa: ARG001
    return _response(error) if isinstance(error, Problem) else _response(Problem(500, str(error)))


async def _line_full(request: Request, error: Exception) -> Response:  # noqa: ARG001
    return _response(of_full(str(error), error.retry_after if isinstance(error, LineFull) else 1))


async def _no_route(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 404
    return _response(Problem(status, f"there is no {request.method} {request.url.path} here"))


async def _bug(request: Request, error: Exception) -> Response:
    log.error("gateway: %s %s: %r", request.method, request.url.path, error)
    return _response(Problem(500, f"the gateway failed: {type(error).__name__}"))


class _Metrics:
    """What /metrics shows, and the line that each run leaves in the log; its text is in neither."""

    def __init__(self, pool: Pool):
        self.registry = registry = CollectorRegistry()
        self._runs = Counter("hermes_gateway_runs", "ended runs", ["outcome"], registry=registry)
        self._tokens = Counter("hermes_gateway_tokens", "tokens of ended runs", ["kind"], registry=registry)
        self._first = Histogram(
            "hermes_gateway_first_piece_seconds", "from the request", buckets=SECONDS, registry=registry
        )
        self._whole = Histogram("hermes_gateway_run_seconds", "from the request", buckets=SECONDS, registry=registry)
        waiting = Gauge("hermes_gateway_waiting", "callers in line", registry=registry)
        waiting.set_function(lambda: pool.waiting)
        ready = Gauge("hermes_gateway_upstream_ready", "1 if it takes predictions", ["upstream"], registry=registry)
        slots = Gauge("hermes_gateway_upstream_slots", "predictions that it takes", ["upstream"], registry=registry)
        running = Gauge("hermes_gateway_upstream_running", "predictions", ["upstream"], registry=registry)
        for place in pool.places:
            ready.labels(place.upstream.name).set_function(partial(getattr, place, "ready"))
            slots.labels(place.upstream.name).set_function(partial(getattr, place.upstream, "slots"))
            running.labels(place.upstream.name).set_function(partial(getattr, place, "running"))

    def count(self, run: Run) -> None:
        """Take an ended run."""
        first = (run.first - run.created).total_seconds() if run.first else None
        seconds = (run.ended - run.created).total_seconds() if run.ended else 0.0
        self._runs.labels(run.status).inc()
        for kind in ("input", "output"):
            self._tokens.labels(kind).inc(run.metrics.get(f"{kind}_token_count", 0))
        if first is not None:
            self._first.observe(first)
        self._whole.observe(seconds)
        line = {
            "run": run.id,
            "status": run.status,
            "waited": (run.started - run.created).total_seconds() if run.started else None,
            "first_piece": first,
            "seconds": seconds,
            **{name: run.metrics.get(name) for name in ("input_token_count", "output_token_count", "finish_reason")},
            "error": (run.error or "")[:5] or None,
        }
        log.info("gateway: run: %s", json.dumps(line))
