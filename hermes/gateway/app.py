"""The service: its parts, its routes, and what it answers when a request fails."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from hermes.client.cog import Json
from hermes.gateway.access import Gate, response_of
from hermes.gateway.bodies import Bodies
from hermes.gateway.context import Context
from hermes.gateway.inputs import InputCheck
from hermes.gateway.memory import Memory
from hermes.gateway.messages_api import MessagesApi
from hermes.gateway.metrics import Metrics
from hermes.gateway.openai_api import OpenAIApi
from hermes.gateway.pool import Backend, Pool, QueueFull
from hermes.gateway.problems import Problem, of_full
from hermes.gateway.replicate_api import ReplicateApi
from hermes.gateway.replies import Replies
from hermes.gateway.response_store import ResponseStore
from hermes.gateway.responses_api import ResponsesApi
from hermes.gateway.run import Run
from hermes.gateway.runs import Runs
from hermes.gateway.settings import GatewaySettings
from hermes.gateway.store import Store
from hermes.gateway.tokens_api import TokensApi
from hermes.gateway.upstream import Upstream
from hermes.gateway.webhooks import Webhooks
from hermes.version import VERSION

PAGE = Path(__file__).parent / "page"
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PAGE_HEADERS = {"Content-Security-Policy": CSP, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
CLIENT_CLOSED = 499  # as nginx calls it in its log; nobody receives it


class Gateway:
    """A gateway and its parts."""

    def __init__(self, settings: GatewaySettings, upstreams: Sequence[Upstream]):
        """Raises InvalidConfiguration if the store cannot be opened."""
        self.settings = settings
        self.pool = Pool(upstreams, max_waiting=settings.max_waiting, max_wait=settings.max_wait)
        self._memory = Memory(settings.max_memory)
        self._bodies = Bodies(settings.max_body, self._memory)
        self._metrics = Metrics(self.pool, self._memory)
        self._store = Store(settings.store)
        self._responses = ResponseStore(self._store, settings.max_body)
        self._context = Context(self.pool, self.check)
        self.runs = Runs(
            self.pool,
            self._store,
            self._memory,
            keep=settings.keep,
            keep_runs=settings.keep_runs,
            keep_bytes=settings.keep_bytes,
            max_per_token=settings.max_per_token,
            on_end=self._ended,
        )
        self._check: tuple[Json, InputCheck] | None = None

    def app(self) -> ASGIApp:
        """Returns the ASGI application."""
        replies = Replies(self.runs, self._bodies, self._memory, self.settings.names, self.check)
        openai, responses = OpenAIApi(replies), ResponsesApi(replies, self._responses)
        messages, tokens = MessagesApi(replies), TokensApi(replies)
        self._webhooks = webhooks = Webhooks(
            self.settings, self.pool, self._store, self.runs, self._bodies, self._memory
        )
        replicate = ReplicateApi(
            self.settings, self.runs, self._bodies, webhooks, self.document, self.check, self._memory, self._context
        )
        routes = [
            Route("/", self._index),
            Route("/healthz", self._health),
            Route("/health", self._alive),
            Route("/ping", self._alive),
            Route("/version", self._version),
            Route("/load", self._load),
            Route("/metrics", self._show_metrics),
            Route("/chat/completions", openai.chat, methods=["POST"]),
            Route("/completions", openai.complete, methods=["POST"]),
            Route("/responses", responses.respond, methods=["POST"]),
            Route("/responses/compact", responses.unsupported, methods=["POST"]),
            Route("/responses/input_tokens", responses.unsupported, methods=["POST"]),
            Route("/responses/{id}", responses.get),
            Route("/responses/{id}", responses.delete, methods=["DELETE"]),
            Route("/responses/{id}/cancel", responses.cancel, methods=["POST"]),
            Route("/responses/{id}/input_items", responses.input_items),
            Route("/messages", messages.create, methods=["POST"]),
            Route("/messages/count_tokens", messages.count_tokens, methods=["POST"]),
            Route("/tokenize", tokens.tokenize, methods=["POST"]),
            Route("/detokenize", tokens.detokenize, methods=["POST"]),
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
        middleware = [Middleware(Gate, settings=self.settings, metrics=self._metrics)]
        if self.settings.origins:
            cors = Middleware(
                CORSMiddleware,
                allow_origins=self.settings.origins,
                allow_methods=["GET", "POST", "DELETE"],
                allow_headers=["*"],
                expose_headers=["x-request-id", "request-id", "retry-after"],
                allow_private_network=True,  # Chrome asks for it where the gateway has a private address
            )
            middleware.insert(0, cors)
        app = Starlette(
            routes=routes,
            middleware=middleware,
            lifespan=self._lifespan,
            exception_handlers={
                Problem: _problem,
                QueueFull: _queue_full,
                HTTPException: _no_route,
                ClientDisconnect: _gone,
            },
        )
        app.router.redirect_slashes = False  # the gate has taken them
        return app

    def document(self) -> Json:
        """Returns the OpenAPI document of the upstreams. Raises Problem while none could be asked."""
        if document := self.pool.document:
            return document
        raise Problem(503, "no upstream has been ready yet", retry_after=5)

    def check(self) -> InputCheck:
        """Returns the check of inputs. Raises Problem while no upstream could be asked."""
        document = self.document()
        if self._check is None or self._check[0] is not document:
            self._check = document, InputCheck(document)
        return self._check[1]

    async def stop(self) -> None:
        """Let predictions go on for the grace period, then end them with E1205; their streams end in order."""
        self._bodies.stop(self.settings.grace)
        await self.runs.stop(self.settings.grace)

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:  # noqa: ARG002
        watching = asyncio.create_task(self.pool.watch())
        await self._webhooks.resume()
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            await self.runs.stop(0)
            await self._webhooks.close()
            await self.runs.close()
            self._bodies.close()
            for backend in self.pool.backends:
                await backend.upstream.close()

    def _ended(self, run: Run) -> None:
        self._metrics.count_run(run)
        self._context.learn(run)

    async def _index(self, request: Request) -> Response:  # noqa: ARG002
        return FileResponse(PAGE / "index.html", headers=PAGE_HEADERS)

    async def _health(self, request: Request) -> Response:  # noqa: ARG002
        upstreams = {each.upstream.name: _state(each) for each in self.pool.backends}
        body = {"status": "ready", "upstreams": upstreams, "waiting": self.pool.waiting}
        return JSONResponse(body if self._ready else body | {"status": "not ready"}, 200 if self._ready else 503)

    async def _alive(self, request: Request) -> Response:  # noqa: ARG002
        """GET /health and /ping, as load balancers and vLLM's tools ask: no body, and the status says it."""
        return Response(status_code=200 if self._ready else 503)

    async def _version(self, request: Request) -> Response:  # noqa: ARG002
        return JSONResponse({"version": VERSION})

    async def _load(self, request: Request) -> Response:  # noqa: ARG002
        """GET /load, as vLLM's server has it: how many predictions are queued or running."""
        return JSONResponse({"server_load": self.runs.running})

    @property
    def _ready(self) -> bool:
        return self.pool.document is not None and any(each.ready for each in self.pool.backends)

    async def _show_metrics(self, request: Request) -> Response:  # noqa: ARG002
        return Response(self._metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


class _Page(StaticFiles):
    """The page's files."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers.update(PAGE_HEADERS | {"Cache-Control": "no-cache"})
        return response


def _state(backend: Backend) -> str:
    return "not ready" if not backend.ready else "ejected" if backend.ejected else "ready"


async def _problem(request: Request, error: Exception) -> Response:
    return response_of(error if isinstance(error, Problem) else Problem(500, str(error)), request.scope)


async def _queue_full(request: Request, error: Exception) -> Response:
    problem = of_full(str(error), error.retry_after if isinstance(error, QueueFull) else 1)
    return response_of(problem, request.scope)


async def _no_route(request: Request, error: Exception) -> Response:
    path = request.url.path
    if not isinstance(error, HTTPException) or error.status_code == 404:
        return response_of(Problem(404, f"there is no {path} here"), request.scope)
    allowed = (error.headers or {}).get("Allow", "")
    said = f"{path} takes {allowed}, not {request.method}" if allowed else error.detail
    response = response_of(Problem(error.status_code, said), request.scope)
    response.headers.update(error.headers or {})
    return response


async def _gone(request: Request, error: Exception) -> Response:  # noqa: ARG001
    return Response(status_code=CLIENT_CLOSED)
