"""What answers: a Cog server, or a model on Replicate. Both become one stream of events.

The events are coglet's: `output` with a `chunk`, `log`, `metric`, and at the end `completed` with the prediction.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol

import httpx
from jsonschema import Draft202012Validator

from hermes.client.cog import READY, EventReader, Json, detail_of, given, json_data, tls
from hermes.client.errors import MAX_REASON, PredictionFailed
from hermes.errors import EngineFailed, InvalidConfiguration
from hermes.text import shortened

REPLICATE = "replicate:"
CONNECT = httpx.Timeout(10, read=None, pool=None)
POLL_SECONDS = 0.5  # as replicate's own client
ENDED = ("succeeded", "failed", "canceled", "aborted")


class Full(Exception):
    """All slots are taken, by callers that did not come through this gateway."""


class NotThere(Exception):
    """The upstream took no prediction: nothing was begun, another one may be asked."""


class Refused(Exception):
    """The upstream finds the inputs wrong."""


class Upstream(Protocol):
    """One model that answers."""

    name: str
    slots: int  # predictions that it takes at once; `ready` may change it

    async def ready(self) -> bool:
        """Whether it takes predictions now."""
        ...

    async def document(self) -> Json:
        """Its OpenAPI document. Raises NotThere if it cannot be had."""
        ...

    def run(self, run_id: str, inputs: Mapping[str, Any]) -> AsyncIterator[tuple[str, Json]]:
        """Run a prediction and yield its events, the last of which is `completed`.

        Raises Full, NotThere or Refused before the first event. Raises EngineFailed if another answer comes than
        events, or the connection breaks.
        """
        ...

    async def cancel(self, run_id: str) -> None:
        """Ask for the end of a running prediction; its events go on to `completed`."""
        ...

    async def close(self) -> None:
        """Close its connections."""
        ...


def open_upstream(name: str, slots: int) -> Upstream:
    """The upstream of a name on the command line. Raises InvalidConfiguration if it names none."""
    if name.startswith(REPLICATE):
        return ReplicateUpstream(name, slots)
    if httpx.URL(name).scheme in ("http", "https"):
        return CogUpstream(name.rstrip("/"), slots)
    raise InvalidConfiguration("--upstream", f"is {name!r}; write http://HOST:PORT or replicate:owner/name")


def input_check(document: Json) -> Draft202012Validator:
    """What finds the inputs that are not as an OpenAPI document of Cog's has them."""
    return Draft202012Validator({**document, "$ref": "#/components/schemas/Input"})


class CogUpstream:
    """A Cog server, asked with server-sent events."""

    def __init__(self, url: str, slots: int):
        self.name, self.slots = url, slots
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
        self._http = httpx.AsyncClient(base_url=url, timeout=CONNECT, limits=limits, verify=tls())

    async def ready(self) -> bool:
        """See Upstream. A BUSY server is ready: it is a slot that is missing."""
        try:
            health = (await self._http.get("/health-check", timeout=10)).json()
        except (httpx.HTTPError, ValueError):
            return False
        return isinstance(health, dict) and health.get("status") in READY

    async def document(self) -> Json:
        """See Upstream."""
        return await _json(self._http, "/openapi.json")

    async def run(self, run_id: str, inputs: Mapping[str, Any]) -> AsyncIterator[tuple[str, Json]]:
        """See Upstream. Closing the iterator cancels the prediction."""
        begun = False
        try:
            async with self._http.stream(
                "PUT",
                f"/predictions/{run_id}",
                json={"input": given(inputs)},
                headers={"Accept": "text/event-stream"},
            ) as response:
                if response.status_code != httpx.codes.OK:
                    await response.aread()
                    raise _refusal(response)
                begun = True
                async for name, data in _events(response):
                    yield name, json_data(name, data)
                    if name == "completed":
                        return
        except PredictionFailed as error:
            raise EngineFailed(str(error)) from error
        except httpx.HTTPError as error:
            if not begun:
                raise NotThere(f"{self.name}: {error or type(error).__name__}") from error
            raise EngineFailed(f"the connection to the server broke: {error or type(error).__name__}") from error
        raise EngineFailed("the server's stream ended before the prediction did")

    async def cancel(self, run_id: str) -> None:
        """See Upstream."""
        await self._http.post(f"/predictions/{run_id}/cancel", timeout=10)

    async def close(self) -> None:
        """See Upstream."""
        await self._http.aclose()


class ReplicateUpstream:
    """A model on Replicate, or on whatever REPLICATE_BASE_URL names."""

    def __init__(self, name: str, slots: int):
        self.name, self.slots = name, slots
        owner_name, _, self._version = name.removeprefix(REPLICATE).partition(":")
        base = os.environ.get("REPLICATE_BASE_URL", "https://api.replicate.com").rstrip("/").removesuffix("/v1")
        token = os.environ.get("REPLICATE_API_TOKEN", "")
        self._model = f"/v1/models/{owner_name}"
        self._ids: dict[str, str] = {}  # of running predictions: run -> prediction
        self._http = httpx.AsyncClient(
            base_url=base, headers={"Authorization": f"Bearer {token}"}, timeout=CONNECT, verify=tls()
        )

    async def ready(self) -> bool:
        """See Upstream. Replicate boots a model when it is asked."""
        try:
            return (await self._http.get(self._model, timeout=30)).status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    async def document(self) -> Json:
        """See Upstream."""
        if self._version:
            version = await _json(self._http, f"{self._model}/versions/{self._version}")
        else:
            version = (await _json(self._http, self._model)).get("latest_version") or {}
            self._version = version.get("id", "")
        if not isinstance(document := version.get("openapi_schema"), dict):
            raise NotThere(f"{self.name} has no version with an OpenAPI document")
        return document

    async def run(self, run_id: str, inputs: Mapping[str, Any]) -> AsyncIterator[tuple[str, Json]]:
        """See Upstream. The text is that of the stream until it ends, then that of the prediction."""
        prediction = await self._create(inputs)
        self._ids[run_id] = prediction["id"]
        said = ""
        try:
            if stream := prediction.get("urls", {}).get("stream"):
                async with self._http.stream("GET", stream, headers={"Accept": "text/event-stream"}) as response:
                    async for name, text in _events(response):
                        if name == "output" and text:
                            said += text
                            yield "output", {"chunk": text}
                        elif name in ("done", "error"):
                            break
            while prediction["status"] not in ENDED:
                prediction = await _json(self._http, f"/v1/predictions/{prediction['id']}")
                if prediction["status"] not in ENDED:
                    await asyncio.sleep(POLL_SECONDS)
        except (httpx.HTTPError, NotThere) as error:
            raise EngineFailed(f"the connection to Replicate broke: {error or type(error).__name__}") from error
        finally:
            if prediction["status"] not in ENDED:
                await self.cancel(run_id)
            del self._ids[run_id]
        whole = "".join(prediction.get("output") or [])
        if whole.startswith(said) and whole != said:  # the stream cannot carry every text
            yield "output", {"chunk": whole[len(said) :]}
        yield "completed", prediction

    async def _create(self, inputs: Mapping[str, Any]) -> Json:
        try:
            if not self._version:
                await self.document()
            response = await self._http.post(
                "/v1/predictions", json={"version": self._version, "input": given(inputs), "stream": True}
            )
        except httpx.HTTPError as error:
            raise NotThere(f"{self.name}: {error or type(error).__name__}") from error
        if response.status_code != httpx.codes.CREATED:
            raise _refusal(response)
        prediction: Json = response.json()
        return prediction

    async def cancel(self, run_id: str) -> None:
        """See Upstream."""
        await self._http.post(f"/v1/predictions/{self._ids[run_id]}/cancel", timeout=30)

    async def close(self) -> None:
        """See Upstream."""
        await self._http.aclose()


async def _json(http: httpx.AsyncClient, path: str) -> Json:
    """The JSON object at a path. Raises NotThere if there is none."""
    try:
        value = (await http.get(path, timeout=30)).raise_for_status().json()
    except (httpx.HTTPError, ValueError) as error:
        raise NotThere(f"{http.base_url}{path}: {error or type(error).__name__}") from error
    if not isinstance(value, dict):
        raise NotThere(f"{http.base_url}{path} is no JSON object")
    return value


def _refusal(response: httpx.Response) -> Exception:
    """Why no prediction was begun. coglet answers 409 without a slot, and 406 or 503 until setup() is done."""
    detail = shortened(detail_of(response), MAX_REASON)
    match response.status_code:
        case httpx.codes.CONFLICT | httpx.codes.TOO_MANY_REQUESTS:
            return Full(detail)
        case httpx.codes.BAD_REQUEST | httpx.codes.UNPROCESSABLE_ENTITY | httpx.codes.REQUEST_ENTITY_TOO_LARGE:
            return Refused(detail)
        case httpx.codes.NOT_ACCEPTABLE | httpx.codes.SERVICE_UNAVAILABLE as status:
            return NotThere(f"it answered {status}: {detail}")
        case status:
            return EngineFailed(f"the server answered {status}: {detail}")


async def _events(response: httpx.Response) -> AsyncIterator[tuple[str, str]]:
    """The events of a stream, (name, text)."""
    reader = EventReader()
    response.encoding = "utf-8"  # whatever its headers say
    async for piece in response.aiter_text():
        for event in reader.feed(piece):
            yield event
