"""The test servers answer with these replies, and refuse with these errors."""

import hashlib
import io
import json
import re
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any


class Content:
    """Bytes in memory or in a file."""

    def __init__(self, source: bytes | Path):
        self.source = source

    def open(self):
        return self.source.open("rb") if isinstance(self.source, Path) else io.BytesIO(self.source)

    @cached_property
    def size(self):
        return self.source.stat().st_size if isinstance(self.source, Path) else len(self.source)

    @cached_property
    def sha256(self):
        with self.open() as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @cached_property
    def git_oid(self):
        with self.open() as file:
            return hashlib.file_digest(file, lambda: hashlib.sha1(b"blob %d\0" % self.size)).hexdigest()


@dataclass(frozen=True)
class Reply:
    """An answer, and how it goes wrong: `strike` is called when `cut` bytes of the body are out."""

    status: int
    headers: dict
    content: Content
    start: int = 0
    length: int = 0
    ranges: bool = False
    chunked: bool = False
    is_file: bool = False
    flip: int = -1  # the byte of the content that arrives changed
    cut: int = 0
    strike: Any = lambda handler: None

    @classmethod
    def of(cls, source, headers=(), status=200, **more):
        content = source if isinstance(source, Content) else Content(source)
        return cls(status, dict(headers), content, length=content.size, **more)

    @classmethod
    def file(cls, content, etag, headers=(), **more):
        headers = {"Content-Type": "application/octet-stream", "ETag": etag, **dict(headers)}
        return cls.of(content, headers, is_file=True, **more)

    @classmethod
    def text(cls, status, text, headers=(), kind="text/plain; charset=utf-8"):
        return cls.of(text.encode(), {"Content-Type": kind, **dict(headers)}, status)

    @classmethod
    def json(cls, value, headers=(), status=200):
        return cls.text(status, json.dumps(value), headers, "application/json; charset=utf-8")

    def ranged(self, wanted, if_range):
        """The part of a 200 that a Range header asks for: https://www.rfc-editor.org/rfc/rfc9110#name-range-requests"""
        match = re.fullmatch(r"bytes=(?:(\d+)-(\d*)|-(\d+))", wanted or "")
        if not (match and self.ranges) or if_range not in (None, self.headers.get("ETag")):
            return self
        first, last, suffix = (int(number) if number else None for number in match.groups())
        size = self.content.size
        start = max(0, size - suffix) if first is None else first
        stop = size if last is None else min(last + 1, size)
        if start >= stop:
            return Reply.text(416, "", {"Content-Range": f"bytes */{size}"})
        headers = {**self.headers, "Content-Range": f"bytes {start}-{stop - 1}/{size}"}
        return replace(self, status=206, headers=headers, start=start, length=stop - start)

    def piece(self, file, start, stop):
        """Bytes of the content, one of them flipped where that was asked for, with zeros after its end."""
        file.seek(start)
        data = bytearray(file.read(stop - start).ljust(stop - start, b"\0"))
        if start <= self.flip < stop:
            data[self.flip - start] ^= 0xFF
        return data

    def is_plain(self, start, stop):
        return stop <= self.content.size and not start <= self.flip < stop


class Refused(Exception):
    """A request that is answered with an error, for the hub's client to make an exception of it again."""

    def __init__(self, status, code, message, headers=()):
        super().__init__(message)
        codes = {"X-Error-Code": code} if code else {}
        self.reply = Reply.json({"error": message}, {**codes, "X-Error-Message": message, **dict(headers)}, status)
