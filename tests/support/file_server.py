"""Serves files on 127.0.0.1 over HTTP/1.1, with ranges and keep-alive. A test can order faults."""

import math
import os
import re
import socket
import socketserver
import struct
import termios
import threading
import time
from contextlib import suppress
from fcntl import ioctl
from http.server import BaseHTTPRequestHandler
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit

from tests.support.faults import Armed
from tests.support.replies import Content, Refused, Reply

SLICE_BYTES = 1 << 20
EXACT_SLICE_BYTES = 1 << 14  # while somebody waits for an exact byte


class Asked(NamedTuple):
    """A request that came in."""

    method: str
    path: str  # with its query
    range: str | None
    has_authorization: bool

    @property
    def is_look(self):
        """Whether only the first bytes are wanted, to see what the file is."""
        return bool(re.fullmatch(r"bytes=0-([1-9]\d?|4095)", self.range or ""))


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
        return armed.fault.spoil_at(path, reply)

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
