"""What answers: a Cog server, or a model on Replicate. Both become one stream of events.

The events are coglet's: `output` with a `chunk`, `log`, `metric`, and at the end `completed` with the prediction.
"""

import asyncio
import json
import os
import re
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import suppress
from typing import Any, Protocol

import httpx

from hermes.client.cog import READY, EventReader, Json, detail_of, json_data
from hermes.client.errors import MAX_REASON, PredictionFailed
from hermes.environment import can_be_asked, header_token, proxy_for, tls
from hermes.errors import EngineFailed, InvalidConfiguration
from hermes.gateway.addresses import HOST
from hermes.text import shortened, without_credentials

OPTION = "--upstream"
REPLICATE = "replicate:"
CONNECT = httpx.Timeout(10, read=None, pool=None)
LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=64)
# A model may say nothing for minutes. So the kernel asks the other one's whether a connection still is; after 60 s
# without an answer it is closed. It also keeps it open in routers that forget silent ones.
KEEPALIVE = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *(
        (socket.IPPROTO_TCP, getattr(socket, name), value)
        for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))
        if hasattr(socket, name)  # macOS has another name for the first
    ),
]
POLL_SECONDS = 0.5  # as replicate's own client
ENDED = ("succeeded", "failed", "canceled", "aborted")
NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)  # the server has not seen the request
ACCEPT_EVENTS = {"Accept": "text/event-stream"}
JSON = {"Content-Type": "application/json"}


class Full(Exception):
    """All slots are taken, by clients that do not come through this gateway."""


class Unavailable(Exception):
    """The upstream took no prediction: nothing was begun, another one may be asked."""


class Refused(Exception):
    """The upstream finds the inputs wrong."""


class Upstream(Protocol):
    """One model that answers."""

    name: str  # without credentials: it is in logs, metrics and errors
    slots: int  # predictions that it takes at once; `ready` may change it

    async def ready(self) -> bool:
        """Whether it takes predictions now. Raises Unavailable if it did not answer."""
        ...

    async def document(self) -> Json:
        """Its OpenAPI document. Raises Unavailable if it cannot be had."""
        ...

    def run(self, run_id: str, inputs: bytes) -> AsyncGenerator[tuple[str, Json]]:
        """Run a prediction and yield its events, the last of which is `completed`.

        Raises Full, Unavailable or Refused before the first event. Raises EngineFailed if another response comes than
        events, or the connection breaks.

        Args:
            run_id: the prediction's id there, made of letters, digits, - and _.
            inputs: a JSON object without null values.
        """
        ...

    async def cancel(self, run_id: str) -> None:
        """Ask for the end of a running prediction; its events go on to `completed`.

        Raises Unavailable if that was refused or not answered. A prediction that the upstream does not know is none:
        it has just ended, and the event that says so is on its way.
        """
        ...

    async def close(self) -> None:
        """Close its connections."""
        ...


def is_replicate(name: str) -> bool:
    """Whether an upstream of this name is a model on Replicate, where each prediction costs money."""
    return name.startswith(REPLICATE)


def open_upstream(name: str, slots: int) -> Upstream:
    """Returns the upstream of a name on the command line.

    Raises InvalidConfiguration if it names none, or has no slots.
    """
    if slots < 1:
        raise InvalidConfiguration("--slots", f"is {slots}; an upstream takes at least 1 prediction at once")
    if is_replicate(name):
        return ReplicateUpstream(name, slots)
    return CogUpstream(name, slots)


def base_url(option: str, text: str) -> httpx.URL:
    """Returns the URL of a server. Raises InvalidConfiguration, in whose message no credentials are."""
    redacted = without_credentials(text)
    if "@" in text and re.search(r"[/?#].*@", text.partition("://")[2]):  # what was meant as a password ends the host
        raise InvalidConfiguration(option, "has a / ? or # in its user or password; write it as %2F, %3F or %23")
    example = f"write http://HOST:PORT{f' or {REPLICATE}owner/name' if option == OPTION else ''}"
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, UnicodeError) as error:
        problem = str(error).replace(text, redacted)
        raise InvalidConfiguration(option, f"is {redacted!r}: {problem}; {example}") from None
    if url.scheme not in ("http", "https") or not url.raw_host:
        raise InvalidConfiguration(option, f"is {redacted!r}; {example}")
    if url.port is not None and not 0 < url.port < 2**16:
        raise InvalidConfiguration(option, f"is {redacted!r}, whose port is not between 1 and 65535; {example}")
    if not (HOST.fullmatch(url.raw_host.decode()) and can_be_asked(url)):
        raise InvalidConfiguration(option, f"is {redacted!r}, whose host is no name or address; {example}")
    if url.query or url.fragment or "?" in text or "#" in text:
        raise InvalidConfiguration(option, f"is {redacted!r} with a query or a fragment, which have no use; {example}")
    return url


class CogUpstream:
    """A Cog server, asked with server-sent events."""

    def __init__(self, name: str, slots: int):
        """Args:
        name: its URL; a user and a password in it are sent as Basic authentication.
        slots: predictions that it takes at once.
        """
        url = base_url(OPTION, name)
        credentials = httpx.BasicAuth(url.username, url.password) if url.userinfo else None
        address = url.copy_with(userinfo=b"")
        self.name, self.slots = str(address).rstrip("/"), slots
        self._http = _client(address, auth=credentials)
        proxy = proxy_for(self.name)
        self._through = f" through {proxy}" if proxy else ""

    async def ready(self) -> bool:
        """See Upstream. A BUSY server is ready: it is a slot that is missing."""
        try:
            response = await self._http.get("/health-check", timeout=10)
            return _object(response)["status"] in READY
        except httpx.HTTPError as error:
            raise Unavailable(f"{self.name}{self._through}: {_reason(error)}") from error
        except (ValueError, TypeError, LookupError) as error:
            problem = f"/health-check{self._through} was answered with {response.status_code}, and not by a Cog server"
            raise Unavailable(f"{self.name}: {problem}") from error

    async def document(self) -> Json:
        """See Upstream."""
        return await _json(self._http, "/openapi.json")

    async def run(self, run_id: str, inputs: bytes) -> AsyncGenerator[tuple[str, Json]]:
        """See Upstream. Closing the iterator cancels the prediction."""
        try:
            async with self._http.stream(
                "PUT",
                f"/predictions/{run_id}",
                content=b'{"input":' + inputs + b"}",
                headers=ACCEPT_EVENTS | JSON,
            ) as response:
                if response.status_code != httpx.codes.OK:
                    await response.aread()
                    raise _refusal(response)
                async for name, data in _events(response):
                    yield name, json_data(name, data)
                    if name == "completed":
                        return
        except PredictionFailed as error:
            raise EngineFailed(str(error)) from error
        except NOT_SENT as error:
            raise Unavailable(f"{self.name}: {_reason(error)}") from error
        except httpx.HTTPError as error:
            raise EngineFailed(f"the connection to the server broke: {_reason(error)}") from error
        raise EngineFailed("the server's stream ended before the prediction did")

    async def cancel(self, run_id: str) -> None:
        """See Upstream."""
        await _cancel(self._http, f"/predictions/{run_id}/cancel")

    async def close(self) -> None:
        """See Upstream."""
        await self._http.aclose()


class ReplicateUpstream:
    """A model on Replicate, or on whatever REPLICATE_BASE_URL names."""

    def __init__(self, name: str, slots: int):
        """Args:
        name: replicate:owner/name, with :VERSION for one that is not the latest.
        slots: predictions that it takes at once.
        """
        found = re.fullmatch(r"([\w.-]+/[\w.-]+)(?::(\w+))?", name.removeprefix(REPLICATE))
        if not found:
            raise InvalidConfiguration(OPTION, f"is {name!r}; write {REPLICATE}owner/name[:VERSION]")
        token = header_token(os.environ.get("REPLICATE_API_TOKEN"), "REPLICATE_API_TOKEN")
        if not token:
            raise InvalidConfiguration(
                OPTION, f"is {name!r}, and REPLICATE_API_TOKEN has no token; set it to one of your account at Replicate"
            )
        address = base_url("REPLICATE_BASE_URL", replicate_url().rstrip("/").removesuffix("/v1"))
        if address.userinfo:
            raise InvalidConfiguration("REPLICATE_BASE_URL", "has a user or a password; the token is sent instead")
        self.name, self.slots = name, slots
        self._model, self._pinned = f"/v1/models/{found[1]}", found[2] or ""
        self._version = self._pinned
        self._ids: dict[str, str] = {}  # of running predictions: run -> prediction
        self._http = _client(address, auth=_authentication(address, token))

    async def ready(self) -> bool:
        """See Upstream. Replicate boots a model when it is asked."""
        try:
            return (await self._http.get(self._model, timeout=30)).status_code == httpx.codes.OK
        except httpx.HTTPError as error:
            raise Unavailable(f"{self.name}: {_reason(error)}") from error

    async def document(self) -> Json:
        """See Upstream."""
        if self._pinned:
            version = await _json(self._http, f"{self._model}/versions/{self._pinned}")
        else:
            version = (await _json(self._http, self._model)).get("latest_version") or {}
            self._version = version.get("id", "")
        if not isinstance(document := version.get("openapi_schema"), dict):
            raise Unavailable(f"{self.name} has no version with an OpenAPI document")
        return document

    async def run(self, run_id: str, inputs: bytes) -> AsyncGenerator[tuple[str, Json]]:
        """See Upstream. The text is that of the stream until it ends, then that of the prediction."""
        prediction = await self._create(inputs)
        self._ids[run_id] = prediction["id"]
        streamed = ""
        try:
            if stream := prediction.get("urls", {}).get("stream"):
                async with self._http.stream("GET", stream, headers=ACCEPT_EVENTS) as response:
                    async for name, text in _events(response):
                        if name == "output" and text:
                            streamed += text
                            yield "output", {"chunk": text}
                        elif name in ("done", "error"):
                            break
            while prediction["status"] not in ENDED:
                prediction = await _json(self._http, f"/v1/predictions/{prediction['id']}")
                if prediction["status"] not in ENDED:
                    await asyncio.sleep(POLL_SECONDS)
        except (httpx.HTTPError, Unavailable) as error:
            raise EngineFailed(f"the connection to Replicate broke: {_reason(error)}") from error
        finally:
            try:
                if prediction["status"] not in ENDED:
                    with suppress(Unavailable):
                        await self.cancel(run_id)
            finally:  # this task may be cancelled again
                del self._ids[run_id]
        whole = "".join(prediction.get("output") or [])
        if whole.startswith(streamed) and whole != streamed:  # the stream cannot carry every text
            yield "output", {"chunk": whole[len(streamed) :]}
        yield "completed", prediction

    async def _create(self, inputs: bytes) -> Json:
        try:
            if not self._version:
                await self.document()
            body = b'{"version":' + json.dumps(self._version).encode() + b',"input":' + inputs + b',"stream":true}'
            response = await self._http.post("/v1/predictions", content=body, headers=JSON)
        except NOT_SENT as error:
            raise Unavailable(f"{self.name}: {_reason(error)}") from error
        except httpx.HTTPError as error:
            raise EngineFailed(f"the connection to Replicate broke: {_reason(error)}") from error
        if response.status_code != httpx.codes.CREATED:
            raise _refusal(response)
        try:
            return _object(response)
        except (ValueError, TypeError) as error:
            raise EngineFailed(f"Replicate's response cannot be read: {error}") from error

    async def cancel(self, run_id: str) -> None:
        """See Upstream."""
        if prediction_id := self._ids.get(run_id):
            await _cancel(self._http, f"/v1/predictions/{prediction_id}/cancel")

    async def close(self) -> None:
        """See Upstream."""
        await self._http.aclose()


def replicate_url() -> str:
    """Returns the URL of Replicate's API, or of what takes its place."""
    return os.environ.get("REPLICATE_BASE_URL", "https://api.replicate.com")


def _authentication(base: httpx.URL, token: str) -> Callable[[httpx.Request], httpx.Request]:
    """Returns what adds the token to requests to Replicate, and to no other host that a prediction's `urls` name."""

    def authenticate(request: httpx.Request) -> httpx.Request:
        url = request.url
        own = url.host == base.host and url.scheme in (base.scheme, "https")
        if own or (url.host.endswith(".replicate.com") and url.scheme == "https"):
            request.headers["Authorization"] = f"Bearer {token}"
        return request

    return authenticate


def _client(address: httpx.URL, **options: Any) -> httpx.AsyncClient:
    """Raises InvalidConfiguration if the proxy or the certificates of the environment cannot be used."""
    proxy = proxy_for(str(address))
    transport = httpx.AsyncHTTPTransport(
        verify=tls(), limits=LIMITS, proxy=proxy.url if proxy else None, socket_options=KEEPALIVE
    )
    return httpx.AsyncClient(base_url=address, timeout=CONNECT, transport=transport, trust_env=False, **options)


async def _json(http: httpx.AsyncClient, path: str) -> Json:
    """The JSON object at a path. Raises Unavailable if there is none."""
    try:
        return _object((await http.get(path, timeout=30)).raise_for_status())
    except (httpx.HTTPError, ValueError, TypeError) as error:
        raise Unavailable(f"{http.base_url}{path}: {_reason(error)}") from error


def _object(response: httpx.Response) -> Json:
    """The JSON object of a response. Raises TypeError if it is not one, and ValueError if it cannot be read."""
    try:
        value = response.json()
    except RecursionError as error:
        raise ValueError("the JSON is nested too deeply") from error
    if not isinstance(value, dict):
        raise TypeError("the response is no JSON object")
    return value


async def _cancel(http: httpx.AsyncClient, path: str) -> None:
    try:
        response = await http.post(path, timeout=10)
    except httpx.HTTPError as error:
        raise Unavailable(f"the cancel was not answered: {_reason(error)}") from error
    if not response.is_success and response.status_code != httpx.codes.NOT_FOUND:
        raise Unavailable(f"the cancel was answered with {response.status_code}")


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def _refusal(response: httpx.Response) -> Exception:
    """Why no prediction was begun. coglet answers 409 without a slot, and 406 or 503 until setup() is done."""
    detail = shortened(detail_of(response), MAX_REASON)
    match response.status_code:
        case httpx.codes.CONFLICT | httpx.codes.TOO_MANY_REQUESTS:
            return Full(detail)
        case httpx.codes.BAD_REQUEST | httpx.codes.UNPROCESSABLE_ENTITY | httpx.codes.REQUEST_ENTITY_TOO_LARGE:
            return Refused(detail)
        case httpx.codes.NOT_ACCEPTABLE | httpx.codes.SERVICE_UNAVAILABLE as status:
            return Unavailable(f"it answered {status}: {detail}")
        case status:
            return EngineFailed(f"the server answered {status}: {detail}")


async def _events(response: httpx.Response) -> AsyncIterator[tuple[str, str]]:
    """The events of a stream, (name, text)."""
    reader = EventReader()
    response.encoding = "utf-8"  # whatever its headers say
    async for piece in response.aiter_text():
        for event in reader.feed(piece):
            yield event
