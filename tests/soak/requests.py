"""The kinds of requests of the soak, good and bad: each draws its inputs, and knows what it may get.

A kind takes the caller, sends one request and returns how it ended.
"""

import json
import random
import socket
import struct
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
from jsonschema import Draft202012Validator

from hermes.client.cog import Json
from tests.soak.clients import PATIENCE, Answer, Caller, Hang, Kind, Unexpected

CONTEXT = 2048  # tokens, of the server that is asked
LARGEST = 2_000_000  # characters of a prompt
SUBJECTS = ["a lighthouse", "the sea", "an old clock", "a lost dog", "the moon", "a red kite", "bread", "日本", "🦊"]
COUNTING = "one two three four five six seven eight nine ten "
SHORT = {"type": "string", "minLength": 1, "maxLength": 16}
ENDLESS = {"min_tokens": 400, "max_tokens": 400}  # long enough to be left before its end


def question(c: Caller) -> str:
    return f"({c.nonce}) Tell me a story about {c.draw.choice(SUBJECTS)}."


def sampling(draw: random.Random) -> Json:
    """Any of the sampling inputs."""
    drawn = {
        "temperature": draw.choice([0, 0.3, 0.6, 1.0, 1.5]),
        "top_p": draw.choice([0.5, 0.9, 1]),
        "top_k": draw.choice([-1, 0, 1, 50]),
        "min_p": draw.choice([0, 0.05]),
        "presence_penalty": draw.uniform(-1, 1),
        "frequency_penalty": draw.uniform(-1, 1),
        "repetition_penalty": draw.uniform(0.9, 1.3),
        "seed": draw.choice([0, draw.randrange(2**53)]),
        "system_prompt": draw.choice(["", "Answer as a pirate."]),
    }
    return {name: drawn[name] for name in draw.sample(sorted(drawn), draw.randint(0, len(drawn)))}


# Good requests.


def copied(c: Caller) -> str:
    """The one kind that must hold its nonce: a raw prompt that even a small model completes by copying."""
    said = f"The code of agent {c.draw.randrange(100)} is {c.nonce}. "
    prompt = said * 3 + said.partition(c.nonce)[0].rstrip()
    answer = c.succeeds(prompt=prompt, prompt_template="{prompt}", temperature=0, max_tokens=24)
    c.expect(c.nonce in answer.text, "it does not hold its own nonce", answer)
    return answer.outcome


def chat(c: Caller) -> str:
    return c.succeeds(prompt=question(c), max_tokens=c.draw.randint(1, 100), **sampling(c.draw)).outcome


def at_least(c: Caller) -> str:
    least = c.draw.randint(1, 60)
    answer = c.succeeds(prompt=question(c), min_tokens=least, max_tokens=least + c.draw.randint(0, 20))
    c.expect(answer.metrics["output_token_count"] >= least, f"it has fewer than {least} tokens", answer)
    return answer.outcome


def stopped(c: Caller) -> str:
    """The stop sequence is what the model writes next but a few."""
    stop = c.draw.choice(["four", "seven", "five s", "ten one"])
    prompt = f"{c.nonce} " + (COUNTING * 8).rstrip()
    inputs = {"prompt_template": "{prompt}", "temperature": 0, "max_tokens": 40, "stop_sequences": f"zzz,{stop}"}
    answer = c.succeeds(prompt=prompt, **inputs)
    c.expect(stop not in answer.text and answer.outcome == "stop", f"it did not stop at {stop!r}", answer)
    return answer.outcome


def cancelled_stream(c: Caller) -> str:
    """A cancel after some pieces. coglet loses one that overtakes the request on its way to the worker."""
    name, after = f"soak-{uuid4().hex}", c.draw.randint(0, 6)

    def on_piece(count: int) -> None:
        if count == after:
            c.cancel(name)

    inputs = {"min_tokens": 30, "max_tokens": 30} if after == 0 else ENDLESS
    answer = c.streamed({"prompt": question(c), **inputs}, name, on_piece)
    if after == 0 and answer.outcome == "length":
        return "cancel lost"
    return cancelled(c, answer)


def cancelled_plain(c: Caller) -> str:
    """A cancel from elsewhere at any moment, asked again until it is heard."""
    name = f"soak-{uuid4().hex}"
    with ThreadPoolExecutor(1) as other:
        running = other.submit(c.plain, {"prompt": question(c), **ENDLESS}, name)
        time.sleep(c.draw.choice([0, c.draw.uniform(0, 1.5)]))
        while not running.done():
            c.cancel(name)
            time.sleep(0.2)
    return cancelled(c, running.result())


def cancelled(c: Caller, answer: Answer) -> str:
    """A cancel that comes while coglet 0.23 hands the request to Python ends it too, but as a failure of its own."""
    if "CancelationException" in (answer.prediction.get("error") or ""):
        return "failed by the cancel"
    c.expect(answer.outcome == "canceled", "it was not cancelled", answer)
    return answer.outcome


def dropped_stream(c: Caller) -> str:
    """The client goes away after some pieces, or before the first."""
    pieces = c.draw.randint(0, 8)
    with closing(c.events({"prompt": question(c), **ENDLESS})) as events:  # type: ignore[type-var]
        for name, data in events:
            if name == "refused":
                raise Unexpected(f"refused: {data}")
            pieces -= name == "output"
            if pieces < 0:
                break
    return left(c)


def dropped_plain(c: Caller) -> str:
    """The client's patience ends before the answer does."""
    body = {"input": {"prompt": question(c), **ENDLESS}}
    try:
        response = c.http.post(f"{c.url}/predictions", json=body, timeout=c.draw.uniform(0.05, 2))
    except httpx.TimeoutException:
        return left(c)
    raise Unexpected(f"an answer before its time: HTTP {response.status_code} {response.text[:300]}")


def left(c: Caller) -> str:
    """Slots of those who went away are free a moment later; a client that comes back at once would take another."""
    time.sleep(c.draw.uniform(0.3, 1))
    return "left"


def timed_out(c: Caller) -> str:
    answer = c.succeeds(prompt=question(c), min_tokens=1500, max_tokens=1500, timeout=c.draw.uniform(0.01, 3))
    c.expect(answer.outcome == "timeout", "it did not end at its timeout", answer)
    return answer.outcome


def too_long(c: Caller) -> str:
    return c.fails("E1002", prompt=question(c) + " word" * c.draw.randint(CONTEXT, 9000)).outcome


def conversation(c: Caller) -> str:
    """Many turns, at times more than the context takes."""
    turns: list[Json] = []
    for _ in range(c.draw.randint(1, 12)):
        said = f"Something about {c.draw.choice(SUBJECTS)}, " + "and so on " * c.draw.randint(0, 120)
        turns += [{"role": "user", "content": said}, {"role": "assistant", "content": f"I see: {said}"}]
    last = [{"role": "user", "content": question(c)}]
    answer = c.succeeds(messages=turns + last, truncate="oldest_turns", max_tokens=c.draw.randint(1, 60))
    metrics = answer.metrics
    fits = metrics["input_token_count"] + metrics["max_tokens"] <= CONTEXT
    c.expect(fits and metrics["dropped_turns"] <= len(turns), "it was not truncated to fit", answer)
    return "truncated" if metrics["dropped_turns"] else answer.outcome


def json_answer(c: Caller) -> str:
    schema = random_object(c.draw)
    answer = c.succeeds(prompt=question(c), json_schema=schema, max_tokens=100, **warm(c.draw))
    whole = answer.outcome == "stop"
    c.expect(answer.metrics["json_valid"] or not whole, "an answer that ended by itself is not valid", answer)
    if whole:
        c.expect(satisfies(json.loads(answer.text), schema), f"it is not of the schema {schema}", answer)
    return answer.outcome


def tools(c: Caller) -> str:
    offered = {name: random_object(c.draw) for name in c.draw.sample(["find", "book", "send", "count"], 2)}
    choice = c.draw.choice(["auto", "none", "required", *offered])
    functions = [{"name": name, "description": f"Can {name}.", "parameters": each} for name, each in offered.items()]
    inputs = {"tools": functions, "tool_choice": choice, "max_tokens": 100, **warm(c.draw)}
    answer = c.succeeds(prompt=question(c), **inputs)
    calls, finish = answer.metrics["tool_calls"], answer.outcome
    for call in calls:
        c.expect(satisfies(call["arguments"], offered[call["name"]]), f"a call is not of its schema: {offered}", answer)
        c.expect(choice in ("auto", "required", call["name"]), f"tool_choice is {choice}", answer)
    if choice in ("required", *offered):
        called = finish == "length" or (finish == "tool_calls" and not answer.metrics["tool_call_errors"])
        c.expect(called, f"tool_choice is {choice}", answer)
    return f"{finish}, {len(calls)} call{'s' * (len(calls) != 1)}" if finish != "tool_calls" else finish


def warm(draw: random.Random) -> Json:
    """Sampling at which a model would write anything if it could."""
    return {"temperature": 1.0, "top_p": 1, "top_k": 0, "seed": draw.randrange(2**32)}


def random_object(draw: random.Random) -> Json:
    """A JSON schema of an object; the server sees most of them for the first time."""
    low = draw.randrange(1000)
    kinds: list[Json] = [
        {"type": "integer", "minimum": low, "maximum": low + draw.randrange(1, 1000)},
        {"type": "boolean"},
        {"enum": draw.sample(["rot", "grün", "青", "blue", 3, None], 3)},
        SHORT,
        {"type": "array", "items": SHORT, "minItems": 1, "maxItems": 3},
        {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3,5}$"},
        {"type": "string", "format": "date"},
        {"anyOf": [{"type": "number", "minimum": 0, "maximum": 1}, {"type": "null"}]},
    ]
    properties = {f"{draw.choice('abcdefgh')}{number}": draw.choice(kinds) for number in range(draw.randint(1, 3))}
    required = draw.sample(sorted(properties), draw.randint(1, len(properties)))
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def satisfies(value: Any, schema: Mapping[str, Any]) -> bool:
    return bool(Draft202012Validator(schema).is_valid(value))


# Bad requests. None may harm the others, and each is told what is wrong with it where that can be told.

MALFORMED = [
    b"",
    b"{",
    b"[]",
    b"null",
    b'{"input": 3}',
    b"[" * 100_000,
    b'{"input": {"prompt": "\xff\xfe"}}',
    b'{"input": {"prompt": "a lone surrogate, \\ud800"}}',
    b'{"input": {"prompt": "Hi", "stop_sequences": "\\udc00,x"}}',
    b'{"input": {"prompt": "Hi", "json_schema": ' + b'{"a":' * 5000 + b"1" + b"}" * 5000 + b"}}",
    b'{"input": {"prompt": "Hi", "max_tokens": 1e999}}',
]
WRONG_TYPES: list[Json] = [
    {"max_tokens": "many"},
    {"max_tokens": 0},
    {"max_tokens": None},
    {"temperature": -1},
    {"temperature": 1e308},
    {"top_p": 1.5},
    {"seed": -1},
    {"prompt": 3},
    {"prompt": ["Hi"]},
    {"messages": {"role": "user"}},
    {"messages": ["Hi"]},
    {"tools": "find"},
    {"json_schema": [1]},
    {"truncate": "newest_turns"},
    {"timeout": 0},
]
REFUSED: list[tuple[str, Json]] = [
    ("E1001", {"prompt": ""}),
    ("E1003", {"prompt_template": "{{ 7 * 7 }}"}),
    ("E1003", {"prompt_template": "{prompt:>99999999}"}),
    ("E1004", {"prompt_template": "{% for m in messages %}{prompt}{% endfor %}"}),
    ("E1004", {"prompt_template": "{% import 'os' as os %}{prompt}"}),
    ("E1005", {"messages": [{"role": "root", "content": "Hi"}]}),
    ("E1005", {"messages": [{"role": "tool", "content": "Hi"}]}),
    ("E1005", {"messages": [{"role": "user", "content": {"a": 1}}]}),
    ("E1006", {"tool_choice": "no_such_tool"}),
    ("E1006", {"tool_choice": "no_such_tool", "tools": [{"name": "find"}]}),
    ("E1006", {"tools": [{"name": "find"}, {"name": "find"}]}),
    ("E1006", {"tools": [{"name": "no name at all"}]}),
    ("E1007", {"json_schema": {"type": "string", "pattern": "(a"}}),
    ("E1007", {"json_schema": {"not": {}}}),
    ("E1007", {"json_schema": {"$ref": "http://127.0.0.1/x"}}),
    ("E1007", {"json_schema": {"enum": [f"value {number}" for number in range(50_000)]}}),
    ("E1007", {"json_schema": {"type": "array", "minItems": 2**53}}),
    ("E1008", {"top_p": 0}),
    ("E1008", {"min_tokens": 10, "max_tokens": 5}),
    ("E1008", {"stop_sequences": "x" * 5000}),
]
TEMPLATES = ["{prompt.__class__.__mro__} {prompt}", "{prompt:>99999999} {prompt}", '{"a": "{prompt}", "b": [{}]}']


def malformed_body(c: Caller) -> str:
    answer = c.send(c.draw.choice(MALFORMED))
    c.expect(answer.status_code in (400, 422), "it was not refused", answer)
    return answer.outcome


def wrong_type(c: Caller) -> str:
    answer = c.plain({"prompt": question(c), **c.draw.choice(WRONG_TYPES)})
    c.expect(answer.status_code == 422, "it was not refused", answer)
    return answer.outcome


def refused_input(c: Caller) -> str:
    code, inputs = c.draw.choice(REFUSED)
    return c.fails(code, **{"prompt": question(c), **inputs}).outcome


def hostile_template(c: Caller) -> str:
    """What would be dear or dangerous if a template were evaluated."""
    inputs = {"prompt_template": c.draw.choice(TEMPLATES), "max_tokens": 5}
    answer = c.succeeds(prompt=question(c), **inputs)
    c.expect(answer.metrics["input_token_count"] < 200, "the template was evaluated", answer)
    return answer.outcome


def huge_prompt(c: Caller) -> str:
    characters = c.draw.choice([100_000, 500_000, LARGEST])
    where = c.draw.choice(["prompt", "system_prompt", "messages"])
    text = (c.draw.choice(["word ", "日本", "<|im_end|>"]) * characters)[:characters]
    inputs: Json = {"prompt": question(c)}
    inputs |= {where: [{"role": "user", "content": text}] if where == "messages" else text}
    return c.fails("E1002", **inputs).outcome


def half_a_body(c: Caller) -> str:
    with connected(c) as connection:
        connection.sendall(head(c, 100_000) + b'{"input": {"prompt": "' + c.nonce.encode())
        time.sleep(c.draw.uniform(0, 3))
    return left(c)


def hit_and_run(c: Caller) -> str:
    """Connect and leave: at once, or with a whole request sent, in order or not."""
    with connected(c) as connection:
        if c.draw.random() < 0.7:
            connection.sendall(endless(c))
            time.sleep(c.draw.choice([0, 0.02, 0.2]))
        if c.draw.random() < 0.5:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
    return left(c)


def slow_reader(c: Caller) -> str:
    """A stream that is not read for seconds, or by a few bytes at a time, and then dropped."""
    with connected(c, receive_buffer=4096) as connection:
        connection.sendall(endless(c))
        time.sleep(c.draw.uniform(0.5, 5))
        seen = b""
        for _ in range(c.draw.choice([1, 20])):
            seen += connection.recv(256)
            time.sleep(0.1)
    c.check(seen.decode(errors="replace"))
    if not seen.startswith(b"HTTP/1.1 200 "):
        raise Unexpected(f"no stream: {seen[:300]!r}")
    return left(c)


def endless(c: Caller) -> bytes:
    """A whole request for a long stream."""
    body = json.dumps({"input": {"prompt": question(c), **ENDLESS}}).encode()
    return head(c, len(body)) + body


def head(c: Caller, length: int) -> bytes:
    lines = [
        "POST /predictions HTTP/1.1",
        f"Host: {urlsplit(c.url).netloc}",
        "Accept: text/event-stream",
        "Content-Type: application/json",
        f"Content-Length: {length}",
    ]
    return "\r\n".join([*lines, "", ""]).encode()


@contextmanager
def connected(c: Caller, receive_buffer: int | None = None) -> Iterator[socket.socket]:
    """A bare connection to the server."""
    address = urlsplit(c.url)
    with socket.socket() as connection:
        connection.settimeout(PATIENCE)
        if receive_buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            connection.connect((address.hostname, address.port))
            yield connection
        except TimeoutError as error:
            raise Hang(f"nothing on a bare connection for {PATIENCE:.0f} s") from error


GOOD: Mapping[Kind, int] = MappingProxyType(
    {
        copied: 20,
        chat: 12,
        at_least: 5,
        stopped: 6,
        cancelled_stream: 5,
        cancelled_plain: 4,
        dropped_stream: 6,
        dropped_plain: 4,
        timed_out: 5,
        too_long: 4,
        conversation: 8,
        json_answer: 10,
        tools: 10,
    }
)
BAD: Mapping[Kind, int] = MappingProxyType(
    {
        malformed_body: 6,
        wrong_type: 6,
        refused_input: 10,
        hostile_template: 4,
        huge_prompt: 5,
        half_a_body: 4,
        hit_and_run: 6,
        slow_reader: 6,
    }
)
