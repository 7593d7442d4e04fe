"""The bad requests of the soak: none may harm the others. Each draws its inputs and knows its possible ends."""

import socket
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from urllib.parse import urlsplit

from hermes.client.cog import Json
from tests.soak.clients import PATIENCE, Hang, Kind, Session, Unexpected
from tests.soak.good import ENDLESS, left, question

LARGEST = 2_000_000  # characters of a prompt
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
    ("E1006", {"tools": [{"name": "find"}, {"name": "find", "description": "another"}]}),
    ("E1006", {"tools": [{"name": "no\nname"}]}),
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


def malformed_body(c: Session) -> str:
    response = c.send(c.draw.choice(MALFORMED))
    c.expect(response.status_code in (400, 422), "it was not refused", response)
    return response.outcome


def wrong_type(c: Session) -> str:
    response = c.plain({"prompt": question(c), **c.draw.choice(WRONG_TYPES)})
    c.expect(response.status_code == 422, "it was not refused", response)
    return response.outcome


def refused_input(c: Session) -> str:
    code, inputs = c.draw.choice(REFUSED)
    return c.fails(code, **{"prompt": question(c), **inputs}).outcome


def hostile_template(c: Session) -> str:
    """Send a template that would be slow or dangerous if it were evaluated."""
    inputs = {"prompt_template": c.draw.choice(TEMPLATES), "max_tokens": 5}
    response = c.succeeds(prompt=question(c), **inputs)
    c.expect(response.metrics["input_token_count"] < 200, "the template was evaluated", response)
    return response.outcome


def huge_prompt(c: Session) -> str:
    characters = c.draw.choice([100_000, 500_000, LARGEST])
    where = c.draw.choice(["prompt", "system_prompt", "messages"])
    text = (c.draw.choice(["word ", "日本", "<|im_end|>"]) * characters)[:characters]
    inputs: Json = {"prompt": question(c)}
    inputs |= {where: [{"role": "user", "content": text}] if where == "messages" else text}
    return c.fails("E1002", **inputs).outcome


def half_a_body(c: Session) -> str:
    with connected(c) as connection:
        connection.sendall(head(c, 100_000) + b'{"input": {"prompt": "' + c.nonce.encode())
        time.sleep(c.draw.uniform(0, 3))
    return left(c)


def hit_and_run(c: Session) -> str:
    """Connect and leave: at once or after a whole request, with a normal end or a reset."""
    with connected(c) as connection:
        if c.draw.random() < 0.7:
            connection.sendall(endless(c))
            time.sleep(c.draw.choice([0, 0.02, 0.2]))
        if c.draw.random() < 0.5:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
    return left(c)


def slow_reader(c: Session) -> str:
    """Leave a stream unread for seconds, read a few bytes at a time, then drop it."""
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


def endless(c: Session) -> bytes:
    """Write a whole request for a long stream."""
    body = c.body({"prompt": question(c), **ENDLESS})
    return head(c, len(body)) + body


def head(c: Session, length: int) -> bytes:
    lines = [
        f"POST {c.path} HTTP/1.1",
        f"Host: {urlsplit(c.url).netloc}",
        "Accept: text/event-stream",
        "Content-Type: application/json",
        f"Content-Length: {length}",
        *(f"{name}: {value}" for name, value in c.headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode()


@contextmanager
def connected(c: Session, receive_buffer: int | None = None) -> Iterator[socket.socket]:
    """Open a bare connection to the server."""
    address = urlsplit(c.url)
    with socket.socket() as connection:
        connection.settimeout(PATIENCE)
        if receive_buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            connection.connect((address.hostname, address.port))
            yield connection
        except TimeoutError as error:
            raise Hang(f"nothing came on a bare connection for {PATIENCE:.0f} s") from error


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
