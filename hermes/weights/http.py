"""The bytes behind a URL, from any offset on, over HTTP with Range requests (RFC 9110, section 14)."""

import re
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import requests
import urllib3
from requests.adapters import HTTPAdapter

from hermes.errors import WeightsError
from hermes.weights.remote import Interrupted

CONNECT_SECONDS, READ_SECONDS = 10.0, 30.0  # without a byte
PIECE = 1 << 20  # bytes
PASSING = {408, 425, 429, 500, 502, 503, 504}  # statuses that another attempt may not meet
REFUSED = {
    401: "it wants a token, or another one",
    403: "it does not let us in",
    404: "there is nothing",
    410: "it is gone",
}


def new_session(connections: int) -> requests.Session:
    """A session that threads may share. Proxies and certificates are those of the environment."""
    session = requests.Session()
    adapter = HTTPAdapter(pool_maxsize=connections)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session


class HttpFile:
    """One URL. `size` in bytes and `etag` are what it had when it was first asked for, where that is known."""

    def __init__(
        self,
        session: requests.Session,
        url: str,
        what: object,
        *,
        headers: Mapping[str, str] | None = None,
        size: int | None = None,
        etag: str | None = None,
        signs: bool = False,
    ):
        """Args:
        what: names it in errors.
        headers: sent along; `Authorization` does not follow a redirect to another host.
        signs: it redirects to signed URLs, so a 403 may be a signature that has run out meanwhile.
        """
        self.size = size
        self.etag = etag
        self._session = session
        self._url = url
        self._what = what
        self._headers = {**(headers or {}), "Accept-Encoding": "identity"}
        self._signs = signs

    def probe(self) -> bool:
        """Find out `size` and `etag`, with a request for the first byte. Returns whether ranges are served.

        Raises:
            Interrupted, WeightsError: as for `read`.
        """
        with closing(self._get({"Range": "bytes=0-0"})) as response:
            self.etag = response.headers.get("ETag")
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
                self._url, headers={**self._headers, **headers}, stream=True, timeout=(CONNECT_SECONDS, READ_SECONDS)
            )
        except OSError as error:  # requests.RequestException is one
            raise Interrupted(_cause(error)) from error
        if response.status_code in (requests.codes.ok, requests.codes.partial):
            return response
        response.close()
        said = response.headers.get("X-Error-Message") or response.reason
        if response.status_code in PASSING or (self._signs and response.status_code == requests.codes.forbidden):
            raise Interrupted(f"HTTP {response.status_code} {said}", _retry_after(response.headers.get("Retry-After")))
        problem = REFUSED.get(response.status_code, "the host does not give it out")
        raise WeightsError(
            self._what, f"{problem} (HTTP {response.status_code} {said})", "check its address and access"
        )

    def _check(self, response: requests.Response, offset: int) -> None:
        total, etag = _total(response), response.headers.get("ETag")
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise Interrupted("the host compresses what it should send as it is")
        if response.status_code == requests.codes.partial and _first(response) != offset:
            raise Interrupted(f"the host sent another range than the one from {offset} on")
        if None not in (total, self.size) and total != self.size:
            raise Interrupted(f"the host has {total} bytes where {self.size} are expected")
        if self.etag and etag and etag != self.etag:
            raise WeightsError(self._what, "it has changed while it was downloaded", "start again")


def _pieces(response: requests.Response) -> Iterator[memoryview]:
    piece = memoryview(bytearray(PIECE))
    try:
        while count := response.raw.readinto(piece):
            yield piece[:count]
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise Interrupted(_cause(error)) from error


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
    length = response.headers.get("Content-Length")
    return int(length) if length else None


def _first(response: requests.Response) -> int | None:
    first = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(first[1]) if first else None


def _retry_after(value: str | None) -> float | None:
    """Seconds from a Retry-After header, which holds seconds or a date."""
    if not value:
        return None
    if value.isdigit():
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
