"""Ask a Cog server: POST /predictions, streamed as server-sent events (https://html.spec.whatwg.org/#server-sent-events).

coglet sends `start`, then `output` for each piece, `log` and `metric`. At the end it sends `completed` with the whole
prediction.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import httpx

from hermes.client.errors import PredictionFailed, PredictionRefused
from hermes.environment import can_be_asked, proxy_for, tls
from hermes.errors import InvalidConfiguration
from hermes.text import without_credentials

Json = dict[str, Any]

READY = ("READY", "BUSY")  # of the states in /health-check; BUSY: all slots are taken


def stream_prediction(url: str, inputs: Mapping[str, Any]) -> Iterator[tuple[str, Json]]:
    """Run a prediction and yield its events, (name, data), as they come. To close the iterator cancels it.

    Args:
        url: of the server, which may have a path and a query; a user and a password in it are sent as Basic.
        inputs: of the prediction, by name.

    Raises:
        PredictionRefused: the server did not begin the prediction.
        PredictionFailed: the URL or the proxy cannot be used, or the connection broke.
    """
    base = _base(url)
    auth = httpx.BasicAuth(base.username, base.password) if base.userinfo else None
    base = base.copy_with(userinfo=b"")  # httpx logs the URLs of requests
    try:
        proxy, certificates = proxy_for(str(base)), tls()
    except InvalidConfiguration as problem:
        raise PredictionFailed(str(problem)) from problem
    through, proxied = (f" through {proxy}", proxy.url) if proxy else ("", None)
    try:
        with (
            httpx.Client(auth=auth, proxy=proxied, verify=certificates, trust_env=False, timeout=30) as http,
            http.stream(
                "POST",
                _endpoint(base, "predictions"),
                json={"input": given(inputs)},
                headers={"Accept": "text/event-stream"},
                timeout=httpx.Timeout(30, read=None),
            ) as response,
        ):
            response.encoding = "utf-8"  # whatever its headers say
            if response.status_code != httpx.codes.OK:
                response.read()
                raise _refusal(response, partial(http.get, _endpoint(base, "health-check")))
            yield from read_events(response.iter_text())
    except httpx.RequestError as error:
        raise PredictionFailed(f"the connection to {without_credentials(str(base))}{through} broke: {error}") from error


def _base(url: str) -> httpx.URL:
    """The URL of a server. Raises PredictionFailed if it is not one."""
    try:
        base = httpx.URL(url.strip())
    except (httpx.InvalidURL, UnicodeError):
        base = httpx.URL()
    if base.scheme not in ("http", "https") or not can_be_asked(base):  # it may hold a password
        raise PredictionFailed("the server's address is not a URL; write http://HOST:PORT")
    return base


def _endpoint(base: httpx.URL, name: str) -> httpx.URL:
    path, mark, query = base.raw_path.partition(b"?")
    return base.copy_with(raw_path=path.rstrip(b"/") + b"/" + name.encode() + mark + query)


def given(inputs: Mapping[str, Any]) -> Json:
    """The inputs that are not None. coglet refuses a null (422), though its OpenAPI document says `nullable`."""
    return {name: value for name, value in inputs.items() if value is not None}


def read_events(pieces: Iterable[str]) -> Iterator[tuple[str, Json]]:
    """coglet's events, (name, data), out of a text that comes in pieces.

    Raises PredictionFailed if the data of an event is not a JSON object.
    """
    reader = EventReader()
    for piece in pieces:
        for name, data in reader.feed(piece):
            yield name, json_data(name, data)


class EventReader:
    """Server-sent events, (name, text), out of a text that comes in pieces.

    httpx's own iter_lines also ends a line at U+0085, U+2028 and others, which JSON allows in a string.
    """

    def __init__(self) -> None:
        self._begun: list[str] = []  # the pieces of an unfinished line
        self._name = "message"
        self._data: list[str] = []

    def feed(self, piece: str) -> Iterator[tuple[str, str]]:
        """The events that are whole with this piece."""
        *ends, beginning = piece.split("\n")
        for end in ends:
            line = "".join([*self._begun, end]).removesuffix("\r")
            self._begun = []
            if line.startswith("event:"):
                self._name = line.removeprefix("event:").strip()
            elif line.startswith("data:"):
                self._data.append(line.removeprefix("data:").removeprefix(" "))
            elif not line and self._data:
                yield self._name, "\n".join(self._data)
                self._name, self._data = "message", []
        self._begun.append(beginning)


def json_data(name: str, written: str) -> Json:
    """The data of an event of coglet's. Raises PredictionFailed if it is not a JSON object."""
    try:
        data = json.loads(written)
    except (ValueError, RecursionError) as error:
        raise PredictionFailed(f"the server's event {name[:80]!r} is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise PredictionFailed(f"the server's event {name[:80]!r} is no JSON object")
    return data


def _refusal(response: httpx.Response, ask_health: Callable[[], httpx.Response]) -> PredictionRefused:
    """The error of a prediction that the server did not begin.

    Until setup() is done, coglet refuses streams with 406, as if they were not supported.
    """
    refused = response.status_code == httpx.codes.NOT_ACCEPTABLE
    if refused and (status := _status(ask_health())) not in (None, *READY):
        return PredictionRefused(httpx.codes.SERVICE_UNAVAILABLE, f"its status is {status}")
    return PredictionRefused(response.status_code, detail_of(response))


def _status(health: httpx.Response) -> Any:
    try:
        return health.json().get("status")
    except (ValueError, AttributeError, RecursionError):  # not coglet's format
        return None


def detail_of(response: httpx.Response) -> str:
    """What coglet or Replicate says of a request that it refuses."""
    try:
        return _reason(response.json())
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):  # not coglet's format
        return response.text


def _reason(body: Any) -> str:
    detail = body.get("detail")
    if isinstance(detail, list):
        return "; ".join(f"{problem['loc'][-1]}: {problem['msg']}" for problem in detail)
    return detail if isinstance(detail, str) else str(body.get("error", body))
