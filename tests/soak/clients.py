"""The clients of the soak: each sends random requests in its own thread and checks everything that comes back.

Each request has a nonce in its prompt, which no other response may hold. A request hangs if nothing comes for PATIENCE
seconds. tests/soak/good.py and bad.py have the kinds of requests and their possible ends.
"""

import json
import random
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import httpx

from hermes.client.cog import Json, read_events
from hermes.environment import tls
from tests.support.servers import prediction_lines

PATIENCE = 120.0  # seconds without a response, or without an event of a stream
WORDS = ["amber", "birch", "cedar", "delta", "ember", "flint", "grove", "hazel", "ivory", "lotus", "maple", "river"]
NONCE = re.compile(r"(?:{0})-(?:{0})-\d{{6}}".format("|".join(WORDS)))

Kind = Callable[[Any], str]  # takes a session, sends a request and returns how it ended


class Hang(Exception):
    """Nothing came for too long."""


class Unexpected(Exception):
    """A response that this kind of request must not get."""


class Nonces:
    """Words that a model copies but does not invent. Threads share them."""

    def __init__(self) -> None:
        self._issued: set[str] = set()
        self._lock = threading.Lock()

    def issue(self, draw: random.Random) -> str:
        """Draw a new nonce."""
        while True:
            nonce = f"{draw.choice(WORDS)}-{draw.choice(WORDS)}-{draw.randrange(10**5, 10**6)}"
            with self._lock:
                if nonce not in self._issued:
                    self._issued.add(nonce)
                    return nonce

    def of_others(self, text: str, own: str | None = None) -> set[str]:
        """Find the nonces of other requests in a text. A nonce that the model made up belongs to no request."""
        return (set(NONCE.findall(text)) & self._issued) - {own}

    def __len__(self) -> int:
        return len(self._issued)


@dataclass(frozen=True)
class Record:
    """One request and how it ended."""

    kind: str
    outcome: str
    seconds: float
    first_token: float | None  # s


@dataclass
class Book:
    """The records of all clients."""

    nonces: Nonces = field(default_factory=Nonces)
    records: list[Record] = field(default_factory=list)
    lines: list[Json] = field(default_factory=list)  # log lines that the responses held
    hangs: list[str] = field(default_factory=list)
    mixed: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)


@dataclass
class Response:
    """The finished prediction, or the body of a refusal."""

    status_code: int
    prediction: Json
    text: str  # of the output; of the body if there is no prediction

    @property
    def metrics(self) -> Json:
        return dict(self.prediction.get("metrics") or {})

    @property
    def outcome(self) -> str:
        """The finish reason, else the code of the error, else the status, else the HTTP status."""
        error = re.search(r"E1[02]\d\d", self.prediction.get("error") or "")
        status = self.prediction.get("status") or f"HTTP {self.status_code}"
        return str(self.metrics.get("finish_reason") or (error and error[0]) or status)


class Session:
    """One client's connection to the server, and its checks."""

    to = ""  # goes before the kinds of its requests in the report
    path = "/predictions"  # where a bare connection sends a body
    headers: Mapping[str, str] = MappingProxyType({})

    def __init__(self, url: str, draw: random.Random, book: Book):
        self.url = url
        self.draw = draw
        self.book = book
        self.nonce = ""  # of the request that runs
        self.first_token: float | None = None
        self.http = httpx.Client(trust_env=False, timeout=PATIENCE, verify=tls())

    def begin(self) -> None:
        """Prepare for the next request."""
        self.nonce, self.first_token = self.book.nonces.issue(self.draw), None

    def body(self, inputs: Mapping[str, Any]) -> bytes:
        """Write the body of a prediction."""
        return json.dumps({"input": inputs}).encode()

    def ask(self, **inputs: Any) -> Response:
        """Run a prediction to its end, streamed or not."""
        return self.streamed(inputs) if self.draw.random() < 0.6 else self.plain(inputs)

    def succeeds(self, **inputs: Any) -> Response:
        """Run a prediction that must succeed."""
        response = self.ask(**inputs)
        self.expect(response.prediction.get("status") == "succeeded", "it did not succeed", response)
        return response

    def fails(self, code: str, **inputs: Any) -> Response:
        """Run a prediction that must fail with a code."""
        response = self.ask(**inputs)
        failed = response.prediction.get("status") == "failed" and response.outcome == code
        self.expect(failed, f"it did not fail with {code}", response)
        return response

    def plain(self, inputs: Mapping[str, Any], prediction_id: str | None = None) -> Response:
        return self.send(self.body(inputs), prediction_id)

    def send(self, body: bytes, prediction_id: str | None = None) -> Response:
        """Send a body and read what comes back."""
        request = self._request(body, prediction_id)
        with silence_is_a_hang():
            response = self.http.send(request)
        self.check(response.text)
        if response.status_code != httpx.codes.OK:
            return Response(response.status_code, {}, response.text)
        return self._ended(response.json(), "".join(response.json().get("output") or []))

    def streamed(
        self,
        inputs: Mapping[str, Any],
        prediction_id: str | None = None,
        on_piece: Callable[[int], None] = lambda _: None,
    ) -> Response:
        """Run a prediction over SSE to its end. `on_piece` gets the number of pieces so far, 0 at the start."""
        pieces: list[str] = []
        completed: Json = {}
        with closing(self.events(inputs, prediction_id)) as events:  # type: ignore[type-var]
            for name, data in events:
                if name == "refused":
                    return Response(data["status_code"], {}, data["text"])
                if name == "output":
                    pieces.append(data["chunk"])
                if name in ("start", "output"):
                    on_piece(len(pieces))
                if name == "completed":
                    completed = data
        text = "".join(pieces)
        response = self._ended(completed, text)
        self.expect(text == "".join(completed.get("output") or []), "the pieces are not the output", response)
        return response

    def events(self, inputs: Mapping[str, Any], prediction_id: str | None = None) -> Iterator[tuple[str, Json]]:
        """Yield the events of a prediction, or one ("refused", ...). Closing the iterator drops the connection."""
        sent, text = time.monotonic(), ""
        request = self._request(self.body(inputs), prediction_id, "text/event-stream")
        with silence_is_a_hang():
            response = self.http.send(request, stream=True)
            try:
                if response.status_code != httpx.codes.OK:
                    yield "refused", {"status_code": response.status_code, "text": response.read().decode()}
                    return
                for name, data in read_events(patiently(response.iter_text())):
                    if name == "output":
                        self.first_token = self.first_token or time.monotonic() - sent
                        text += data["chunk"]
                    yield name, data
            finally:
                response.close()
                self.check(text)

    def cancel(self, prediction_id: str) -> None:
        with silence_is_a_hang():
            status = self.http.post(f"{self.url}/predictions/{prediction_id}/cancel").status_code
        if status not in (httpx.codes.OK, httpx.codes.NOT_FOUND):  # not begun, or over
            raise Unexpected(f"a cancel got HTTP {status}")

    def check(self, text: str) -> None:
        """Record a text that holds the nonce of another request."""
        if others := self.book.nonces.of_others(text, self.nonce):
            self.book.mixed.append(f"the response to {self.nonce} holds {', '.join(others)}: {text[:500]}")

    def expect(self, held: bool, otherwise: str, response: Response) -> None:
        """Raise Unexpected if `held` is false."""
        if not held:
            seen = json.dumps(response.prediction) if response.prediction else response.text
            raise Unexpected(f"{otherwise}: HTTP {response.status_code} {seen[:800]}")

    def _request(self, body: bytes, prediction_id: str | None, accept: str = "application/json") -> httpx.Request:
        method, path = ("PUT", f"/predictions/{prediction_id}") if prediction_id else ("POST", "/predictions")
        headers = {"Accept": accept, "Content-Type": "application/json"}
        return self.http.build_request(method, self.url + path, content=body, headers=headers)

    def _ended(self, prediction: Json, text: str) -> Response:
        """Make the response and compare its metrics with its log line. A failed prediction has no log line."""
        response = Response(httpx.codes.OK, prediction, text)
        self.check(json.dumps(prediction) + "".join(prediction.get("output") or []))
        lines = prediction_lines(str(prediction.get("logs") or "").splitlines())
        self.book.lines += lines
        metrics = response.metrics
        self.first_token = self.first_token or metrics.get("time_to_first_token")
        if prediction.get("status") == "succeeded":
            self.expect(len(lines) == 1, "it does not have exactly one log line", response)
            reported = metrics["input_token_count"], metrics["output_token_count"]
            same = reported == (lines[0]["input_tokens"], lines[0]["output_tokens"])
            self.expect(same, "its metrics and its log line differ", response)
            self.expect(reported[1] <= metrics["max_tokens"], "it has more than max_tokens", response)
        return response


@contextmanager
def silence_is_a_hang() -> Iterator[None]:
    """Turn httpx's errors into ours."""
    try:
        yield
    except httpx.TimeoutException as error:
        raise Hang(f"{type(error).__name__} after {PATIENCE:.0f} s") from error
    except httpx.TransportError as error:
        raise Unexpected(f"the connection broke: {error!r}") from error


def patiently(pieces: Iterable[str]) -> Iterator[str]:
    """Yield the pieces of a stream while events come. A keep-alive comment is not an event."""
    last = time.monotonic()
    for piece in pieces:
        if not piece.startswith(":"):
            last = time.monotonic()
        elif time.monotonic() - last > PATIENCE:
            raise Hang(f"no event for {PATIENCE:.0f} s")
        yield piece


class Client(threading.Thread):
    """A thread that sends requests, one after the other, until the time is over."""

    def __init__(self, session: Session, kinds: Mapping[Kind, int], seconds: float):
        """Take `kinds` with the weight of each in the draw."""
        super().__init__(daemon=True)
        self._session = session
        self._kinds: Sequence[Kind] = list(kinds)
        self._weights = list(kinds.values())
        self._until = time.monotonic() + seconds

    def run(self) -> None:
        with closing(self._session.http):
            while time.monotonic() < self._until:
                (kind,) = self._session.draw.choices(self._kinds, self._weights)
                self._send(kind)
                time.sleep(self._session.draw.uniform(0, 0.3))

    def _send(self, kind: Kind) -> None:
        session, book = self._session, self._session.book
        name = session.to + kind.__name__.replace("_", " ")
        session.begin()
        began = time.monotonic()
        try:
            outcome = kind(session)
        except Hang as error:
            outcome = "HANG"
            book.hangs.append(f"{name}, {session.nonce}: {error}")
        except Exception as error:  # also a bug of the soak: record it and go on
            outcome = "UNEXPECTED"
            book.unexpected.append(f"{name}, {session.nonce}: {type(error).__name__}: {error}")
        book.records.append(Record(name, outcome, time.monotonic() - began, session.first_token))
