"""A Hugging Face hub, its CDN and a plain file server on 127.0.0.1, for the real clients, with faults on demand.

It answers as huggingface.co did in 2026 (https://huggingface.co/docs/hub/api): a small file is a 307 to the same host,
an LFS file a 302 to a signed URL on another one, here http://localhost, where a token must not follow. The bytes of a
Xet file come from a local:// folder through the real hf_xet. Everything else is HTTP/1.1 with ranges and keep-alive.
"""

import gzip
import hashlib
import io
import json
import math
import os
import re
import shutil
import socket
import socketserver
import struct
import tempfile
import termios
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fcntl import ioctl
from fnmatch import fnmatchcase
from functools import cached_property
from http.server import BaseHTTPRequestHandler
from itertools import count
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

SLICE_BYTES = 1 << 20
EXACT_SLICE_BYTES = 1 << 14  # while somebody waits for an exact byte


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


class Fault:
    """What goes wrong with one answer. Most wait for a request that is answered with a body, and not a redirect."""

    def harms(self, reply):
        return reply.status < 300


class FaultOfServer(Fault):
    """An answer that has nothing to do with the question."""

    def harms(self, reply):
        return True


@dataclass(frozen=True)
class Status(FaultOfServer):
    """An error of the server."""

    code: int
    retry_after: int | None = None

    def spoil(self, reply):
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return Reply.text(self.code, f"status {self.code}, as the test asked", headers)


@dataclass(frozen=True)
class Html(FaultOfServer):
    """The login page of a captive portal, with 200."""

    def spoil(self, reply):
        return Reply.text(200, "<!DOCTYPE html><html><body>Please log in.</body></html>\n", kind="text/html")


@dataclass(frozen=True)
class Reset(Fault):
    """The connection breaks (RST) after so many bytes of the body; after=0: before the answer's first line."""

    after: int

    def spoil(self, reply):
        return replace(reply, cut=self.after, strike=Handler.reset)


@dataclass(frozen=True)
class Truncate(Fault):
    """The connection ends in good order (FIN) after so many bytes of the body, fewer than Content-Length says."""

    after: int

    def spoil(self, reply):
        return replace(reply, cut=self.after, strike=Handler.hang_up)


@dataclass(frozen=True)
class Stall(Fault):
    """Nothing comes for so many seconds after so many bytes of the body; then the rest does."""

    after: int
    seconds: float = 3600

    def spoil(self, reply):
        return replace(reply, cut=self.after, strike=lambda handler: handler.wait(self.seconds))


@dataclass(frozen=True)
class Corrupt(Fault):
    """The byte at this offset of the whole file arrives flipped; waits for a request whose range holds it."""

    at: int

    def harms(self, reply):
        return reply.status < 300 and reply.start <= self.at < reply.start + reply.length

    def spoil(self, reply):
        return replace(reply, flip=self.at)


@dataclass(frozen=True)
class WrongLength(Fault):
    """Body and Content-Length are so many bytes longer (zeros after the file's end) or shorter than they should be."""

    delta: int

    def spoil(self, reply):
        return replace(reply, length=max(0, reply.length + self.delta))


@dataclass(frozen=True)
class NoRange(Fault):
    """A range is answered with 200 and the whole file; waits for a request with a Range header."""

    def harms(self, reply):
        return reply.status == 206

    def spoil(self, reply):
        headers = {name: value for name, value in reply.headers.items() if name != "Content-Range"}
        return Reply.of(reply.content, headers, is_file=True) if reply.status == 206 else reply


@dataclass
class Armed:
    """A fault with the requests it is for and the times it is still to happen."""

    match: str
    fault: Fault
    times: float
    method: str
    skip: int
    looks: bool

    def hits(self, method, path, reply, look):
        if (
            look != self.looks
            or self.method not in ("*", method)
            or not (self.match in path or fnmatchcase(path, self.match))
        ):
            return False
        if self.skip:
            self.skip -= 1
            return False
        return method == "HEAD" or self.fault.harms(reply)


class Asked(NamedTuple):
    """A request that came in."""

    method: str
    path: str  # with its query
    range: str | None
    has_authorization: bool

    @property
    def is_look(self):
        """Whether only the first bytes are wanted, to see what the file is."""
        return bool(re.fullmatch(r"bytes=0-([1-9]|[1-5]\d|6[0-3])", self.range or ""))


class Call(NamedTuple):
    """What the routes read of a request."""

    path: str
    query: dict
    token: str | None
    takes_gzip: bool


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def handle(self):
        with suppress(ConnectionError):  # the client went away, or a fault had its way
            super().handle()

    def log_message(self, *args):
        pass

    def answer(self):
        owner = self.server.owner
        asked = Asked(self.command, self.path, self.headers["Range"], "Authorization" in self.headers)
        (owner.looks if asked.is_look else owner.requests).append(asked)
        try:
            reply = owner.reply_to(self.call())
        except Refused as refused:
            reply = refused.reply
        if self.command == "GET":
            reply = reply.ranged(self.headers["Range"], self.headers["If-Range"])
        self.counts = not asked.is_look
        self.send(owner.spoiled(self.command, self.path, reply, asked.is_look))

    do_GET = do_HEAD = answer  # noqa: N815

    def call(self):
        url = urlsplit(self.path)
        token = (self.headers["Authorization"] or "").removeprefix("Bearer ") or None
        return Call(url.path, dict(parse_qsl(url.query)), token, "gzip" in (self.headers["Accept-Encoding"] or ""))

    def send(self, reply):
        cut = min(reply.cut, reply.length) if self.command == "GET" else 0
        if not cut:
            reply.strike(self)
        self.send_head(reply)
        if self.command == "HEAD":
            return
        self.send_body(reply, 0, cut)
        if cut:
            reply.strike(self)
        self.send_body(reply, cut, reply.length)
        if reply.chunked:
            self.wfile.write(b"0\r\n\r\n")

    def send_head(self, reply):
        framing = {"Transfer-Encoding": "chunked"} if reply.chunked else {"Content-Length": reply.length}
        ranges = {"Accept-Ranges": "bytes"} if reply.ranges else {}
        self.send_response(reply.status)
        for name, value in {**reply.headers, **framing, **ranges}.items():
            self.send_header(name, str(value))
        self.end_headers()

    def send_body(self, reply, start, stop):
        with reply.content.open() as file:
            while start < stop:
                size = self.server.owner.count_slice(stop - start) if reply.is_file and self.counts else stop - start
                self.send_slice(reply, file, reply.start + start, size)
                self.server.owner.ring_alarms()
                start += size

    def send_slice(self, reply, file, start, size):
        if reply.chunked:
            self.wfile.write(b"%x\r\n" % size)
        if reply.is_plain(start, start + size):
            self.connection.sendfile(file, start, size)
        else:
            self.wfile.write(reply.piece(file, start, start + size))
        if reply.chunked:
            self.wfile.write(b"\r\n")

    def hang_up(self):
        raise ConnectionAbortedError("as the test asked")

    def reset(self):
        deadline = time.monotonic() + 10
        while self.unacknowledged() and time.monotonic() < deadline:
            time.sleep(0.001)  # an RST throws away what has not arrived
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())  # close() would wait for rfile, and socketserver would send a FIN before
        self.hang_up()

    def unacknowledged(self):
        return struct.unpack("i", ioctl(self.connection, termios.TIOCOUTQ, bytes(4)))[0]

    def wait(self, seconds):
        if self.server.owner.closing.wait(seconds):
            self.hang_up()


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, owner):
        self.owner = owner
        self.connections = set()
        super().__init__(("127.0.0.1", 0), Handler)

    def process_request(self, request, client_address):
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request):
        self.connections.discard(request)
        super().shutdown_request(request)

    def hang_up(self):
        for connection in list(self.connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class FileServer:
    """Files at paths. It serves from the moment it is made until close()."""

    def __init__(self):
        self.requests = []  # each an Asked, but for
        self.looks = []  # those that are only for the first bytes of a file
        self.bytes_sent = 0  # of files, and no other bodies; counted as they go into the socket
        self.closing = threading.Event()
        self._files, self._faults, self._alarms = {}, [], []
        self._lock = threading.Lock()
        self._server = Server(self)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="test-server")
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def close(self):
        self.closing.set()
        self._server.shutdown()
        self._server.hang_up()
        self._server.server_close()  # joins the threads of the connections
        self._thread.join()

    def add_file(self, path, source, ranges=True):
        """Bytes or a Path to serve at a path; returns the URL."""
        self._files[path] = (Content(source), ranges)
        return self.url + path

    def reply_to(self, call):
        if call.path not in self._files:
            return Reply.text(404, "Not Found")
        content, ranges = self._files[call.path]
        return Reply.file(content, f'"{content.sha256}"', ranges=ranges)

    def clear(self):
        """Forgets requests, faults, callbacks and bytes sent."""
        with self._lock:
            for things in (self.requests, self.looks, self._faults, self._alarms):
                things.clear()
            self.bytes_sent = 0

    def fail(self, match, fault, times=1, method="GET", skip=0, looks=False):
        """The next `times` (None: all) requests whose path and query contain or fnmatch `match` meet the fault.

        The first `skip` of them pass. It is for the looks at a file's first bytes, or for the other requests.
        """
        with self._lock:
            self._faults.append(Armed(match, fault, math.inf if times is None else times, method, skip, looks))

    def on_bytes(self, number, callback):
        """Calls back, once, when that many bytes of files are out and before any more of the same answer is."""
        with self._lock:
            self._alarms.append((number, callback))

    def spoiled(self, method, path, reply, look):
        with self._lock:
            armed = next((armed for armed in self._faults if armed.hits(method, path, reply, look)), None)
            if armed is None:
                return reply
            armed.times -= 1
            if armed.times <= 0:
                self._faults.remove(armed)
        return armed.fault.spoil(reply)

    def count_slice(self, left):
        """How much of `left` to send next. It counts at once: a client that has it all must not see less counted."""
        with self._lock:
            until = [max(1, number - self.bytes_sent) for number, _ in self._alarms]
            size = min([left, EXACT_SLICE_BYTES, *until] if until else [left, SLICE_BYTES])
            self.bytes_sent += size
            return size

    def ring_alarms(self):
        with self._lock:
            due = [alarm for alarm in self._alarms if alarm[0] <= self.bytes_sent]
            self._alarms = [alarm for alarm in self._alarms if alarm not in due]
        for _, callback in due:
            callback()


@dataclass(frozen=True)
class RepoFile:
    path: str
    content: Content
    lfs: bool
    xet_hash: str | None = None

    @property
    def pointer(self):
        """What git keeps of an LFS file: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md"""
        facts = f"oid sha256:{self.content.sha256}\nsize {self.content.size}\n"
        return f"version https://git-lfs.github.com/spec/v1\n{facts}".encode()

    @cached_property
    def oid(self):
        return (Content(self.pointer) if self.lfs else self.content).git_oid

    @property
    def etag(self):
        return f'"{self.content.sha256 if self.lfs else self.oid}"'

    def lfs_facts(self, digest):
        """The two APIs name the sha256 differently."""
        facts = {digest: self.content.sha256, "size": self.content.size, "pointerSize": len(self.pointer)}
        return {"lfs": facts} if self.lfs else {}

    def as_sibling(self, blobs):
        facts = {"blobId": self.oid, "size": self.content.size, **self.lfs_facts("sha256")}
        return {"rfilename": self.path} | (facts if blobs else {})

    def as_tree_item(self):
        facts = {"type": "file", "path": self.path, "oid": self.oid, "size": self.content.size}
        return facts | self.lfs_facts("oid") | ({"xetHash": self.xet_hash} if self.xet_hash else {})


@dataclass
class Repo:
    """A model repository: `commit` is its newest, and the earlier ones stay."""

    name: str
    commit: str = ""
    commits: dict[str, dict[str, RepoFile]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    gated: bool | str = False
    private_token: str | None = None
    small_files_gzip: bool = False

    def commit_of(self, revision):
        commit = self.refs.get(revision, revision)
        if commit not in self.commits:
            raise Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    def file(self, commit, path):
        if path not in self.commits[commit]:
            raise Refused(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": commit})
        return self.commits[commit][path]

    def check_gate(self, token):
        if self.gated and (self.gated is True or token != self.gated):
            message = f"Access to model {self.name} is restricted and you are not in the authorized list."
            raise Refused(403 if token else 401, "GatedRepo", message)

    def tree(self, commit, folder, recursive):
        files = self.commits[commit]
        folders = {".", *(str(parent) for path in files for parent in PurePosixPath(path).parents)}
        if (folder or ".") not in folders:
            raise Refused(404, "EntryNotFound", f"{folder} does not exist on this revision")
        items = {path: file.as_tree_item() for path, file in files.items()}
        items |= {path: folder_item(path) for path in folders - {"."}}
        below = [path for path in items if is_below(path, folder or ".", recursive)]
        return [items[path] for path in sorted(below)]


def folder_item(path):
    return {"type": "directory", "path": path, "oid": Content(path.encode()).git_oid, "size": 0}


def is_below(path, folder, recursive):
    parents = [str(parent) for parent in PurePosixPath(path).parents]
    return folder in parents if recursive else folder == parents[0]


class HubServer(FileServer):
    """The hub and its CDN."""

    def __init__(self, page_size=1000):
        super().__init__()
        self.cdn_url = self.url.replace("127.0.0.1", "localhost")  # another host, in the eyes of every client
        self.page_size = page_size  # of tree listings
        self._repos, self._cdn = {}, {}
        self._signature = 123
        self._folder = tempfile.TemporaryDirectory(prefix="hub-server-")
        self._cas_copies = count()

    def close(self):
        super().close()
        self._folder.cleanup()

    def add_repo(
        self,
        name,
        files,
        *,
        lfs=("*.safetensors",),
        xet=False,
        commit=None,
        branches=("main",),
        tags=(),
        gated=False,  # True: nobody may have the files; a token: its owner may
        private_token=None,
        small_files_gzip=False,
    ):
        """A repository, or another commit of one that is there: its branches move on, the old commit stays."""
        found = {path: self._repo_file(path, source, lfs, xet) for path, source in files.items()}
        commit = commit or Content(json.dumps({path: file.oid for path, file in found.items()}).encode()).git_oid
        repo = self._repos.setdefault(name, Repo(name))
        repo.commit, repo.gated, repo.private_token = commit, gated, private_token
        repo.small_files_gzip = small_files_gzip
        repo.commits[commit] = found
        repo.refs.update(dict.fromkeys([*branches, *tags], commit))
        return repo

    def _repo_file(self, path, source, lfs, xet):
        content = Content(source)
        if not any(fnmatchcase(path, pattern) for pattern in lfs):
            return RepoFile(path, content, lfs=False)
        file = RepoFile(path, content, lfs=True, xet_hash=self._upload(content) if xet else None)
        self._cdn[content.sha256] = file
        return file

    def _upload(self, content):
        """The content's hash in the CAS folder, whose database is locked for as long as the session lives."""
        from hf_xet import XetSession

        with XetSession().new_upload_commit(endpoint=f"local://{self.cas}") as commit, content.open() as file:
            upload = commit.start_upload_bytes(file.read())
        return upload.result().xet_info.hash

    @property
    def cas(self):
        """The folder with the chunks of Xet's files; each client gets a copy with its token."""
        return Path(self._folder.name, "cas")

    def expire_signatures(self):
        """The CDN's URLs that were given out answer 403 from now on."""
        self._signature += 1

    def reply_to(self, call):
        for pattern, route in self.ROUTES:
            if match := re.fullmatch(pattern, call.path):
                return route(self, call, *(unquote(group or "") for group in match.groups()))
        return super().reply_to(call)

    def _repo(self, call, name):
        repo = self._repos.get(name)
        if repo and repo.private_token in (None, call.token):
            return repo
        if repo and call.token:
            raise Refused(401, None, "Invalid credentials in Authorization header")
        if call.token:
            raise Refused(404, "RepoNotFound", "Repository not found")
        # The real hub leaves the code out here: its client knows the case by the URL, but only by one with https.
        raise Refused(401, "RepoNotFound", "Invalid username or password.", {"WWW-Authenticate": "Bearer"})

    def _model(self, call, name, revision):
        repo = self._repo(call, name)
        commit = repo.commit_of(revision or "main")
        siblings = [file.as_sibling("blobs" in call.query) for file in repo.commits[commit].values()]
        facts = {"private": bool(repo.private_token), "gated": "manual" if repo.gated else False, "siblings": siblings}
        return Reply.json({"id": name, "modelId": name, "sha": commit, **facts})

    def _tree(self, call, name, revision, folder):
        repo = self._repo(call, name)
        recursive = call.query.get("recursive", "").lower() in ("true", "1")
        items = repo.tree(repo.commit_of(revision), folder, recursive)
        start = int(call.query.get("cursor", 0))
        stop = start + self.page_size
        following = f"{self.url}{call.path}?{urlencode({**call.query, 'cursor': stop})}"
        return Reply.json(items[start:stop], {"Link": f'<{following}>; rel="next"'} if stop < len(items) else {})

    def _resolve(self, call, name, revision, path):
        repo = self._repo(call, name)
        repo.check_gate(call.token)
        commit = repo.commit_of(revision)
        file = repo.file(commit, path)
        headers = {"X-Repo-Commit": commit, "X-Linked-ETag": file.etag, "Accept-Ranges": "bytes"}
        if file.lfs:
            return self._to_cdn(file, headers | self._xet_headers(file, name, commit))
        same = urlencode({call.path: "", "etag": file.etag})
        location = f"/api/resolve-cache/models/{name}/{commit}/{quote(path)}?{same}"
        return Reply.text(307, f"Temporary Redirect. Redirecting to {location}", {**headers, "Location": location})

    def _to_cdn(self, file, headers):
        disposition = f'inline; filename="{PurePosixPath(file.path).name}"'
        query = {"response-content-disposition": disposition, "X-Amz-Signature": self.signature}
        location = f"{self.cdn_url}/cdn/{file.content.sha256}?{urlencode(query)}"
        headers = {**headers, "X-Linked-Size": file.content.size, "Location": location}
        return Reply.text(302, f"Found. Redirecting to {location}", headers)

    def _xet_headers(self, file, name, commit):
        if not file.xet_hash:
            return {}
        route = f"{self.url}/api/models/{name}/xet-read-token/{commit}"
        return {"X-Xet-Hash": file.xet_hash, "X-Xet-Refresh-Route": route, "Link": f'<{route}>; rel="xet-auth"'}

    def _resolve_cache(self, call, name, commit, path):
        repo = self._repo(call, name)
        repo.check_gate(call.token)
        file = repo.file(repo.commit_of(commit), path)
        headers = {"X-Repo-Commit": commit, "Content-Type": "text/plain; charset=utf-8"}
        if repo.small_files_gzip and call.takes_gzip:
            packed = gzip.compress(file.content.open().read())
            return Reply.file(packed, f"W/{file.etag}", {**headers, "Content-Encoding": "gzip"}, chunked=True)
        return Reply.file(file.content, file.etag, headers, ranges=True)

    @property
    def signature(self):
        return f"secret-signature-{self._signature}"

    def _from_cdn(self, call, sha256):
        if call.query.get("X-Amz-Signature") != self.signature or sha256 not in self._cdn:
            return Reply.text(403, "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>")
        file = self._cdn[sha256]
        etag = file.xet_hash or sha256[:32]  # as on the real CDN not the sha256
        return Reply.file(file.content, f'"{etag}"', ranges=True)

    def _xet_token(self, call, name, revision):
        """A token and a CAS folder for this client alone: hf_xet locks its folder's database."""
        repo = self._repo(call, name)
        repo.check_gate(call.token)
        repo.commit_of(revision)
        copy = shutil.copytree(self.cas, self.cas.with_name(f"cas-{next(self._cas_copies)}"))
        grant = {"casUrl": f"local://{copy}", "accessToken": "secret-xet-token", "exp": int(time.time()) + 3600}
        names = ("X-Xet-Cas-Url", "X-Xet-Access-Token", "X-Xet-Token-Expiration")
        return Reply.json(grant, dict(zip(names, grant.values(), strict=True)))

    ROUTES = (
        (r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", _model),
        (r"/api/models/([^/]+/[^/]+)/tree/([^/]+)(?:/(.+))?", _tree),
        (r"/api/models/([^/]+/[^/]+)/xet-read-token/([^/]+)", _xet_token),
        (r"/api/resolve-cache/models/([^/]+/[^/]+)/([^/]+)/(.+)", _resolve_cache),
        (r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", _resolve),
        (r"/cdn/([^/]+)", _from_cdn),
    )
