"""The bytes behind a URL, from any offset on, over HTTP with Range requests (RFC 9110, section 14)."""

import re
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import closing, suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any
from weakref import WeakSet

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection

from hermes.errors import WeightsError
from hermes.weights.remote import Interrupted, redacted

CONNECT_SECONDS, READ_SECONDS = 10.0, 30.0  # without a byte
CONNECTIONS = 16  # kept open to one host
PIECE, LEAST = 1 << 18, 1 << 16  # bytes of a piece, at most and at least
PASSING = {408, 425, 429, *range(500, 600)}  # statuses that another attempt may not meet
REFUSED = {
    401: "it wants a token, or another one",
    403: "it does not let us in",
    404: "there is nothing",
    410: "it is gone",
}


class Session(requests.Session):
    """Connections that threads share. Proxies and certificates are those of the environment."""

    def __init__(self) -> None:
        super().__init__()
        self.others: list[Callable[[], None]] = []  # what else hangs up, and is not HTTP
        self._adapter = _Adapter(pool_maxsize=CONNECTIONS)
        self.mount("https://", self._adapter)
        self.mount("http://", self._adapter)

    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        """On a redirect: no token goes to another host. A password of ~/.netrc, as requests has it, goes to none."""
        urls = str(response.request.url), str(prepared_request.url)
        if self.should_strip_auth(*urls):  # type: ignore[no-untyped-call] # its stub has no types
            prepared_request.headers.pop("Authorization", None)

    def hang_up(self) -> None:
        """Break off what threads are waiting for, which may be a host that has fallen silent."""
        for hang_up in (self._adapter.hang_up, *self.others):
            hang_up()


def break_off(reads: Sequence[Future[Any]], hang_up: Callable[[], None]) -> None:
    """End reads that nobody wants any more. More than once, for one of them may be about to connect."""
    going_on = {read for read in reads if not (read.done() or read.cancel())}
    while going_on:
        hang_up()
        going_on = wait(going_on, timeout=0.1).not_done


class _Adapter(HTTPAdapter):
    """Knows its connections, also those that are in use."""

    def __init__(self, **named: Any):
        self._made: WeakSet[HTTPConnection] = WeakSet()
        self._making = threading.Lock()
        super().__init__(**named)

    def get_connection_with_tls_context(self, *args: Any, **named: Any) -> Any:
        pool: Any = super().get_connection_with_tls_context(*args, **named)
        pool.ConnectionCls = partial(self._make, type(pool).ConnectionCls)
        return pool

    def _make(self, kind: type[HTTPConnection], *args: Any, **named: Any) -> HTTPConnection:
        connection = kind(*args, **named)
        with self._making:
            self._made.add(connection)
        return connection

    def hang_up(self) -> None:
        with self._making:
            made = list(self._made)
        for connection in made:
            with suppress(OSError, AttributeError):  # it is not connected
                connection.sock.shutdown(socket.SHUT_RDWR)


class HttpFile:
    """One URL. `size` in bytes and `version` are what it had when it was first asked for, where that is known."""

    def __init__(
        self,
        session: Session,
        url: str,
        what: object,
        *,
        headers: Mapping[str, str] | None = None,
        size: int | None = None,
        signs: bool = False,
    ):
        """Args:
        what: names it in errors.
        headers: sent along; `Authorization` does not follow a redirect to another host. Without any, ~/.netrc counts.
        signs: it redirects to signed URLs, so a 403 may be a signature that has run out meanwhile.
        """
        self.size = size
        self.version: tuple[str, str] | None = None  # a header that changes with the content, and its value
        self.hang_up = session.hang_up
        self._session = session
        self._url = url
        self._what = what
        self._headers = {**(headers or {}), "Accept-Encoding": "identity"}
        self._auth = _as_it_is if headers else None
        self._signs = signs

    def probe(self) -> bool:
        """Find out `size` and `version`, with a request for the first byte. Returns whether ranges are served.

        Raises:
            Interrupted, WeightsError: as for `read`.
        """
        with closing(self._get({"Range": "bytes=0-0"})) as response:
            found = ((name, response.headers.get(name)) for name in ("ETag", "Last-Modified"))
            self.version = next(((name, value) for name, value in found if value), None)
            self.size = _total(response)
            return bool(response.status_code == requests.codes.partial)

    def read(self, offset: int, end: int | None = None) -> Iterator[memoryview]:
        """The bytes from `offset` to `end` (exclusive; None is all). A host without ranges costs the bytes before it.

        Raises:
            Interrupted: it ended early, or could not begin, for a cause that may pass.
            WeightsError: the host said no.
        """
        wanted = {"Range": f"bytes={offset}-{'' if end is None else end - 1}"} if offset or end else {}
        with closing(self._get(wanted)) as response:
            self._check(response, offset)
            skip = offset if response.status_code == requests.codes.ok else 0
            yield from _window(_pieces(response), skip, None if end is None else skip + end - offset)

    def _get(self, headers: Mapping[str, str]) -> requests.Response:
        try:
            response = self._session.get(
                self._url,
                headers={**self._headers, **headers},
                auth=self._auth,
                stream=True,
                timeout=(CONNECT_SECONDS, READ_SECONDS),
            )
        except OSError as error:  # requests.RequestException is one
            raise Interrupted(_cause(error)) from None  # its text has the URL, with the signature
        if response.status_code in (requests.codes.ok, requests.codes.partial):
            return response
        response.close()
        said = redacted(response.headers.get("X-Error-Message") or response.reason or "")
        if response.status_code in PASSING or (self._signs and response.status_code == requests.codes.forbidden):
            raise Interrupted(f"HTTP {response.status_code} {said}", retry_after(response.headers))
        problem = REFUSED.get(response.status_code, "the host does not give it out")
        raise WeightsError(
            self._what, f"{problem} (HTTP {response.status_code} {said})", "check its address and access"
        )

    def _check(self, response: requests.Response, offset: int) -> None:
        total, version = _total(response), self.version
        if version and response.headers.get(version[0], version[1]) != version[1]:
            raise WeightsError(self._what, "it has changed while it was downloaded", "start again")
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise Interrupted("the host compresses what it should send as it is")
        if response.status_code == requests.codes.partial and _first(response) != offset:
            raise Interrupted(f"the host sent another range than the one from {offset} on")
        if None not in (total, self.size) and total != self.size:
            raise Interrupted(f"the host has {total} bytes where {self.size} are expected")


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """How requests is to sign a request: else it puts what ~/.netrc has in place of a token."""
    return request


def _pieces(response: requests.Response) -> Iterator[memoryview]:
    """A body in pieces of LEAST bytes and more, but for the last. What has come before a fault is given out, too."""
    small, size, fault = [], 0, None
    try:
        while some := response.raw.read1(PIECE):
            small.append(some)
            size += len(some)
            if size >= LEAST:
                yield memoryview(some if len(small) == 1 else b"".join(small))
                small, size = [], 0
    except (urllib3.exceptions.HTTPError, OSError) as error:
        fault = error
    if small:
        yield memoryview(b"".join(small))
    if fault:
        raise Interrupted(_cause(fault))


def _window(pieces: Iterator[memoryview], start: int, end: int | None) -> Iterator[memoryview]:
    """What lies between two offsets of a stream."""
    at = 0
    for piece in pieces:
        wanted = piece[max(0, start - at) : None if end is None else max(0, end - at)]
        at += len(piece)
        if wanted:
            yield wanted
        if end is not None and at >= end:
            return


def _total(response: requests.Response) -> int | None:
    """The size of the whole, of which this may be a part."""
    if response.status_code == requests.codes.partial:
        total = re.search(r"/(\d+)$", response.headers.get("Content-Range", ""))
        return int(total[1]) if total else None
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() else None


def _first(response: requests.Response) -> int | None:
    first = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(first[1]) if first else None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds from a Retry-After header, which holds seconds or a date."""
    value = headers.get("Retry-After", "")
    if value.isdecimal():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


def _cause(error: BaseException) -> str:
    """The innermost of nested errors, which says what happened."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    return f"{type(error).__name__}: {error}"
