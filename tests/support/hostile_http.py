"""HTTP requests to a gateway that nobody means well with: any route, method, headers and body of up to 1 MB."""

import gzip
import socket
import zlib
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPResponse
from urllib.parse import quote, urlsplit

from hypothesis import strategies as st

from tests.support.gateways import MODEL
from tests.support.hostile import anything, as_json, mixed, objects, sometimes

TOKENS = {"alice": "token-of-alice", "bob": "token-of-bob"}
SECONDS = 30  # for one answer
MOST = 2**20  # bytes of a body
BOMB = gzip.compress(b" " * 2**26)
ENCODED = {  # what is sent in the place of a body, by its encoding
    "gzip": gzip.compress,
    "x-gzip": lambda body: gzip.compress(body, 1)[:-3],  # cut off
    "deflate": zlib.compress,
    "GZIP": lambda body: body,  # and it is not
    "Gzip": lambda _: BOMB,
    "br": lambda body: body,
}


def secret_of(person):
    """A word in each prompt of a person, which no other person may read."""
    return f"secret-of-{person}"


@dataclass
class Sent:
    """A request. Its path may name {alice_id} and {alice_stream}, a prediction that was made before, and bob's."""

    method: str
    path: str
    headers: list[tuple[bytes, bytes]]
    body: bytes
    person: str | None  # whose token it has
    chunked: bool = False
    encoding: str | None = None
    version: int = 11  # of HTTP
    half_closed: bool = False  # once it is sent

    @property
    def sent_body(self):
        """What is sent for the body."""
        return ENCODED[self.encoding](self.body) if self.encoding else self.body

    @property
    def may_be_cut(self):
        """Whether nothing tells the gateway that the client still reads: whole answers take too long for some."""
        return self.half_closed and self.version == 10

    def __repr__(self):
        body = (
            repr(self.body) if len(self.body) < 400 else f"{self.body[:200]!r}...{self.body[-50:]!r} {len(self.body)}"
        )
        how = f"HTTP {self.version} {'half closed ' * self.half_closed}{'chunked ' * self.chunked}{self.encoding or ''}"
        return f"{self.method} {self.path} {self.headers} {how} {body}"


@dataclass
class Received:
    """A response."""

    status: int
    headers: dict[str, str]
    body: bytes
    problem: dict = field(default_factory=dict)


def send(url, sent, places):
    """Send a request, and return what comes back: None if it was cut off while its body was still being sent."""
    connection = HTTPConnection(urlsplit(url).netloc, timeout=SECONDS)
    connection._http_vsn, connection._http_vsn_str = sent.version, f"HTTP/1.{sent.version % 10}"
    body = sent.sent_body
    try:
        path = sent.path
        for name, place in places.items():
            path = path.replace(f"{{{name}}}", place)
        connection.putrequest(sent.method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in sent.headers:
            connection.putheader(name, value.replace(b"{host}", urlsplit(url).netloc.encode()))
        if sent.encoding:
            connection.putheader("Content-Encoding", sent.encoding)
        if sent.chunked:
            connection.putheader("Transfer-Encoding", "chunked")
        else:
            connection.putheader("Content-Length", str(len(body)))
        whole = True
        try:
            connection.endheaders(body or None, encode_chunked=sent.chunked)
            if sent.half_closed:
                connection.sock.shutdown(socket.SHUT_WR)
        except OSError:  # it was refused before it was whole
            whole = False
        try:
            response = HTTPResponse(connection.sock, method=sent.method)
            response.begin()
            return Received(response.status, {n.lower(): v for n, v in response.getheaders()}, response.read())
        except (ConnectionError, HTTPException):
            if whole and len(body) < 2**16 and not sent.may_be_cut:
                raise
            return None
    finally:
        connection.close()


# Paths. An id is one that is there, or anything.
texts = st.text(st.characters(codec="utf-8"), max_size=20).map(lambda text: quote(text, safe=""))
odd = texts | st.sampled_from(["..", "%2e%2e", "a%00b", "0", "-1", "%ff", "x" * 5000])
ids = sometimes(st.sampled_from(["{alice_id}", "{bob_id}"]), odd)
model_names = sometimes(st.sampled_from([MODEL, "model", "local%2Fmodel"]), st.tuples(odd, odd).map("/".join))
reads = st.one_of(
    st.sampled_from(
        ["/", "/healthz", "/health", "/ping", "/version", "/metrics", "/models", "/account", "/predictions"]
    ),
    st.sampled_from(["/predictions", "/webhooks/default/secret", "/files", "/page/chat.js", "/page/../app.py"]),
    ids.map("/predictions/{}".format),
    ids.map("/responses/{}".format),
    ids.map("/responses/{}/input_items".format),
    st.sampled_from(["{alice_stream}", "{bob_stream}", "/stream/{alice_id}/x", "/stream/{bob_id}/{alice_id}"]),
    st.tuples(ids, odd).map(lambda two: "/stream/{}/{}".format(*two)),
    model_names.map("/models/{}".format),
    model_names.map("/models/{}/versions".format),
    st.tuples(model_names, odd).map(lambda two: "/models/{}/versions/{}".format(*two)),
    model_names.map("/deployments/{}".format),
    odd.map("/{}".format),
)
creates = st.one_of(
    st.sampled_from(["/chat/completions", "/completions", "/responses", "/predictions"]),
    st.sampled_from(["/messages", "/messages/count_tokens", "/tokenize", "/detokenize"]),
    ids.map("/responses/{}/cancel".format),
    st.sampled_from([f"/models/{MODEL}/predictions", f"/deployments/{MODEL}/predictions"]),
    ids.map("/predictions/{}/cancel".format),
    model_names.map("/models/{}/predictions".format),
    model_names.map("/deployments/{}/predictions".format),
)
prefixes = sometimes(
    st.just("/v1"), st.sampled_from(["", "/v1/v1", "//v1", "/v1/", "/v1//v1//", "/hermes", "/hermes/v1"])
)
values = st.sampled_from(["{alice_id}", "{bob_id}", "web", "100", "2026-01-01T00:00:00Z"]) | odd
filters = st.lists(
    st.tuples(st.sampled_from(["cursor", "source", "created_after", "limit"]), values).map("=".join), max_size=3
)
queries = sometimes(st.just(""), filters.map(lambda each: "?" + "&".join(each)))
other_methods = st.sampled_from(["GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"])

# Headers.
odd_bytes = st.binary(max_size=30).map(lambda data: bytes(b for b in data if b >= 0x20 and b != 0x7F))
right = st.sampled_from(sorted(TOKENS)).map(lambda person: (person, b"Bearer " + TOKENS[person].encode()))
wrong = st.sampled_from([None, b"", b"Bearer", b"Bearer ", b"Bearer wrong", b"Basic YTpi", b"Token\ttoken"])
authorizations = sometimes(right, (wrong | odd_bytes.map(b"Bearer ".__add__)).map(lambda value: (None, value)))
hosts = sometimes(
    st.just(b"{host}"), st.sampled_from([b"", b"evil.example", b"LOCALHOST:1", b"[::1", b"a b"]) | odd_bytes
)
content_types = sometimes(
    st.just(b"application/json"),
    st.sampled_from(
        [
            b"text/plain",
            b"application/x-www-form-urlencoded",
            b"application/json; charset=utf-16",
            b"multipart/form-data",
        ]
    )
    | odd_bytes,
)
header = st.one_of(
    st.tuples(
        st.just(b"Prefer"), st.sampled_from([b"wait", b"Wait=1", b"wait=0", b"respond-async", b"wait=-1", b"wait=1e9"])
    ),
    st.tuples(
        st.just(b"Cancel-After"), st.sampled_from([b"5s", b"1h", b"0s", b"5", b"-1s", b"nan", b"9" * 400 + b"s"])
    ),
    st.tuples(st.just(b"Last-Event-ID"), st.sampled_from([b"1:0", b"9" * 5000, b"-1:-1", b"9:9", b"\xb2:\xb2", b"::"])),
    st.tuples(
        st.just(b"Origin"), st.sampled_from([b"http://{host}", b"https://evil.example", b"null", b"", b"http://["])
    ),
    st.tuples(st.just(b"Sec-Fetch-Site"), st.sampled_from([b"cross-site", b"same-origin", b"none", b"\xff"])),
    st.tuples(st.just(b"X-Forwarded-Host"), st.sampled_from([b"evil.example", b"a, b", b"\x80"])),
    st.tuples(st.just(b"X-Forwarded-Proto"), st.sampled_from([b"https", b"javascript", b""])),
    st.tuples(st.just(b"X-Forwarded-For"), st.sampled_from([b"127.0.0.1", b"evil, ,", b"::1"])),
    st.tuples(st.just(b"X-Forwarded-Prefix"), st.sampled_from([b"/hermes", b"//evil.example", b"hermes"])),
    st.tuples(st.just(b"X-Request-ID"), st.sampled_from([b"abc-1_", b"x" * 65, b'"}\\n', b"\xe9"]) | odd_bytes),
    st.tuples(st.just(b"Accept"), st.sampled_from([b"text/event-stream", b"*/*", b"x" * 500])),
    st.tuples(st.just(b"Content-Encoding"), st.sampled_from([b"identity", b"br, gzip", b"x" * 5000])),
    st.tuples(st.just(b"Connection"), st.sampled_from([b"close", b"keep-alive", b"Upgrade"])),
    st.tuples(st.just(b"Access-Control-Request-Method"), st.just(b"POST")),
    st.tuples(st.sampled_from([b"X-A", b"Cookie", b"Range", b"If-None-Match", b"X-Stainless-Lang"]), odd_bytes),
)

# Bodies. Prompts have the person's word; a few have the imitated server fail.
fails = st.sampled_from(["", "", "", "", "", "", " fake:E1002", " fake:E1203", " fake:cut"])


def prompts(person):
    return st.builds(lambda text, how: f"{secret_of(person)} {text}{how}", mixed.map(lambda text: text[:200]), fails)


def chats(person):
    parts = st.lists(
        sometimes(objects({"type": sometimes(st.just("text")), "text": sometimes(prompts(person))})), max_size=2
    )
    roles = sometimes(st.sampled_from(["user", "user", "user", "system", "developer", "assistant", "tool"]))
    message = objects({"role": roles, "content": sometimes(prompts(person)) | parts}, tool_calls=anything)
    last = st.fixed_dictionaries({"role": st.just("user"), "content": prompts(person)})
    turns = st.lists(sometimes(message), max_size=2).flatmap(
        lambda several: sometimes(last).map(lambda one: [*several, one])
    )
    return objects({"model": model, "messages": sometimes(turns)}, **common, **of_tools, response_format=form)


def completions(person):
    one = sometimes(prompts(person))
    return objects(
        {"model": model, "prompt": one | st.lists(one, max_size=3)}, **common, echo=anything, best_of=anything
    )


def responses(person):
    kinds = sometimes(
        st.sampled_from(["message", "function_call", "function_call_output", "reasoning", "item_reference"])
    )
    roles = sometimes(st.sampled_from(["user", "assistant", "system"]))
    item = objects(
        {"type": kinds, "role": roles, "content": sometimes(prompts(person))}, call_id=anything, output=anything
    )
    given = sometimes(prompts(person)) | st.lists(sometimes(item), max_size=3)
    text = sometimes(st.fixed_dictionaries({"format": form}))
    return objects({"model": model, "input": given}, **common, **of_tools, text=text, instructions=sometimes(mixed))


def creations(person):
    message = objects({"role": sometimes(st.just("user")), "content": sometimes(prompts(person))})
    inputs = objects(
        {},
        prompt=sometimes(prompts(person)),
        messages=sometimes(st.lists(sometimes(message), max_size=2)),
        max_tokens=sometimes(st.integers(1, 20)),
        tools=anything,
        json_schema=anything,
        temperature=sometimes(st.floats(0, 2)),
    )
    hooks = st.sampled_from(["http://127.0.0.1:1/shutdown", "https://a.example", "ftp://x", "http://[", "//"]) | mixed
    filters = sometimes(st.lists(st.sampled_from(["start", "output", "logs", "completed", "x"]), max_size=3))
    return objects(
        {"input": sometimes(inputs), "version": model}, webhook=hooks, webhook_events_filter=filters, stream=anything
    )


model = sometimes(st.just(MODEL))
streamed = st.booleans()
number = sometimes(st.integers(1, 20))
common = {
    "stream": sometimes(streamed),
    "max_tokens": number,
    "n": sometimes(st.integers(1, 3)),
    "stop": anything,
    "temperature": anything,
    "seed": anything,
    "stream_options": anything | st.just({"include_usage": True}),
}
form = sometimes(
    objects(
        {"type": sometimes(st.sampled_from(["json_schema", "json_object", "text"]))},
        json_schema=anything,
        schema=anything,
    )
)
functions = objects({"name": sometimes(st.sampled_from(["f", "g"]))}, parameters=anything, description=anything)
of_tools = {
    "tools": sometimes(st.lists(sometimes(objects({"type": st.just("function"), "function": functions})), max_size=2)),
    "tool_choice": sometimes(st.sampled_from(["auto", "none", "required"])),
}
DIALECTS = {
    "/chat/completions": chats,
    "/completions": completions,
    "/responses": responses,
    "/predictions": creations,
    "/messages": chats,
    "/count_tokens": chats,
    "/tokenize": completions,
}


def full(beginning, unit, end, size):
    """A body of about so many bytes: one unit again and again."""
    unit = unit.encode()
    return (
        beginning.encode()
        + unit * ((size - len(beginning) - len(end) - 8) // len(unit))
        + unit.rstrip(b",")
        + end.encode()
    )


def nested(beginning, opening, inner, closing, end, depth):
    return (beginning + opening * depth + inner + closing * depth + end).encode()[:MOST]


CHAT = f'{{"model": "{MODEL}", "messages": '
ASKED = f'{CHAT}[{{"role": "user", "content": "Hi"}}]'
CREATE = f'{{"version": "{MODEL}", "input": {{'
RESPOND = f'{{"model": "{MODEL}", "input": '
LARGE = [
    (CHAT + "[", "{},", "]}"),
    (CHAT + "[", '{"role":"user","content":"x"},', "]}"),
    (CHAT + "[", '{"role":"user","content":[{"type":"text","text":"x"}]},', "]}"),
    (CHAT + "[", "1,", "]}"),
    (CHAT + '[{"role": "user", "content": "', "word ", '"}]}'),
    (CHAT + '[{"role": "user", "content": "', "\\ud83d\\ude00", '"}]}'),
    (CHAT + '[{"role": "user", "content": [', '{"type":"text","text":"x"},', "]}]}"),
    (ASKED + ', "tools": [', '{"type":"function","function":{"name":"f"}},', "]}"),
    (ASKED + ', "stop": [', '"a",', "]}"),
    (ASKED + ', "response_format": {"type":"json_schema","json_schema":{"schema":{"enum":[', '"a",', "]}}}}"),
    (ASKED + ', "response_format": {"type":"json_schema","json_schema":{"schema":{"pattern":"', "(a|", '"}}}}'),
    (CREATE + '"messages": [', "{},", "]}}"),
    (CREATE + '"messages": [', "[],", "]}}"),
    (CREATE + '"messages": [', '{"role":"user","content":"x"},', "]}}"),
    (CREATE + '"prompt": "Hi", "tools": [', "{},", "]}}"),
    (CREATE + '"prompt": "', "日本", '"}}'),
    (CREATE + '"prompt": "Hi", "json_schema": {"enum": [', "0,", "]}}}"),
    (CREATE + '"prompt": "Hi", "x": [', "1e5,", "]}}"),
    (RESPOND + "[", "{},", "]}"),
    (RESPOND + "[", '{"role":"user","content":"x"},', "]}"),
    (RESPOND + "[", '{"type":"function_call","call_id":"a","name":"f","arguments":"{}"},', "]}"),
    (RESPOND + '"', "\\u0000", '"}'),
    (f'{{"model": "{MODEL}", "prompt": [', '"a",', "]}"),
    (f'{{"model": "{MODEL}", "prompt": "', "a ", '"}'),
    ("[", "0,", "]"),
    ("", " ", "{}"),
    ('{"a": ', "9", "}"),
]
DEEP = [
    (ASKED + ', "response_format": {"type":"json_schema","json_schema":{"schema":', '{"items":', "{}", "}", "}}}"),
    (ASKED + ', "metadata": ', '{"a":', "1", "}", "}"),
    (CREATE + '"prompt": "Hi", "json_schema": ', '{"not":', "{}", "}", "}}"),
    (CREATE + '"messages": ', "[", "", "]", "}}"),
    (RESPOND, "[", "", "]", "}"),
    ("", "[", "", "]", ""),
]
sizes = st.sampled_from([2_000, 100_000, MOST - 100, MOST - 100])
large = st.builds(lambda shape, size: full(*shape, size), st.sampled_from(LARGE), sizes)
deep = st.builds(
    lambda shape, depth: nested(*shape, depth), st.sampled_from(DEEP), st.sampled_from([60, 954, 5_000, 100_000])
)
not_json = st.sampled_from(
    [b"", b"{", b"null", b"[]", b'"x"', b"\xff\xfe", b"\xef\xbb\xbf{}", b'{"a":NaN}', b'{"a":1e999}']
)


def written(value):
    return as_json(value).encode()[:MOST]  # half a character in it is an escape


def path_for(body):
    """The path that a large or deep body is meant for."""
    if body.startswith(CREATE.encode()):
        return "/v1/predictions"
    if body.startswith(RESPOND.encode()):
        return "/v1/responses"
    return "/v1/completions" if b'"prompt"' in body[:60] else "/v1/chat/completions"


def bodies(path, person):
    """What is meant for the path in most cases."""
    usual = next((DIALECTS[end] for end in DIALECTS if path.endswith(end)), creations)(person).map(written)
    return st.integers(0, 9).flatmap(
        lambda number: [usual, large, deep, not_json | st.binary(max_size=50)][max(0, number - 6)]
    )


@st.composite
def requests(draw):
    """Any request: six in ten make something, three read, one does what it likes."""
    aim = draw(st.integers(0, 9))
    route = draw(reads if aim in (6, 7, 8) else creates)
    method = draw(other_methods) if aim == 9 else "GET" if aim >= 6 else "POST"
    path = route if "_stream}" in route else draw(prefixes) + route  # a stream's address is whole
    person, authorization = draw(authorizations)
    body = b"" if method == "GET" else draw(bodies(route, person or "nobody"))
    headers = [(b"Host", draw(hosts))]
    if authorization is not None:
        headers.append((b"Authorization", authorization))
    if body:
        headers.append((b"Content-Type", draw(content_types)))
    headers += draw(
        sometimes(st.just([]), st.lists(header, min_size=1, max_size=3)) if aim < 3 else st.lists(header, max_size=2)
    )
    version = draw(sometimes(st.just(11), st.just(10)))
    return Sent(
        method,
        path + draw(queries),
        headers,
        body,
        person,
        chunked=bool(body) and version == 11 and draw(st.integers(0, 9)) == 7,
        encoding=draw(sometimes(st.none(), st.sampled_from(sorted(ENCODED)))) if body else None,
        version=version,
        half_closed=draw(st.integers(0, 9)) == 7,
    )
