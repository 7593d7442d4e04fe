"""Reads the bytes of a URL from any offset, with HTTP Range requests (RFC 9110, section 14).

This uses requests. With httpx2 2.16, the client of huggingface_hub, fetches had 0.73 of the speed (2 GB, loopback).
"""

import re
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import closing, suppress
from functools import partial
from typing import Any
from urllib.parse import urlsplit
from weakref import WeakSet

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection

from hermes.environment import ca_certificates
from hermes.errors import WeightsError
from hermes.text import redacted
from hermes.weights.causes import PASSING, fault_of, innermost, proxy
from hermes.weights.remote import Interrupted, PermanentFault
from hermes.weights.waits import retry_after

CONNECT_SECONDS, READ_SECONDS = 10.0, 30.0  # seconds that a host may be silent
CONNECTIONS = 16  # to one host, kept open
PIECE, LEAST = 1 << 18, 1 << 16  # most and least bytes of a piece
REFUSED = {
    401: "the host wants a valid token",
    403: "the host refuses access",
    404: "there is nothing",
    407: "the proxy wants a user and a password",
    410: "it is gone",
    511: "the network wants a log-in",
}
AS_IT_IS = "take a host, or a way to it, that sends the file as it is"
COMPRESSED = {"gzip", "x-gzip", "deflate", "compress", "x-compress", "br", "zstd"}  # other codings change no byte
OWN_ENCODINGS = {".gz": ("gzip", "x-gzip"), ".tgz": ("gzip", "x-gzip"), ".zst": ("zstd",)}  # which describe the file


class Session(requests.Session):
    """Connections that threads share. The environment sets proxies and certificates."""

    def __init__(self) -> None:
        super().__init__()
        self.others: list[Callable[[], None]] = []  # hang up other transfers than HTTP
        self._adapter = _Adapter(pool_maxsize=CONNECTIONS)
        self.mount("https://", self._adapter)
        self.mount("http://", self._adapter)

    def merge_environment_settings(self, url: Any, *others: Any) -> Any:
        """The proxy, from the same variables as for huggingface_hub and for the client."""
        _, stream, _, cert = others
        return {"proxies": _proxies(url), "stream": stream, "verify": True, "cert": cert}

    def rebuild_proxies(self, prepared_request: requests.PreparedRequest, _: Any) -> Any:
        """The proxy for a URL that another one redirects to."""
        prepared_request.headers.pop("Proxy-Authorization", None)
        return _proxies(str(prepared_request.url))

    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        """Remove the token on a redirect to another host. This override adds no password of ~/.netrc."""
        urls = str(response.request.url), str(prepared_request.url)
        if self.should_strip_auth(*urls):  # type: ignore[no-untyped-call] # its stub has no types
            prepared_request.headers.pop("Authorization", None)

    def hang_up(self) -> None:
        """End the reads of all threads, also those that wait for a silent host."""
        for hang_up in (self._adapter.hang_up, *self.others):
            hang_up()


def _proxies(url: str) -> dict[str, str]:
    found = proxy(url)
    return {url.partition(":")[0]: found.url} if found else {}


def break_off(reads: Sequence[Future[Any]], hang_up: Callable[[], None]) -> None:
    """End reads that are no longer wanted. It hangs up repeatedly, because a read may be about to connect."""
    going_on = {read for read in reads if not (read.done() or read.cancel())}
    while going_on:
        hang_up()
        going_on = wait(going_on, timeout=0.1).not_done


class _Adapter(HTTPAdapter):
    """Knows all its connections, including those in use."""

    def __init__(self, **named: Any):
        self._made: WeakSet[HTTPConnection] = WeakSet()
        self._making = threading.Lock()
        super().__init__(**named)

    def get_connection_with_tls_context(self, *args: Any, **named: Any) -> Any:
        pool: Any = super().get_connection_with_tls_context(*args, **named)
        pool.ConnectionCls = partial(self._make, type(pool).ConnectionCls)
        return pool

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """Set the certificates to trust. This override takes several folders, too."""
        found = ca_certificates()
        super().cert_verify(conn, url, verify, cert)  # type: ignore[no-untyped-call] # its stub has no types
        if found:
            conn.ca_certs, conn.ca_cert_dir = found.get("cafile"), found.get("capath")

    def _make(self, kind: type[HTTPConnection], *args: Any, **named: Any) -> HTTPConnection:
        connection = kind(*args, **named)
        with self._making:
            self._made.add(connection)
        return connection

    def hang_up(self) -> None:
        with self._making:
            made = list(self._made)
        for connection in made:
            with suppress(OSError, AttributeError):  # the connection is not open
                connection.sock.shutdown(socket.SHUT_RDWR)


class HttpFile:
    """One URL. `size` in bytes and `version` are those of the first response; None if unknown."""

    def __init__(
        self,
        session: Session,
        url: str,
        what: object,
        *,
        headers: Mapping[str, str] | None = None,
        size: int | None = None,
    ):
        """Args:
        session: has the connections.
        url: the address.
        what: names the file in errors.
        headers: of each request. A redirect to another host drops `Authorization`. With None, ~/.netrc applies.
        size: the expected size in bytes; None if unknown.
        """
        self.size = size
        self.version: tuple[str, str] | None = None  # name and value of a header that changes with the content
        self.hang_up = session.hang_up
        self._session = session
        self._url = url
        self._what = what
        self._headers = {**(headers or {}), "Accept-Encoding": "identity"}
        self._auth = _as_it_is if headers else None

    def probe(self) -> bool:
        """Set `size` and `version` with a request for the first byte. Returns whether the host serves ranges.

        Raises:
            Interrupted: the request failed for a cause that may pass.
            WeightsError: the host refused.
        """
        with closing(self._get({"Range": "bytes=0-0"})) as response:
            found = ((name, _strong(response.headers.get(name))) for name in ("ETag", "Last-Modified"))
            self.version = next(((name, value) for name, value in found if value), None)
            self.size = _total(response)
            return bool(response.status_code == requests.codes.partial)

    def read(self, offset: int, end: int | None = None) -> Iterator[memoryview]:
        """The bytes from `offset` to `end` (exclusive; None for all). A host without ranges sends those before, too.

        Raises:
            Interrupted: the transfer failed for a cause that may pass.
            WeightsError: the host refused, or the file has changed.
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
        except (OSError, ValueError) as error:  # requests.RequestException, and urllib3's of an address
            raise fault_of(self._what, error, self._url) from None  # its text holds the URL with the signature
        if response.status_code in (requests.codes.ok, requests.codes.partial) and not self._is_page(response):
            return response
        response.close()
        if response.ok:
            raise PermanentFault("the host, or a proxy, sent a page of HTML in place of the file", AS_IT_IS)
        said = redacted(response.headers.get("X-Error-Message") or response.reason or "")
        if response.status_code in PASSING or _has_expired(response):
            asked = retry_after(response.headers, response.status_code)
            raise Interrupted(f"HTTP {response.status_code} {said}", asked)
        problem = REFUSED.get(response.status_code, "the host refuses the request")
        raise WeightsError(
            self._what, f"{problem} (HTTP {response.status_code} {said})", "check the address and your access"
        )

    def _is_page(self, response: requests.Response) -> bool:
        """Whether a response says that it is HTML, such as the log-in of a proxy, and is not of the expected size."""
        kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        return kind == "text/html" and (self.size is None or _total(response) != self.size)

    def _check(self, response: requests.Response, offset: int) -> None:
        total, version = _total(response), self.version
        if version and _strong(response.headers.get(version[0], version[1])) != version[1]:
            raise WeightsError(self._what, "it changed during the download", "start again")
        encodings = re.split(r"[\s,]+", response.headers.get("Content-Encoding", "").lower())
        own = next((own for end, own in OWN_ENCODINGS.items() if urlsplit(self._url).path.lower().endswith(end)), ())
        if compressed := COMPRESSED.difference(own).intersection(encodings):
            problem = f"the host sends the file compressed, with Content-Encoding {min(compressed)!r}"
            raise PermanentFault(problem, AS_IT_IS)
        if response.status_code == requests.codes.partial and _first(response) != offset:
            raise Interrupted(f"the host did not send the range from byte {offset}")
        if None not in (total, self.size) and total != self.size:
            raise Interrupted(f"the host has {total} bytes instead of {self.size}")


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Keep the request. Without this, requests replaces the token by a password from ~/.netrc."""
    return request


def _strong(version: str | None) -> str | None:
    """An ETag without the mark of a weak one, which a compressing proxy adds."""
    return version and version.removeprefix("W/")


def _has_expired(response: requests.Response) -> bool:
    """Whether the signature of a URL that another one redirects to may be why. The hub itself sends X-Error-Code."""
    redirected = response.history and urlsplit(response.url).query and "X-Error-Code" not in response.headers
    return response.status_code == requests.codes.forbidden and bool(redirected)


def _pieces(response: requests.Response) -> Iterator[memoryview]:
    """A body in pieces of at least LEAST bytes, except the last. It yields all bytes before a fault."""
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
        cause = innermost(fault)
        raise Interrupted(f"{type(cause).__name__}: {cause}")


def _window(pieces: Iterator[memoryview], start: int, end: int | None) -> Iterator[memoryview]:
    """The bytes between two offsets of a stream."""
    at = 0
    for piece in pieces:
        wanted = piece[max(0, start - at) : None if end is None else max(0, end - at)]
        at += len(piece)
        if wanted:
            yield wanted
        if end is not None and at >= end:
            return


def _total(response: requests.Response) -> int | None:
    """The size of the whole file in bytes, also if the response is a part; None if unknown."""
    if response.status_code == requests.codes.partial:
        total = re.search(r"/(\d+)$", response.headers.get("Content-Range", ""))
        return int(total[1]) if total else None
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() else None


def _first(response: requests.Response) -> int | None:
    first = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(first[1]) if first else None
