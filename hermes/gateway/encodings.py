"""The Content-Encoding of a request's body: gzip and deflate (RFC 9110, section 8.4.1), a piece at a time."""

import zlib

from starlette.datastructures import Headers

from hermes.gateway.problems import Problem

WINDOWS = {"gzip": 31, "x-gzip": 31, "deflate": 15}  # the wbits of zlib, which also say what header comes
PIECE_BYTES = 256 * 2**10


def encoding_of(headers: Headers) -> str:
    """Returns the encoding of a body, "" for none. Raises Problem for one that the gateway does not read."""
    said = ", ".join(headers.getlist("content-encoding"))
    encoding = said.strip().lower()
    if encoding in WINDOWS:
        return encoding
    if encoding not in ("", "identity"):
        raise Problem(415, f"the Content-Encoding is {said[:80]}; send the body with gzip, deflate or none")
    return ""


class Decoder:
    """Reads a compressed body."""

    def __init__(self, encoding: str, body: bytes):
        self._encoding, self._left = encoding, body
        self._zlib = zlib.decompressobj(WINDOWS[encoding])

    def next(self) -> bytes:
        """Returns the next piece, b"" after the last. Raises Problem if the body is not what its encoding says."""
        if self._zlib.eof:
            return b""
        left, self._left = self._left, b""  # a traceback may keep this object
        try:
            piece = self._zlib.decompress(left, PIECE_BYTES)
        except zlib.error as error:
            raise self._unreadable(str(error)) from None
        self._left = self._zlib.unconsumed_tail
        if self._zlib.unused_data:
            raise self._unreadable("something comes after its end")
        if not (piece or self._zlib.eof):
            raise self._unreadable("it ends too early")
        return piece

    def _unreadable(self, why: str) -> Problem:
        return Problem(400, f"the body cannot be read as {self._encoding}: {why}")
