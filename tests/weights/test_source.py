"""What people write for a model, the folder it goes to, and what is never shown of it."""

from pathlib import Path

import pytest

from hermes.errors import WeightsError
from hermes.weights.source import ArchiveSource, DemoSource, FolderSource, GgufSource, HubSource, parse_source

SOURCES = {
    "demo": DemoSource(),
    "hf://owner/repo": HubSource("owner/repo"),
    "hf://owner/repo@v1.0": HubSource("owner/repo", "v1.0"),
    "hf://owner/repo@refs/pr/7": HubSource("owner/repo", "refs/pr/7"),
    "hf://owner/repo@fix#1": HubSource("owner/repo", "fix#1"),
    "hf://owner/repo@v1.0+cu121": HubSource("owner/repo", "v1.0+cu121"),
    "hf://owner/repo@größer/50%=a&b@c!": HubSource("owner/repo", "größer/50%=a&b@c!"),
    "hf://owner/repo@a#b?include=*.json": HubSource("owner/repo", "a#b", include=("*.json",)),
    "HF://Owner/Repo_1.5-x": HubSource("Owner/Repo_1.5-x"),
    "hf://o/r?include=*.json&include=a/b?.x": HubSource("o/r", include=("*.json", "a/b?.x")),
    "hf://o/r@main?exclude=%2A.bin": HubSource("o/r", exclude=("*.bin",)),
    "https://host/model.tar": ArchiveSource("https://host/model.tar"),
    "HTTP://host:8000/a/model.tar.gz": ArchiveSource("HTTP://host:8000/a/model.tar.gz"),
    "https://[::1]/model.tgz": ArchiveSource("https://[::1]/model.tgz"),
    "https://host/model.tar.zst?X-Amz-Signature=1": ArchiveSource("https://host/model.tar.zst?X-Amz-Signature=1"),
    "file:///models/my%20model": FolderSource(Path("/models/my model")),
    "file://localhost/models/m": FolderSource(Path("/models/m")),
    "file:///models/m.gguf": GgufSource(Path("/models/m.gguf")),
    "weights/model": FolderSource(Path("weights/model")),
    "./demo": FolderSource(Path("demo")),
    "C:/models/m": FolderSource(Path("C:/models/m")),
    "m.gguf": GgufSource(Path("m.gguf")),
    "Model.GGUF": GgufSource(Path("Model.GGUF")),
    "file:///models/M.Gguf": GgufSource(Path("/models/M.Gguf")),
    "https://host/Model.TAR": ArchiveSource("https://host/Model.TAR"),
    "https://huggingface.co/o/r/resolve/main/m.tar": ArchiveSource("https://huggingface.co/o/r/resolve/main/m.tar"),
}


@pytest.mark.parametrize(("text", "source"), SOURCES.items(), ids=SOURCES)
def test_a_text_names_a_source(text, source):
    assert parse_source(text) == source


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_a_source_is_written_as_it_is_read(source):
    assert str(parse_source(str(source))) == str(source)


BROWSED = "this is the page of a repository on the hub"
NO_SOURCES = {
    "": "weights '': this is not a source of weights; write hf://owner/repo",
    "://x": "weights '://x': this is not a source of weights",
    "ftp://me:secret@host/m.tar?sig=x": "weights 'ftp://...@host/m.tar': this is not a source of weights",
    "hf://gpt2": "weights 'hf://gpt2': this is not a repository on the hub; write hf://owner/repo[@revision]",
    "hf://owner/repo/": "weights 'hf://owner/repo/': this is not a repository",
    "hf://owner/repo@": "weights 'hf://owner/repo@': this is not a repository",
    "hf://owner/repo@a b": "weights 'hf://owner/repo@a b': this is not a repository",
    "hf://owner/repo@a~1": "weights 'hf://owner/repo@a~1': this is not a repository",
    "hf://owner/repo@a\x1b": "weights 'hf://owner/repo@a\\x1b': this is not a repository",
    "https://huggingface.co/o/r": f"weights 'https://huggingface.co/o/r': {BROWSED}; write hf://o/r",
    "https://huggingface.co/o/r/": f"weights 'https://huggingface.co/o/r/': {BROWSED}; write hf://o/r",
    "http://hf.co/o/r.5/tree/v1%2B0": f"weights 'http://hf.co/o/r.5/tree/v1%2B0': {BROWSED}; write hf://o/r.5@v1+0",
    "https://huggingface.co/o/r/blob/dev/config.json?x=1": (
        f"weights 'https://huggingface.co/o/r/blob/dev/config.json?x=1': {BROWSED}; write hf://o/r@dev"
    ),
    "https://huggingface.co/o/r/tree/main": f"weights 'https://huggingface.co/o/r/tree/main': {BROWSED}; write hf://o/r",
    "https://huggingface.co/datasets/o/r": "weights 'https://huggingface.co/datasets/o/r': this is not an archive",
    "hf://owner/rĕpo": "weights 'hf://owner/rĕpo': this is not a repository",
    "hf://me:hf_aSecretOfMine@owner/repo": "weights 'hf://...@owner/repo': this is not a repository",
    "hf://owner/repo?token=hf_aSecretOfMine": "weights 'hf://owner/repo': its parameter 'token' is unknown; use only",
    "hf://owner/repo?hf_aSecretOfMine": "weights 'hf://owner/repo': its parameter '...' is unknown; use only include=",
    "https://host/model.zip": "weights 'https://host/model.zip': this is not an archive that can be unpacked; it must",
    "https://me:secret@host/m.zip?sig=x": "weights 'https://host/m.zip': this is not an archive",
    "https:///model.tar": "weights 'https:///model.tar': it does not name a host",
    "https://[host/model.tar": "weights 'https://...': this is not a valid URL; write special",
    "https://me:sec/ret@host/model.tar": "weights 'https://...': this is not a valid URL; write special",
    "file://weights/model": "weights 'file://weights/model': it is not an absolute path on this disk; write file:///",
    "file://": "weights 'file://': it is not an absolute path on this disk",
}


@pytest.mark.parametrize(("text", "problem"), NO_SOURCES.items(), ids=NO_SOURCES)
def test_what_names_no_source_is_refused_and_gives_no_secret_away(text, problem):
    with pytest.raises(WeightsError) as raised:
        parse_source(text)
    assert str(raised.value).startswith(f"E1000 WeightsError: {problem}")
    assert raised.value.__cause__ is None


SHOWN = {
    "https://me:secret@host/m.tar": "https://host/m.tar",
    "https://me:p@ss@host:8080/m.tar#part": "https://host:8080/m.tar",
    "https://host/m.tar?X-Amz-Date=1&versionId=7&X-Amz-Signature=2": "https://host/m.tar?versionId=7",
    "https://host/m.tar?x-goog-expires=9&GoogleAccessId=me&Signature=x&Expires=1": "https://host/m.tar",
    "https://host/m.tar?sv=2024&sr=b&sp=r&se=2030&sig=x&skoid=1": "https://host/m.tar",
    "https://host/m.tar?Policy=x&Signature=y&Key-Pair-Id=z&Hash-Algorithm=SHA256": "https://host/m.tar",
    "https://host/m.tar?q-sign-algorithm=sha1&q-ak=me&q-signature=x": "https://host/m.tar",
    "https://host/m.tar?OSSAccessKeyId=me&security-token=x": "https://host/m.tar",
    "https://host/m.tar?private_token=x&access_token=y&api_key=z&password=w": "https://host/m.tar",
    "https://host/m.tar?tokenizer=v2&size=70b&key=a b": "https://host/m.tar?tokenizer=v2&size=70b&key=a+b",
    "https://host/m.tar?download&Signature=x": "https://host/m.tar?download=",
}


@pytest.mark.parametrize(("url", "shown"), SHOWN.items(), ids=SHOWN)
def test_an_archive_is_named_by_what_stays_of_its_url(url, shown):
    source = parse_source(url)
    assert (str(source), repr(source)) == (shown, f"ArchiveSource('{shown}')")
    assert source.url == url
    assert source.key == parse_source(shown).key


DIFFERENT = [
    "hf://a/b",
    "hf://a/b@dev",
    "hf://a/b?include=*.json",
    "hf://a/b?exclude=*.json",
    "hf://a/b?include=*.json&include=x",
    "hf://a/b?include=*.json%26include%3Dx",
    "hf://a--b/c",
    "hf://a/b--c",
    "hf://A/b",
    "http://a/b.tar",
    "https://a/b.tar",
    "https://a/b.tar.gz",
    "https://a/b.tgz",
    "https://a/c/b.tar",
    "https://a/b.tar?1",
    "https://a/b.tar?2",
    "https://a/b.tar?v=1",
    "https://a/b.tar?v=2",
    "https://a/%2e%2e%2fb.tar",
    "https://a/b*[1]**.tar",
    f"https://a/{'b' * 300}.tar",
    f"https://a/{'b' * 301}.tar",
]


def test_no_two_sources_share_a_folder():
    assert len({parse_source(text).key for text in DIFFERENT}) == len(DIFFERENT)


@pytest.mark.parametrize("text", DIFFERENT)
def test_a_key_is_one_plain_name_of_a_folder(text):
    assert parse_source(text).key.replace("-", "").replace("_", "").replace(".", "").isalnum()
    assert len(parse_source(text).key) <= 113


def test_a_key_tells_a_reader_which_model_it_is():
    keys = [parse_source(text).key for text in ("hf://owner/repo@v1", "https://h/m-1.5.tar.gz", "https://h/m.tgz")]
    assert keys == ["owner--repo-f9972f0d52fd", "m-1.5-c408715e09f4", "m-9f17790aa692"]
