"""A test orders these faults, and a test server spoils its replies with them."""

from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from tests.support.replies import Reply


class Fault:
    """What goes wrong with one answer. Most wait for a request that is answered with a body, and not a redirect."""

    def harms(self, reply):
        return reply.status < 300

    def spoil_at(self, path, reply):
        return self.spoil(reply)


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
        return replace(reply, cut=self.after, strike=lambda handler: handler.reset())


@dataclass(frozen=True)
class Truncate(Fault):
    """The connection ends in good order (FIN) after so many bytes of the body, fewer than Content-Length says."""

    after: int

    def spoil(self, reply):
        return replace(reply, cut=self.after, strike=lambda handler: handler.hang_up())


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
