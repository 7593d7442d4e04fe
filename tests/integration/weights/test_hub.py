"""The hub lists its files with their checksums and gives them out. What it refuses is explained."""

import json
from dataclasses import dataclass
from urllib.parse import urlencode

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import _http
from pydantic import SecretStr

from hermes.environment import CA_VARIABLES
from hermes.errors import InvalidConfiguration
from hermes.weights import hub, hub_client
from hermes.weights.http import Session
from hermes.weights.hub import list_hub
from hermes.weights.remote import Interrupted, PermanentFault
from hermes.weights.source import HubSource, parse_source
from tests.support.certificates import over_tls
from tests.support.faults import FaultOfServer, Html, Stall, Status
from tests.support.hub_server import HubServer
from tests.support.replies import Reply
from tests.support.tiny_models import MODEL, WEIGHTS, refusal

SOURCE = HubSource("org/model")
TOKEN = SecretStr("hf_secretsecret")
INDEX = "model.safetensors.index.json"
ZERO_BASED = [f"model-{n:05}-of-00003.safetensors" for n in range(4)]


@pytest.fixture
def server(monkeypatch, tmp_path):
    with HubServer(page_size=2) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path))  # of hf_xet's logs
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
        yield server


def index_of(*names):
    return json.dumps({"weight_map": {f"layer.{n}": name for n, name in enumerate(names)}}).encode()


def test_the_index_of_a_repository_is_read_before_anything_else_is_fetched(server):
    shards = dict.fromkeys(ZERO_BASED, WEIGHTS)
    server.add_repo("org/model", {"config.json": b"{}", INDEX: index_of(*ZERO_BASED[:3]), **shards})
    assert [file.name for file in list_hub(SOURCE, None).files] == ["config.json", *ZERO_BASED[:3], INDEX]
    server.add_repo("org/other", {"config.json": b"{}", INDEX: index_of("x.safetensors"), **shards})
    said = f"its {INDEX} names x.safetensors, which is not there; name another source, or"
    assert said in refusal(list_hub, HubSource("org/other"), None)


def test_a_listing_has_sizes_and_the_checksums_that_the_hub_publishes(server):
    repo = server.add_repo("org/model", {**MODEL, "README.md": b"a model"})
    listing = list_hub(SOURCE, None)
    facts = [(file.name, file.size, (file.sha256 or "")[:7], (file.git_sha1 or "")[:7]) for file in listing.files]
    assert (listing.source, listing.commit) == ("hf://org/model@main", repo.commit)
    assert facts == [
        ("config.json", 10, "", "5e37e83"),
        ("model.safetensors", 30_000, "c13f0c5", ""),
        ("tokenizer.json", 8, "", "4a036f5"),
    ]


def test_the_files_of_a_lock_are_listed_as_they_are_named_there(server):
    server.add_repo("org/model", {**MODEL, "README.md": b"a model"})
    assert [file.name for file in list_hub(SOURCE, None, ["README.md"]).files] == ["README.md"]
    assert "it has no z.json, but weights.lock has it; name another" in refusal(list_hub, SOURCE, None, ["z.json"])


@pytest.mark.parametrize("revision", ["fix#1", "v1.0+cu121", "50%/größer", "a&b=c"])
def test_a_revision_may_be_named_as_git_names_them(server, revision):
    repo = server.add_repo("org/model", MODEL)
    repo.refs[revision] = repo.commit
    listing = list_hub(parse_source(f"hf://org/model@{revision}"), None)
    assert (listing.source, listing.commit) == (f"hf://org/model@{revision}", repo.commit)


def test_a_listed_file_is_read_from_any_offset(server):
    server.add_repo("org/model", MODEL)
    files = {file.name: file for file in list_hub(SOURCE, None).files}
    assert b"".join(map(bytes, files["model.safetensors"].read(29_990))) == WEIGHTS[29_990:]
    assert b"".join(map(bytes, files["config.json"].read(3))) == MODEL["config.json"][3:]


STRANGE = [
    "images\\fig.png",
    "\u3000.md",
    "a\u200bb.txt",
    "../up.png",
    "/etc/passwd",
    "x" * 300 + ".png",
    "\x1b[2J",
    "blank .md ",
    "con",
    "docs/a\u3000b.json",
]


def test_what_is_not_fetched_may_have_any_name(server):
    server.add_repo("org/model", MODEL | dict.fromkeys(STRANGE, b"stray"))
    assert [file.name for file in list_hub(SOURCE, None).files] == sorted(MODEL)


UNSAFE = {
    "a\u200bb.json": "is not a safe file name",
    "tokenizer\u3000.model": "is not a safe file name",
    "a\\b.json": "is not a safe file name",
    "tokenizer\n": "is not a safe file name",
    "x" * 251 + ".json": "is too long for a file name",
    "ü" * 126 + ".json": "is too long for a file name",
}


@pytest.mark.parametrize(("name", "problem"), UNSAFE.items())
def test_what_is_fetched_is_refused_by_its_name(server, name, problem):
    server.add_repo("org/model", {**MODEL, name: b"{}"})
    assert f"weights 'hf://org/model@main': {name!r} {problem}; name another" in refusal(list_hub, SOURCE, None)
    assert len(list_hub(HubSource("org/model", exclude=(name,)), None).files) == len(MODEL)


def test_an_adapter_is_refused_with_what_to_do(server):
    adapter = {"adapter_config.json": b"{}", "adapter_model.safetensors": WEIGHTS}
    for files in (adapter, adapter | {"config.json": b"{}"}, {**adapter, "training_args.bin": b"x"}):
        server.add_repo("org/adapter", files)
        for include in ((), ("*",), ("*.json", "*.safetensors")):
            message = refusal(list_hub, HubSource("org/adapter", include=include), None)
            assert "this is a LoRA adapter; merge it into its base model, with peft's merge_and_unload()" in message


def test_patterns_may_choose_what_is_no_adapter(server):
    """A model beside its adapter, or the merged model in a folder."""
    adapter = {"adapter_config.json": b"{}", "adapter_model.safetensors": WEIGHTS, "config.json": b"{}"}
    server.add_repo("org/both", {**adapter, **MODEL})
    assert "this is a LoRA adapter" in refusal(
        list_hub, HubSource("org/both", include=("*config.json", "adapter*")), None
    )
    assert len(list_hub(HubSource("org/both", include=("*",)), None).files) == 5
    server.add_repo("org/merged", {**adapter, "merged/model.safetensors": WEIGHTS})
    files = list_hub(HubSource("org/merged", include=("config.json", "merged/*")), None).files
    assert [file.name for file in files] == ["config.json", "merged/model.safetensors"]


REFUSALS = {
    "unknown repository": (HubSource("org/nothing"), None, "the repository does not exist or is private; check its"),
    "private": (HubSource("org/private"), None, "the repository does not exist or is private; check its name, and"),
    "private, with another token": (HubSource("org/private"), TOKEN, "the hub refuses (HTTP 401: "),
    "gated": (HubSource("org/gated"), None, "the repository is gated; accept its licence on the hub, and set HF_TOKEN"),
    "gated, with another token": (HubSource("org/gated"), TOKEN, "the repository is gated; accept its licence on the"),
    "unknown revision": (HubSource("org/model", "v9"), None, "it has no revision 'v9'; name another revision"),
    "pickles": (HubSource("org/pickles"), None, "there are no safetensors among its files, and nothing else is loaded"),
    "a strange name": (HubSource("org/-"), None, "Repo id must use alphanumeric chars"),
}


@pytest.mark.parametrize(("source", "token", "problem"), REFUSALS.values(), ids=REFUSALS)
def test_what_the_hub_does_not_give_out_is_explained(server, source, token, problem):
    server.add_repo("org/model", MODEL)
    server.add_repo("org/private", MODEL, private_token="hf_other")
    server.add_repo("org/gated", MODEL, gated="hf_other")
    server.add_repo("org/pickles", {"config.json": b"{}", "pytorch_model.bin": b"code"})
    message = refusal(list_hub, source, token)
    assert message.startswith(f"E1000 WeightsError: weights '{source}': {problem}")
    assert "secret" not in message


def test_without_the_network_it_says_so(server, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set, and the model is not here; unset HF_HUB_OFFLINE" in refusal(list_hub, SOURCE, None)


def test_the_token_goes_to_the_hub_and_to_no_other_host(server, monkeypatch, tmp_path):
    (tmp_path / "netrc").write_text("default login me password another")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    server.add_repo("org/model", MODEL, private_token=TOKEN.get_secret_value())
    for file in list_hub(SOURCE, TOKEN).files:
        list(file.read(0))
    to_cdn = {asked.has_authorization for asked in server.requests if asked.path.startswith("/cdn/")}
    to_hub = {asked.has_authorization for asked in server.requests if not asked.path.startswith("/cdn/")}
    assert (to_hub, to_cdn) == ({True}, {False})


class Nonsense(HubServer):
    """JSON, but of something else."""

    def reply_to(self, call):
        return Reply.json([{"error": "not here"}])


PASSING = {
    "an error of the server": (Status(503), "HTTP 503"),
    "too many requests": (Status(429), "HTTP 429"),
    "a page instead": (Html(), "is not a response of the hub's API"),
    "silence": (Stall(0), "timed out"),
}


@pytest.mark.parametrize("path", ["/api/models/org/model/revision", "/tree/"])
@pytest.mark.parametrize(("fault", "cause"), PASSING.values(), ids=PASSING)
def test_a_fault_of_the_hub_may_pass(server, monkeypatch, path, fault, cause):
    server.add_repo("org/model", MODEL)
    server.fail(path, fault)
    with monkeypatch.context() as patch:
        patch.setattr(hub, "READ_SECONDS", 0.05 if isinstance(fault, Stall) else 30.0)
        while server._faults:  # a busy machine may be silent at another request before
            with pytest.raises(Interrupted, match=cause):
                list_hub(SOURCE, None)
    assert len(list_hub(SOURCE, None).files) == 3


def test_what_is_no_hub_is_noticed(monkeypatch):
    with Nonsense() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        with pytest.raises(Interrupted, match="is not a response of the hub's API"):
            list_hub(SOURCE, None)


def test_the_hub_says_when_to_come_again(server):
    server.fail("/api/", Status(429, retry_after=7))
    with pytest.raises(Interrupted) as caught:
        list_hub(SOURCE, None)
    assert caught.value.retry_after == 7


@pytest.mark.parametrize(
    ("status", "step"),
    [(403, "check HF_TOKEN"), (404, "check HF_ENDPOINT"), (511, "log in to the network"), (501, "check HF_ENDPOINT")],
)
def test_what_the_hub_refuses_has_its_own_step(server, status, step):
    server.fail("/api/", Status(status))
    assert refusal(list_hub, SOURCE, None).endswith(f"; {step}")


ADDRESSES = ["hub.example", "http://hub:port", "http://a..b", f"http://{'a' * 300}", "http://127.0.0.1:999999"]


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_that_is_none_is_refused(monkeypatch, address):
    monkeypatch.setenv("HF_ENDPOINT", address)
    assert "weights 'hf://org/model@main': HF_ENDPOINT is not a URL (" in refusal(list_hub, SOURCE, None)


def test_xet_files_come_from_any_offset_and_without_it_over_http(server, monkeypatch):
    server.add_repo("org/model", MODEL, xet=True)
    over_xet = list_hub(SOURCE, None).files[1]
    assert b"".join(over_xet.read(29_000)) == WEIGHTS[29_000:]
    assert not [asked for asked in server.requests if asked.path.startswith("/cdn/")]
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    over_http = list_hub(SOURCE, None).files[1]
    assert b"".join(map(bytes, over_http.read(29_000))) == WEIGHTS[29_000:]


def test_a_fault_of_xet_may_pass(server, caplog):
    server.add_repo("org/model", MODEL, xet=True)
    server.fail("/xet-read-token/", Status(503))
    file = list_hub(SOURCE, None).files[1]
    with pytest.raises(Interrupted, match="HTTP 503: "):
        list(file.read(0))
    assert b"".join(file.read(0)) == WEIGHTS


@pytest.mark.parametrize("status", [401, 403, 404, 511])
def test_xet_that_the_hub_refuses_is_no_fault_that_passes(server, status):
    server.add_repo("org/model", MODEL, xet=True)
    server.fail("/xet-read-token/", Status(status), times=None)
    file = list_hub(SOURCE, None).files[1]
    assert "weights 'hf://org/model@main': the " in refusal(lambda: list(file.read(0)))


def test_xet_can_be_broken_off(server):
    server.add_repo("org/model", MODEL, xet=True)
    session = Session()
    file = list_hub(SOURCE, None, session=session).files[1]
    assert b"".join(file.read(0)) == WEIGHTS
    session.hang_up()
    with pytest.raises(Interrupted, match="cancelled"):
        list(file.read(0))


@pytest.mark.parametrize("token", ["hf_right\n", " hf_right\r\n", "hf_right"])
@pytest.mark.parametrize("place", ["setting", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "file"])
def test_a_token_may_have_white_space_around_it(server, monkeypatch, tmp_path, token, place):
    server.add_repo("org/model", MODEL, private_token="hf_right")
    if place == "file":
        (tmp_path / "none").write_text(token)
    elif place != "setting":
        monkeypatch.setenv(place, token)
    assert len(list_hub(SOURCE, SecretStr(token) if place == "setting" else None).files) == 3


@pytest.mark.parametrize("token", ["hf_secret x", "hf_s\u00e9cret", "hf_secret\tx"])
def test_a_token_that_no_header_holds_is_named_and_not_shown(server, monkeypatch, token):
    for name, given in (("HERMES_HUB_TOKEN", SecretStr(token)), ("HF_TOKEN or a log-in", None)):
        monkeypatch.setenv("HF_TOKEN", token)
        with pytest.raises(InvalidConfiguration, match=f"{name}: has a token with a blank") as caught:
            list_hub(SOURCE, given)
        assert token not in str(caught.value)


def test_a_token_of_blanks_is_none(server, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", " \n")
    server.add_repo("org/model", MODEL)
    list_hub(SOURCE, SecretStr(" \n"))
    assert not [asked for asked in server.requests if asked.has_authorization]


@dataclass(frozen=True)
class Limited(FaultOfServer):
    """Too many requests, with what the hub says of its limit."""

    headers: dict

    def spoil(self, reply):
        return Reply.text(429, "slow down", self.headers)


@dataclass(frozen=True)
class Elsewhere(FaultOfServer):
    """A redirect to the same path on another host."""

    url: str

    def spoil_at(self, path, reply):
        return Reply.text(307, "moved", {"Location": f"{self.url}{path}"})


@dataclass(frozen=True)
class Renamed(FaultOfServer):
    """A redirect to the new name on the same host."""

    old: str
    new: str

    def spoil_at(self, path, reply):
        return Reply.text(307, "moved", {"Location": path.replace(self.old, self.new)})


class Mirror(HubServer):
    """It passes on the hub's links and sends the rest elsewhere."""

    link = "https://huggingface.co"

    def reply_to(self, call):
        reply = super().reply_to(call)
        if "/tree/" in call.path and "Link" in reply.headers:
            reply.headers["Link"] = reply.headers["Link"].replace(self.url, self.link)
        return reply


@pytest.mark.parametrize("link", ["https://huggingface.co", "http://localhost:1/prefix", ""])
def test_the_next_page_of_a_list_is_that_of_the_mirror(monkeypatch, tmp_path, link):
    with Mirror(page_size=1) as mirror:
        mirror.link = link
        monkeypatch.setenv("HF_ENDPOINT", f"{mirror.url}/")
        monkeypatch.setenv("HF_HOME", str(tmp_path))
        mirror.add_repo("org/model", MODEL)
        assert len(list_hub(SOURCE, TOKEN).files) == 3


def test_a_page_that_names_itself_as_the_next_ends(server):
    server.add_repo("org/model", MODEL)
    server.page_size = 0
    with pytest.raises(PermanentFault, match="is not a response of the hub's API"):
        list_hub(SOURCE, None)


class Moved(HubServer):
    """Each request is answered with a redirect to the same path elsewhere."""

    to = ""

    def reply_to(self, call):
        path = call.path + ("?" + urlencode(call.query) if call.query else "")
        return Reply.text(307, "moved", {"Location": f"{self.to}{path}"})


@pytest.mark.parametrize("is_hub", [False, True])
@pytest.mark.parametrize("path", ["/api/models/org/model/revision", "/tree/", "config.json"])
def test_no_redirect_takes_the_token_to_another_host(server, monkeypatch, path, is_hub):
    repo = server.add_repo("org/model", MODEL, private_token=TOKEN.get_secret_value())
    with HubServer() as other:
        other.add_repo("org/model", MODEL, commit=repo.commit)
        monkeypatch.setattr(_http, "_HUB_ORIGINS", {_http._url_origin(other.url)} if is_hub else set())
        monkeypatch.setattr(hub_client, "HUBS", {other.url.removeprefix("http://").encode()} if is_hub else set())
        server.fail(path, Elsewhere(other.url), times=None, method="*")
        for file in list_hub(SOURCE, TOKEN).files:
            list(file.read(0))
        assert {asked.has_authorization for asked in other.requests} == {False}
    assert {asked.has_authorization for asked in server.requests if "/cdn/" not in asked.path} == {True}


def test_a_hub_that_redirects_in_a_loop_is_no_fault_that_passes(monkeypatch):
    with Moved() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        said = refusal(list_hub, SOURCE, None)
        assert "its host redirects in a loop (TooManyRedirects: Exceeded maximum allowed redirects" in said


def test_a_renamed_repository_is_found_and_a_gate_is_not_waited_for(server):
    repo = server.add_repo("org/new", MODEL, gated="hf_other")
    server.add_repo("org/model", MODEL, commit=repo.commit)
    for path in ("/api/models/org/model*", "/org/model/resolve/*"):
        server.fail(path, Renamed("org/model", "org/new"), times=None, method="*")
    said = "the repository is gated; accept its licence on the hub, and set HF_TOKEN to your token"
    assert said in refusal(list_hub, SOURCE, None)
    files = list_hub(SOURCE, SecretStr("hf_other")).files
    assert b"".join(map(bytes, files[0].read(0))) == MODEL["config.json"]
    repo.gated = True
    assert "config.json': the host refuses access (HTTP 403 " in refusal(lambda: list(files[0].read(0)))


LIMITS = [
    {"RateLimit": '"resolvers";r=0;t=178', "RateLimit-Policy": '"fixed window";"resolvers";q=3000;w=300'},
    {"RateLimit": "limit=500, remaining=0, reset=178"},
    {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "178"},
]


@pytest.mark.parametrize("headers", LIMITS)
@pytest.mark.parametrize("path", ["/api/models/", "/tree/", "/resolve/"])
def test_the_rest_of_a_rate_limit_is_waited_for(server, headers, path):
    server.add_repo("org/model", MODEL)
    server.fail(path, Limited(headers), method="*")
    with pytest.raises(Interrupted, match="HTTP 429") as caught:
        list(list_hub(SOURCE, None).files[0].read(0))
    assert caught.value.retry_after == 178


@pytest.mark.parametrize("headers", LIMITS)
def test_the_rest_of_a_rate_limit_is_waited_for_by_xet(server, headers):
    server.add_repo("org/model", MODEL, xet=True)
    server.fail("/xet-read-token/", Limited(headers))
    file = list_hub(SOURCE, None).files[1]
    with pytest.raises(Interrupted, match="HTTP 429: ") as caught:
        list(file.read(0))
    assert caught.value.retry_after == 178
    assert b"".join(file.read(0)) == WEIGHTS


def test_a_certificate_that_is_not_trusted_names_the_setting(monkeypatch, tmp_path):
    for name in CA_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    with HubServer() as server:
        certificate = over_tls(server, tmp_path)
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        server.add_repo("org/model", MODEL, lfs=())
        said = refusal(list_hub, SOURCE, None)
        assert "the certificate of its host is not trusted (self" in said
        assert said.endswith("name its CA certificate in SSL_CERT_FILE, a PEM file")
        for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
            with monkeypatch.context() as patch:
                patch.setenv(name, str(certificate))
                assert list(list_hub(SOURCE, None).files[0].read(0)) == [MODEL["config.json"]]
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none"))
        with pytest.raises(InvalidConfiguration, match=r"SSL_CERT_FILE: is '.*/none', which is not there"):
            list_hub(SOURCE, None)
        (tmp_path / "none").write_text("nothing")
        with pytest.raises(InvalidConfiguration, match=r"SSL_CERT_FILE: .*/none.* has no certificates that can"):
            list_hub(SOURCE, None)


def test_the_hub_is_asked_through_the_proxy_unless_it_is_here(server, monkeypatch):
    server.add_repo("org/model", MODEL, lfs=())
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "[::1]")
    assert len(list_hub(SOURCE, None).files) == 3
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.invalid")
    with pytest.raises(PermanentFault, match=r"the proxy http://127.0.0.1:1 of HTTP_PROXY cannot be used \(.* refused"):
        list_hub(SOURCE, None)
    monkeypatch.setenv("HTTP_PROXY", "socks5://127.0.0.1:1")
    with pytest.raises(InvalidConfiguration, match=r"HTTP_PROXY: is 'socks5://127.0.0.1:1', and SOCKS needs"):
        list_hub(SOURCE, None)
    monkeypatch.setenv("HTTP_PROXY", server.url)
    assert len(list_hub(SOURCE, None).files) == 3
    assert {asked.path.partition("/api/")[0] for asked in server.requests if "/revision/" in asked.path} == {
        "",
        "http://hub.invalid",
    }


def test_the_hosts_of_the_hub_are_those_of_its_client():
    origins = _http._HUB_ORIGINS - {_http._url_origin(constants.ENDPOINT)}  # which the environment may set
    assert {host.encode() for _, host, _ in origins} <= hub_client.HUBS
