"""The requests of the soak that go through the gateway, good and bad, in all dialects.

A request may fail with E1203 or E1205 only if the upstream that is killed was killed while it ran.
"""

import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from types import MappingProxyType
from typing import Any

import httpx

from hermes.client.cog import EventReader, Json
from tests.soak.bad import MALFORMED, connected, half_a_body, head, hit_and_run, slow_reader
from tests.soak.clients import PATIENCE, Book, Hang, Kind, Session, Unexpected, silence_is_a_hang
from tests.soak.good import ENDLESS, left, question
from tests.support.fake_cog import Behaviour, pieces_of
from tests.support.gateways import MODEL

TOKENS = {"alice": "token-of-alice", "bob": "token-of-bob"}
FEWEST = 4  # tokens of an answer, which so has a text: the small model may end with its first token
PIECES = 30  # of an answer of the imitated server, at least
ENDED = ("succeeded", "failed", "canceled")
AGAIN = ("E1203", "E1205")  # the request can be sent again
NOTICED = 3.0  # s after a kill until the gateway knows that nothing of a stream will come


class Outages:
    """When the upstream was killed."""

    def __init__(self) -> None:
        self._spans: list[tuple[float, float]] = []

    @contextmanager
    def recorded(self) -> Iterator[None]:
        began = time.monotonic()
        self._spans.append((began, began + PATIENCE))
        yield
        self._spans[-1] = (began, time.monotonic() + NOTICED)

    def during(self, began: float) -> bool:
        """Whether it was killed while a request ran that began then and ends now."""
        return any(began <= end and time.monotonic() >= start for start, end in self._spans)

    def __len__(self) -> int:
        return len(self._spans)


class Owned:
    """What each person made. Threads share it."""

    def __init__(self) -> None:
        self.ids: dict[str, list[str]] = {person: [] for person in TOKENS}
        self.streams: dict[str, list[str]] = {person: [] for person in TOKENS}
        self._nonces: dict[str, set[str]] = {person: set() for person in TOKENS}
        self._lock = threading.Lock()

    def add_nonce(self, person: str, nonce: str) -> None:
        with self._lock:
            self._nonces[person].add(nonce)

    def add(self, person: str, prediction: Json) -> None:
        with self._lock:
            self.ids[person].append(prediction["id"])
            self.streams[person].append(prediction["urls"]["stream"])

    def nonces(self, person: str) -> set[str]:
        with self._lock:
            return set(self._nonces[person])


class Through(Session):
    """One client's connection to the gateway."""

    to = "gateway: "
    path = "/v1/chat/completions"

    def __init__(self, url: str, draw: random.Random, book: Book, person: str, owned: Owned, outages: Outages):
        super().__init__(url, draw, book)
        self.person, self.owned, self.outages = person, owned, outages
        self.headers = {"Authorization": f"Bearer {TOKENS[person]}"}
        self.began = 0.0

    def begin(self) -> None:
        super().begin()
        self.owned.add_nonce(self.person, self.nonce)
        self.began = time.monotonic()

    def body(self, inputs: Mapping[str, Any]) -> bytes:
        """Write the body of a stream of chat completions."""
        sampling = {name: value for name, value in inputs.items() if name != "prompt"}
        messages = [{"role": "user", "content": inputs["prompt"]}]
        return json.dumps({"model": MODEL, "messages": messages, "stream": True, **sampling}).encode()

    def request(self, method: str, path: str, body: Json | bytes | None = None, **headers: str) -> httpx.Response:
        """Send a request, and check that what comes back is this client's."""
        content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        given = {"Content-Type": "application/json", **self.headers, **headers}
        with silence_is_a_hang():
            response = self.http.request(method, self.url + path, content=content, headers=given)
        if method == "POST":
            self.check(response.text)
        return response

    def streaming(self, method: str, path: str, body: Json | None = None) -> Iterator[tuple[str, str]]:
        """Yield the events of a stream, (name, text), or one ("refused", body). Closing it drops the connection."""
        reader, last, said = EventReader(), time.monotonic(), ""
        given = {"Content-Type": "application/json", "Accept": "text/event-stream", **self.headers}
        content = None if body is None else json.dumps(body).encode()
        request = self.http.build_request(method, self.url + path, content=content, headers=given)
        with silence_is_a_hang():
            response = self.http.send(request, stream=True)
            try:
                if response.status_code != httpx.codes.OK:
                    yield "refused", response.read().decode()
                    return
                for piece in response.iter_text():
                    for name, data in reader.feed(piece):
                        last, said = time.monotonic(), said + data
                        yield name, data
                    if time.monotonic() - last > PATIENCE:
                        raise Hang(f"no event for {PATIENCE:.0f} s")
            finally:
                response.close()
                self.check(said)

    def failed(self, error: str) -> str:
        """Return how a request ended that failed. Raises Unexpected if it must not."""
        code = next((code for code in AGAIN if code in error), None)
        if code is None or not self.outages.during(self.began):
            raise Unexpected(f"it failed, and no upstream was killed meanwhile: {error[:600]}")
        return code

    def said(self, prompt: str, text: str, whole: bool = True, **inputs: Any) -> None:
        """Expect an answer of the imitated server to be what it says to this prompt."""
        if text.startswith("You said:"):
            known = "".join(pieces_of({"prompt": prompt, **inputs}, Behaviour(pieces=PIECES)))
            if text != known if whole else not known.startswith(text):
                raise Unexpected(f"the answer to {prompt!r} is {text[:600]!r}")
        elif whole and not text:
            raise Unexpected("the answer is empty")

    def create(self, prompt: str, inputs: Mapping[str, Any], **headers: str) -> Json:
        """Make a prediction of Replicate's API."""
        body = {"version": MODEL, "input": {"prompt": prompt, **inputs}}
        response = self.request("POST", "/v1/predictions", body, **headers)
        if response.status_code != httpx.codes.CREATED:
            raise Unexpected(f"no prediction: {response.status_code} {response.text[:600]}")
        prediction: Json = response.json()
        self.owned.add(self.person, prediction)
        return prediction

    def end(self, prediction: Json) -> Json:
        """Ask for a prediction until it has ended."""
        deadline = time.monotonic() + PATIENCE
        while prediction["status"] not in ENDED:
            if time.monotonic() > deadline:
                raise Hang(f"{prediction['id']} has no end after {PATIENCE:.0f} s")
            time.sleep(0.2)
            prediction = self.get(prediction)
        return prediction

    def get(self, prediction: Json) -> Json:
        response = self.request("GET", f"/v1/predictions/{prediction['id']}")
        if response.status_code != httpx.codes.OK:
            raise Unexpected(f"{prediction['id']} is lost: {response.status_code} {response.text[:600]}")
        self.check(response.text)
        found: Json = response.json()
        return found

    def outcome(self, prompt: str, prediction: Json, **inputs: Any) -> str:
        """Return how a prediction ended, after a look at its output."""
        text, succeeded = "".join(prediction["output"] or []), prediction["status"] == "succeeded"
        self.said(prompt, text, whole=succeeded, **inputs)
        if prediction["status"] == "failed":
            return self.failed(str(prediction["error"]))
        return str(prediction["metrics"].get("finish_reason") or prediction["status"])


def replicate_waited(c: Through) -> str:
    prompt, most = question(c), c.draw.randint(FEWEST, 40)
    prediction = c.create(
        prompt, {"max_tokens": most, "min_tokens": FEWEST}, Prefer=c.draw.choice(["wait", "wait=1", "Wait=5"])
    )
    return c.outcome(prompt, c.end(prediction), max_tokens=most)


def replicate_polled(c: Through) -> str:
    prompt, most = question(c), c.draw.randint(FEWEST, 40)
    return c.outcome(prompt, c.end(c.create(prompt, {"max_tokens": most, "min_tokens": FEWEST})), max_tokens=most)


def replicate_streamed(c: Through) -> str:
    prompt, most = question(c), c.draw.randint(FEWEST, 40)
    prediction = c.create(prompt, {"max_tokens": most, "min_tokens": FEWEST})
    stream = httpx.URL(prediction["urls"]["stream"]).path
    pieces, ended = [], False
    with closing(c.streaming("GET", stream)) as events:  # type: ignore[type-var]
        for name, data in events:
            if name == "refused":
                raise Unexpected(f"no stream: {data[:600]}")
            pieces += [data] if name == "output" else []
            ended = ended or name == "done"
    if not ended:
        raise Unexpected("the stream has no end")
    prediction = c.get(prediction)
    if prediction["status"] == "succeeded" and "".join(pieces).split() != "".join(prediction["output"]).split():
        raise Unexpected(f"the stream is {pieces}, the output {prediction['output']}")
    return c.outcome(prompt, prediction, max_tokens=most)


def replicate_cancelled(c: Through) -> str:
    prompt = question(c)
    prediction = c.create(prompt, ENDLESS)
    time.sleep(c.draw.choice([0, c.draw.uniform(0, 1)]))
    response = c.request("POST", f"/v1/predictions/{prediction['id']}/cancel")
    if response.status_code != httpx.codes.OK:
        raise Unexpected(f"the cancel got {response.status_code} {response.text[:600]}")
    prediction = c.end(response.json())
    if "CancelationException" in str(prediction["error"]):  # coglet 0.23 fails one that it is just handing to Python
        return "failed by the cancel"
    return c.outcome(prompt, prediction)


def listed(c: Through) -> str:
    """List the predictions: all of this person's, none of the other's."""
    made = set(c.owned.ids[c.person][-20:])
    response = c.request("GET", "/v1/predictions")
    if response.status_code != httpx.codes.OK:
        raise Unexpected(f"no list: {response.status_code} {response.text[:600]}")
    ids = [prediction["id"] for prediction in response.json()["results"]]
    strangers = c.book.nonces.of_others(response.text) - c.owned.nonces(c.person)
    other = {
        prediction_id for person, several in c.owned.ids.items() if person != c.person for prediction_id in several
    }
    if strangers or other & set(ids):
        c.book.mixed.append(f"the list of {c.person} has {strangers}, {other & set(ids)}")
    if not made <= set(ids):
        raise Unexpected(f"the list has not {made - set(ids)}")
    return "listed"


def chat(c: Through) -> str:
    prompt, most = question(c), c.draw.randint(FEWEST, 40)
    body = {"model": MODEL, "messages": [{"role": "user", "content": prompt}], "max_tokens": most, "min_tokens": FEWEST}
    return answer(c, "/v1/chat/completions", body, prompt, lambda one: one["choices"][0]["message"]["content"])


def completion(c: Through) -> str:
    """Expect the nonce: the small model copies it, and the imitated server repeats it."""
    said = f"The code of agent {c.draw.randrange(100)} is {c.nonce}. "
    prompt = said * 3 + said.partition(c.nonce)[0].rstrip()
    seen = []

    def text_of(one: Json) -> str:
        seen.append(str(one["choices"][0]["text"]))
        return seen[-1]

    outcome = answer(
        c, "/v1/completions", {"model": MODEL, "prompt": prompt, "temperature": 0}, prompt, text_of, most=24
    )
    if seen and c.nonce not in seen[0]:
        raise Unexpected(f"it does not hold its own nonce {c.nonce}: {seen[0]!r}")
    return outcome


def response(c: Through) -> str:
    prompt, most = question(c), c.draw.randint(FEWEST, 40)
    body = {"model": MODEL, "input": prompt, "max_output_tokens": most, "min_tokens": FEWEST}

    def text_of(one: Json) -> str:
        return "".join(part["text"] for item in one["output"] for part in item["content"])

    return answer(c, "/v1/responses", body, prompt, text_of)


def answer(
    c: Through, path: str, body: Json, prompt: str, text_of: Callable[[Json], str], most: int | None = None
) -> str:
    """Ask for a whole answer."""
    body = body | ({"max_tokens": most, "min_tokens": FEWEST} if most else {})
    most = most or body.get("max_tokens") or body["max_output_tokens"]
    received = c.request("POST", path, body)
    if received.status_code == httpx.codes.SERVICE_UNAVAILABLE:
        return c.failed(received.text)
    if received.status_code != httpx.codes.OK:
        raise Unexpected(f"{received.status_code} {received.text[:600]}")
    c.said(prompt, text_of(received.json()), max_tokens=most)
    return "answered"


def chat_streamed(c: Through) -> str:
    prompt, most = question(c), c.draw.randint(FEWEST, 40)
    body = json.loads(c.body({"prompt": prompt, "max_tokens": most, "min_tokens": FEWEST})) | {
        "stream_options": {"include_usage": True}
    }
    pieces, names = [], []
    with closing(c.streaming("POST", c.path, body)) as events:  # type: ignore[type-var]
        for name, data in events:
            if name == "refused":
                return c.failed(data)
            names.append("[DONE]" if data == "[DONE]" else "data")
            if data == "[DONE]":
                continue
            chunk = json.loads(data)
            if "error" in chunk:
                return c.failed(data)
            pieces += [choice["delta"].get("content") or "" for choice in chunk["choices"]]
            c.first_token = c.first_token or (time.monotonic() - c.began if "".join(pieces) else None)
    if names[-1:] != ["[DONE]"]:
        raise Unexpected(f"the stream has no end: {names[-3:]}")
    c.said(prompt, "".join(pieces), max_tokens=most)
    return "answered"


def response_streamed(c: Through) -> str:
    prompt, most = question(c), c.draw.randint(FEWEST, 40)
    body = {"model": MODEL, "input": prompt, "max_output_tokens": most, "min_tokens": FEWEST, "stream": True}
    text, last, data = "", "", "{}"
    with closing(c.streaming("POST", "/v1/responses", body)) as events:  # type: ignore[type-var]
        for last, data in events:
            if last == "refused":
                return c.failed(data)
            if last == "response.output_text.delta":
                text += json.loads(data)["delta"]
    if last == "response.failed":
        return c.failed(data)
    if last not in ("response.completed", "response.incomplete"):
        raise Unexpected(f"the stream ends with {last} {data[:600]}")
    c.said(prompt, text, max_tokens=most)
    return last.removeprefix("response.")


def dropped_stream(c: Through) -> str:
    """Leave a stream after some events."""
    events = c.draw.randint(0, 8)
    body = json.loads(c.body({"prompt": question(c), **ENDLESS}))
    with closing(c.streaming("POST", c.path, body)) as stream:  # type: ignore[type-var]
        for name, data in stream:
            if name == "refused":
                return c.failed(data)
            events -= 1
            if events < 0:
                break
    return left(c)


def malformed(c: Through) -> str:
    path = c.draw.choice([c.path, "/v1/completions", "/v1/responses", "/v1/predictions"])
    received = c.request("POST", path, c.draw.choice(MALFORMED))
    return refused(received, 400, 413, 422)


def wrong_token(c: Through) -> str:
    received = c.request("POST", c.path, c.body({"prompt": question(c)}), Authorization="Bearer token-of-nobody")
    return refused(received, 401)


def not_json(c: Through) -> str:
    received = c.request("POST", c.path, c.body({"prompt": question(c)}), **{"Content-Type": "text/plain"})
    return refused(received, 415)


def of_another(c: Through) -> str:
    """Ask for what the other person made."""
    other = next(person for person in TOKENS if person != c.person)
    if not c.owned.ids[other]:
        return "nothing there"
    prediction_id = c.draw.choice(c.owned.ids[other])
    path = f"/v1/predictions/{prediction_id}"
    method, path = c.draw.choice([("GET", path), ("POST", f"{path}/cancel"), ("GET", f"/stream/{prediction_id}/x")])
    return refused(c.request(method, path), 404)


def too_large(c: Through) -> str:
    prompt = question(c) + "word " * c.draw.choice([400_000, 2_000_000])
    received = c.request("POST", "/v1/predictions", {"version": MODEL, "input": {"prompt": prompt}})
    return refused(received, 413)


def many_values(c: Through) -> str:
    """Send a body of a megabyte that takes long to check."""
    body = f'{{"version": "{MODEL}", "input": {{"messages": ['.encode() + b"{}," * 340_000 + b"{}]}}"
    return refused(c.request("POST", "/v1/predictions", body), 400, 413, 422)


def webhook_to_the_server(c: Through) -> str:
    body = {"version": MODEL, "input": {"prompt": question(c)}, "webhook": f"{c.url}/shutdown"}
    return refused(c.request("POST", "/v1/predictions", body), 422)


def half_a_head(c: Through) -> str:
    with connected(c) as connection:
        connection.sendall(head(c, 100)[: c.draw.randint(1, 60)])
        time.sleep(c.draw.uniform(0, 3))
    return left(c)


def refused(received: httpx.Response, *statuses: int) -> str:
    if received.status_code not in statuses:
        raise Unexpected(f"it was not refused: {received.status_code} {received.text[:600]}")
    return f"HTTP {received.status_code}"


GATEWAY_GOOD: Mapping[Kind, int] = MappingProxyType(
    {
        replicate_waited: 8,
        replicate_polled: 6,
        replicate_streamed: 10,
        replicate_cancelled: 6,
        listed: 4,
        chat: 10,
        chat_streamed: 16,
        completion: 10,
        response: 8,
        response_streamed: 10,
        dropped_stream: 6,
    }
)
GATEWAY_BAD: Mapping[Kind, int] = MappingProxyType(
    {
        malformed: 8,
        wrong_token: 4,
        not_json: 3,
        of_another: 6,
        too_large: 3,
        many_values: 3,
        webhook_to_the_server: 3,
        half_a_head: 4,
        half_a_body: 4,
        hit_and_run: 6,
        slow_reader: 6,
    }
)
