import json

import pytest
from huggingface_hub import constants
from pydantic import SecretStr

from hermes.weights import hub
from hermes.weights.http import Session
from hermes.weights.hub import choose, list_hub
from hermes.weights.remote import Interrupted
from hermes.weights.source import HubSource, parse_source
from tests.support.faults import Html, Stall, Status
from tests.support.hub_server import HubServer
from tests.support.replies import Reply
from tests.support.tiny_models import MODEL, WEIGHTS, refusal

SOURCE = HubSource("org/model")
TOKEN = SecretStr("hf_secretsecret")


@pytest.fixture
def server(monkeypatch, tmp_path):
    with HubServer(page_size=2) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path))  # of hf_xet's logs
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
        yield server


SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
INDEX = "model.safetensors.index.json"

CHOICES = {
    "one file": ["model.safetensors"],
    "shards and their index": [*SHARDS, INDEX],
    "shards with longer numbers": ["model-00001-of-000002.safetensors", "model-00002-of-000002.safetensors"],
    "another name": ["pytorch_model.safetensors"],
    "what describes the tokenizer": ["model.safetensors", "merges.txt", "tokenizer.model", "vocab.txt", "a.jinja"],
    "a licence": ["LICENSE.md", "model.safetensors"],
    "only what Mistral writes": ["consolidated.safetensors"],
}
LEFT = {
    "shards beside the same in one file": (SHARDS, ["model.safetensors", "consolidated.safetensors"]),
    "the same in half precision": (["model.safetensors"], ["model.fp16.safetensors", "model.bf16.safetensors"]),
    "the same as Mistral writes it": (SHARDS, ["consolidated-00001-of-00001.safetensors"]),
    "an adapter": (["model.safetensors"], ["adapter_model.safetensors"]),
    "the same in other formats": (
        ["model.safetensors"],
        ["pytorch_model.bin", "tf_model.h5", "model.gguf", "flax_model.msgpack", "onnx/model.onnx", "rust_model.ot"],
    ),
    "folders": (["model.safetensors"], ["original/model.safetensors", "fp16/config.json"]),
    "papers": (["model.safetensors"], ["README.md", ".gitattributes", "train.py", "loss.png"]),
    "our own mark": (["model.safetensors"], [".complete.json"]),
}


@pytest.mark.parametrize("names", CHOICES.values(), ids=CHOICES)
def test_what_vllm_needs_is_chosen(names):
    assert choose(["config.json", *names]) == sorted(["config.json", *names])


@pytest.mark.parametrize(("names", "left"), LEFT.values(), ids=LEFT)
def test_what_vllm_does_not_need_is_left(names, left):
    assert choose(["config.json", *left, *names]) == sorted(["config.json", *names])


PATTERNS = {
    "another format": ((("config.json", "*.fp16.safetensors"), ()), ["config.json", "model.fp16.safetensors"]),
    "a folder": ((("config.json", "sub/*"), ()), ["config.json", "sub/model.safetensors"]),
    "all but some": (((), ("tokenizer*",)), ["config.json", "model.safetensors"]),
    "some but for one": ((("*.json",), ("tokenizer*",)), ["config.json"]),
}


@pytest.mark.parametrize(("patterns", "expected"), PATTERNS.values(), ids=PATTERNS)
def test_patterns_choose_otherwise(patterns, expected):
    names = ["config.json", "model.safetensors", "model.fp16.safetensors", "sub/model.safetensors", "tokenizer.json"]
    assert choose(names, *patterns) == expected


UNSERVABLE = {
    "only pickles": (["config.json", "pytorch_model.bin"], (), "there are no safetensors among its files, and nothing"),
    "nothing": ([], (), "there are no safetensors among its files, and nothing else is loaded"),
    "missing shards": (["config.json", SHARDS[1]], (), "there are 1 of 2 shards of its safetensors, and no index"),
    "a pickle that was asked for": (["config.json", "a.bin"], ("*",), "a.bin may hold code; only safetensors are"),
    "no config": (["model.safetensors"], (), "there is no config.json among its files"),
    "patterns without the config": (["config.json", "a.safetensors"], ("*.safetensors",), "there is no config.json"),
}


@pytest.mark.parametrize(("names", "include", "problem"), UNSERVABLE.values(), ids=UNSERVABLE)
def test_what_can_not_be_served_is_refused(names, include, problem):
    with pytest.raises(ValueError, match=problem):
        choose(names, include)


ZERO_BASED = [f"model-{n:05}-of-00003.safetensors" for n in range(4)]


def index_of(*names):
    return json.dumps({"weight_map": {f"layer.{n}": name for n, name in enumerate(names)}}).encode()


INDEXED = {
    "from zero": (ZERO_BASED[:3], [], ()),
    "a stray shard": (ZERO_BASED[:3], [ZERO_BASED[3]], ()),
    "another set beside it": (ZERO_BASED[:3], ["model.safetensors", "consolidated.safetensors"], ()),
    "names of its own": (["a.safetensors", "b-2.safetensors"], ["c.safetensors"], ()),
    "patterns that leave a stray": (SHARDS, ["x.safetensors"], (("*.json", "model-*"), ())),
}


@pytest.mark.parametrize(("names", "left", "patterns"), INDEXED.values(), ids=INDEXED)
def test_where_there_is_an_index_it_decides(names, left, patterns):
    chosen = choose(["config.json", INDEX, *left, *names], *patterns, read_shards=lambda: frozenset(names))
    assert chosen == sorted(["config.json", INDEX, *names])


NOT_INDEXED = {
    "other shards": (
        SHARDS,
        (),
        (),
        f"its {INDEX} names model-00000-of-00003.safetensors and 2 more, which",
    ),
    "one is missing": (
        ZERO_BASED[:2],
        (),
        (),
        f"its {INDEX} names model-00002-of-00003.safetensors, which is",
    ),
    "patterns that leave one": (ZERO_BASED[:3], ("*.json", "*-00001-*"), (), f"its {INDEX} names model-00000-of"),
    "an exclusion of one": (
        ZERO_BASED[:3],
        (),
        ("*-00001-*",),
        f"its {INDEX} names model-00001-of-00003.safe",
    ),
}


@pytest.mark.parametrize(("names", "include", "exclude", "problem"), NOT_INDEXED.values(), ids=NOT_INDEXED)
def test_an_index_that_names_what_is_not_there_is_refused(names, include, exclude, problem):
    with pytest.raises(ValueError, match=problem):
        choose(["config.json", INDEX, *names], include, exclude, lambda: frozenset(ZERO_BASED[:3]))


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
        ("model.safetensors", 30_000, "0bf1411", ""),
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
    "a page instead": (Html(), "the response is not one of the hub"),
    "silence": (Stall(0), "ReadTimeout: timed out"),
}


@pytest.mark.parametrize("path", ["/api/models/org/model/revision", "/tree/"])
@pytest.mark.parametrize(("fault", "cause"), PASSING.values(), ids=PASSING)
def test_a_fault_of_the_hub_may_pass(server, monkeypatch, path, fault, cause):
    server.add_repo("org/model", MODEL)
    server.fail(path, fault)
    with monkeypatch.context() as patch:
        patch.setattr(hub, "READ_SECONDS", 0.05 if isinstance(fault, Stall) else 30.0)
        with pytest.raises(Interrupted, match=cause):
            list_hub(SOURCE, None)
    assert len(list_hub(SOURCE, None).files) == 3


def test_what_is_no_hub_is_noticed(monkeypatch):
    with Nonsense() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        with pytest.raises(Interrupted, match="not one of the hub"):
            list_hub(SOURCE, None)


def test_the_hub_says_when_to_come_again(server):
    server.fail("/api/", Status(429, retry_after=7))
    with pytest.raises(Interrupted) as caught:
        list_hub(SOURCE, None)
    assert caught.value.retry_after == 7


@pytest.mark.parametrize("address", ["hub.example", "http://hub:port"])
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
    with pytest.raises(Interrupted, match=r"HTTPError: .* HF_HUB_DISABLE_XET=1 avoids Xet"):
        list(file.read(0))
    assert b"".join(file.read(0)) == WEIGHTS


def test_xet_can_be_broken_off(server):
    server.add_repo("org/model", MODEL, xet=True)
    session = Session()
    file = list_hub(SOURCE, None, session=session).files[1]
    assert b"".join(file.read(0)) == WEIGHTS
    session.hang_up()
    with pytest.raises(Interrupted, match="cancelled"):
        list(file.read(0))
