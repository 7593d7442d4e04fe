"""The clients of the soak: each asks at random in a thread of its own, and checks everything that comes back.

Each request has a nonce in its prompt that only its own answer may hold, and is a hang when nothing comes for PATIENCE
seconds. What kinds of requests there are, and what each may get, is in tests/soak/requests.py.
"""

import json
import random
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from hermes.client.cog import Json, read_events, split_lines, tls
from tests.support.servers import prediction_lines

PATIENCE = 120.0  # seconds without an answer, or without an event of a stream
WORDS = ["amber", "birch", "cedar", "delta", "ember", "flint", "grove", "hazel", "ivory", "lotus", "maple", "river"]
NONCE = re.compile(r"(?:{0})-(?:{0})-\d{{6}}".format("|".join(WORDS)))

Kind = Callable[["Caller"], str]  # sends a request and says how it ended


class Hang(Exception):
    """Nothing came for too long."""


class Unexpected(Exception):
    """An answer that this kind of request must not get."""


class Nonces:
    """Words that a model copies and does not think of. Threads share them."""

    def __init__(self) -> None:
        self._issued: set[str] = set()
        self._lock = threading.Lock()

    def issue(self, draw: random.Random) -> str:
        """A new one."""
        while True:
            nonce = f"{draw.choice(WORDS)}-{draw.choice(WORDS)}-{draw.randrange(10**5, 10**6)}"
            with self._lock:
                if nonce not in self._issued:
                    self._issued.add(nonce)
                    return nonce

    def of_others(self, text: str, own: str | None = None) -> set[str]:
        """Those in a text that are not its own. One that the model made up is nobody's."""
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
    """What all clients write down."""

    nonces: Nonces = field(default_factory=Nonces)
    records: list[Record] = field(default_factory=list)
    lines: list[Json] = field(default_factory=list)  # of the log, as the answers brought them
    hangs: list[str] = field(default_factory=list)
    mixed: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)


@dataclass
class Answer:
    """What came back: the prediction at its end, or whatever a refusal says."""

    status_code: int
    prediction: Json
    text: str  # of the answer; of the body where there is no prediction

    @property
    def metrics(self) -> Json:
        return dict(self.prediction.get("metrics") or {})

    @property
    def outcome(self) -> str:
        """The finish reason, the code of the error, the status, or that of HTTP."""
        error = re.search(r"E1[02]\d\d", self.prediction.get("error") or "")
        status = self.prediction.get("status") or f"HTTP {self.status_code}"
        return str(self.metrics.get("finish_reason") or (error and error[0]) or status)


class Caller:
    """One client's way to the server."""

    def __init__(self, url: str, draw: random.Random, book: Book):
        self.url = url
        self.draw = draw
        self.book = book
        self.nonce = ""  # of the request that runs
        self.first_token: float | None = None
        self.http = httpx.Client(trust_env=False, timeout=PATIENCE, verify=tls())

    def ask(self, **inputs: Any) -> Answer:
        """Run a prediction to its end, streamed or not."""
        return self.streamed(inputs) if self.draw.random() < 0.6 else self.plain(inputs)

    def succeeds(self, **inputs: Any) -> Answer:
        """Run a prediction that has to succeed."""
        answer = self.ask(**inputs)
        self.expect(answer.prediction.get("status") == "succeeded", "it did not succeed", answer)
        return answer

    def fails(self, code: str, **inputs: Any) -> Answer:
        """Run a prediction that has to fail with a code."""
        answer = self.ask(**inputs)
        failed = answer.prediction.get("status") == "failed" and answer.outcome == code
        self.expect(failed, f"it did not fail with {code}", answer)
        return answer

    def plain(self, inputs: Mapping[str, Any], prediction_id: str | None = None) -> Answer:
        return self.send(json.dumps({"input": inputs}).encode(), prediction_id)

    def send(self, body: bytes, prediction_id: str | None = None) -> Answer:
        """Send a body and read what comes back."""
        request = self._request(body, prediction_id)
        with silence_is_a_hang():
            response = self.http.send(request)
        self.check(response.text)
        if response.status_code != httpx.codes.OK:
            return Answer(response.status_code, {}, response.text)
        return self._ended(response.json(), "".join(response.json().get("output") or []))

    def streamed(
        self,
        inputs: Mapping[str, Any],
        prediction_id: str | None = None,
        on_piece: Callable[[int], None] = lambda _: None,
    ) -> Answer:
        """Run a prediction over SSE to its end; `on_piece` is told how many pieces there are: 0 at the start."""
        pieces: list[str] = []
        completed: Json = {}
        with closing(self.events(inputs, prediction_id)) as events:  # type: ignore[type-var]
            for name, data in events:
                if name == "refused":
                    return Answer(data["status_code"], {}, data["text"])
                if name == "output":
                    pieces.append(data["chunk"])
                if name in ("start", "output"):
                    on_piece(len(pieces))
                if name == "completed":
                    completed = data
        text = "".join(pieces)
        answer = self._ended(completed, text)
        self.expect(text == "".join(completed.get("output") or []), "the pieces are not the output", answer)
        return answer

    def events(self, inputs: Mapping[str, Any], prediction_id: str | None = None) -> Iterator[tuple[str, Json]]:
        """The events of a prediction; ("refused", ...) when it does not begin. Closing the iterator drops it."""
        sent, text = time.monotonic(), ""
        request = self._request(json.dumps({"input": inputs}).encode(), prediction_id, "text/event-stream")
        with silence_is_a_hang():
            response = self.http.send(request, stream=True)
            try:
                if response.status_code != httpx.codes.OK:
                    yield "refused", {"status_code": response.status_code, "text": response.read().decode()}
                    return
                for name, data in read_events(split_lines(patiently(response.iter_text()))):
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
        if status not in (httpx.codes.OK, httpx.codes.NOT_FOUND):  # it has not begun, or is over
            raise Unexpected(f"a cancel got HTTP {status}")

    def check(self, text: str) -> None:
        """Write it down if a text holds what was said to somebody else."""
        if others := self.book.nonces.of_others(text, self.nonce):
            self.book.mixed.append(f"the answer to {self.nonce} holds {', '.join(others)}: {text[:500]}")

    def expect(self, held: bool, otherwise: str, answer: Answer) -> None:
        """Raises Unexpected if it did not hold."""
        if not held:
            seen = json.dumps(answer.prediction) if answer.prediction else answer.text
            raise Unexpected(f"{otherwise}: HTTP {answer.status_code} {seen[:800]}")

    def _request(self, body: bytes, prediction_id: str | None, accept: str = "application/json") -> httpx.Request:
        method, path = ("PUT", f"/predictions/{prediction_id}") if prediction_id else ("POST", "/predictions")
        headers = {"Accept": accept, "Content-Type": "application/json"}
        return self.http.build_request(method, self.url + path, content=body, headers=headers)

    def _ended(self, prediction: Json, text: str) -> Answer:
        """The answer, once its metrics are found to be those of its line in the log. A failed one brings no line."""
        answer = Answer(httpx.codes.OK, prediction, text)
        self.check(json.dumps(prediction) + "".join(prediction.get("output") or []))
        lines = prediction_lines(str(prediction.get("logs") or "").splitlines())
        self.book.lines += lines
        metrics = answer.metrics
        self.first_token = self.first_token or metrics.get("time_to_first_token")
        if prediction.get("status") == "succeeded":
            self.expect(len(lines) == 1, "it has not one line of log", answer)
            reported = metrics["input_token_count"], metrics["output_token_count"]
            same = reported == (lines[0]["input_tokens"], lines[0]["output_tokens"])
            self.expect(same, "its metrics and its line of log differ", answer)
            self.expect(reported[1] <= metrics["max_tokens"], "it has more than max_tokens", answer)
        return answer


@contextmanager
def silence_is_a_hang() -> Iterator[None]:
    """Errors of httpx as ours."""
    try:
        yield
    except httpx.TimeoutException as error:
        raise Hang(f"{type(error).__name__} after {PATIENCE:.0f} s") from error
    except httpx.TransportError as error:
        raise Unexpected(f"the connection broke: {error!r}") from error


def patiently(pieces: Iterable[str]) -> Iterator[str]:
    """The pieces of a stream, while events come: a comment that keeps the connection alive is none."""
    last = time.monotonic()
    for piece in pieces:
        if not piece.startswith(":"):
            last = time.monotonic()
        elif time.monotonic() - last > PATIENCE:
            raise Hang(f"no event for {PATIENCE:.0f} s")
        yield piece


class Client(threading.Thread):
    """Sends requests of some kinds, one after the other, until the time is over."""

    def __init__(self, url: str, seed: int, book: Book, kinds: Mapping[Kind, int], seconds: float):
        """`kinds` with how often each is drawn, compared to the others."""
        super().__init__(daemon=True)
        self._caller = Caller(url, random.Random(seed), book)
        self._kinds: Sequence[Kind] = list(kinds)
        self._weights = list(kinds.values())
        self._until = time.monotonic() + seconds

    def run(self) -> None:
        with closing(self._caller.http):
            while time.monotonic() < self._until:
                (kind,) = self._caller.draw.choices(self._kinds, self._weights)
                self._send(kind)
                time.sleep(self._caller.draw.uniform(0, 0.3))

    def _send(self, kind: Kind) -> None:
        caller, book, name = self._caller, self._caller.book, kind.__name__.replace("_", " ")
        caller.nonce, caller.first_token = book.nonces.issue(caller.draw), None
        began = time.monotonic()
        try:
            outcome = kind(caller)
        except Hang as error:
            outcome = "HANG"
            book.hangs.append(f"{name}, {caller.nonce}: {error}")
        except Exception as error:  # also one of ours, in reading what nobody thought of
            outcome = "UNEXPECTED"
            book.unexpected.append(f"{name}, {caller.nonce}: {type(error).__name__}: {error}")
        book.records.append(Record(name, outcome, time.monotonic() - began, caller.first_token))
