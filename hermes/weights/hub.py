"""Lists the files of a repository on the Hugging Face hub that vLLM reads, and reads their bytes.

huggingface_hub supplies the listing, the token, the endpoint and Xet (the hub's chunked storage). The transfer is
ours, because hf_hub_download 2.4 loses a partial file when its process is killed.
"""

import fnmatch
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cache, partial
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr

from hermes.environment import header_token
from hermes.weights.http import READ_SECONDS, HttpFile, Session
from hermes.weights.hub_client import asking_hub, endpoint, set_client
from hermes.weights.lock import safe_name
from hermes.weights.remote import Interrupted, Listing, RemoteFile
from hermes.weights.safetensors import INDEX, buffered, chosen_safetensors, indexed, require_merged, require_shards
from hermes.weights.source import HubSource
from hermes.weights.staging import MARKER

SMALL = ("*.json", "tokenizer*", "*.model", "*.jinja", "merges.txt", "vocab.txt", "LICENSE*")
MAY_HOLD_CODE = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".py", ".pyc", ".so")


def list_hub(
    source: HubSource, token: SecretStr | None, names: Sequence[str] = (), session: Session | None = None
) -> Listing:
    """The files to fetch of a repository. This requests listings, the index, and the headers of one file.

    Args:
        source: the repository.
        token: for the hub; with None, huggingface_hub looks for one.
        names: the files; with none, `choose` chooses them.
        session: has the connections for the files.

    Raises:
        WeightsError: the repository or revision does not exist, refuses access, or has no model.
        Interrupted: a request failed for a cause that may pass.
        InvalidConfiguration: the token, the proxy or the certificates of the environment cannot be used.
    """
    secret = header_token(token.get_secret_value() if token else None, "HERMES_HUB_TOKEN")
    set_client()
    return asking_hub(source, partial(_list, source, secret, names, session or Session()))


def choose(
    names: Sequence[str],
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    read_shards: Callable[[], Collection[str]] | None = None,
) -> list[str]:
    """The names of the files that vLLM needs: the small files and one set of safetensors.

    Args:
        names: all files of the model.
        include: patterns that replace this choice.
        exclude: patterns of files to leave out.
        read_shards: returns the files that the index of the safetensors names; called if there is an index.

    Raises:
        ValueError: safetensors or config.json are missing, or `include` matches a file that may hold code.
    """
    if include:
        chosen = [name for name in names if _matches(name, include)]
        require_merged(chosen)
    else:
        top = [name for name in names if "/" not in name and not name.endswith(MAY_HOLD_CODE)]
        chosen = [name for name in top if _matches(name, SMALL)] + chosen_safetensors(top, read_shards)
    chosen = [name for name in chosen if not _matches(name, exclude) and name != MARKER]
    if read_shards and INDEX in chosen:
        require_shards(read_shards(), chosen)
    if code := [name for name in chosen if name.endswith(MAY_HOLD_CODE)]:
        raise ValueError(f"{code[0]} may hold code; only safetensors are loaded")
    if "config.json" not in chosen:
        raise ValueError("there is no config.json among its files")
    return sorted(chosen)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _list(source: HubSource, token: str | None, names: Sequence[str], session: Session) -> Listing:
    from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.utils import build_hf_headers

    hub, headers = endpoint(), build_hf_headers(token=token)
    header_token(headers.get("authorization", "").removeprefix("Bearer "), "HF_TOKEN or a log-in")
    api = HfApi(endpoint=hub, token=token)
    commit = api.model_info(source.repo, revision=source.revision, timeout=READ_SECONDS).sha
    tree = _tree(f"{hub}/api/models/{source.repo}/tree/{commit}?recursive=true", headers)
    files = {entry.path: entry for entry in tree}
    if missing := set(names) - files.keys():
        raise ValueError(f"it has no {min(missing)}, but weights.lock has it")
    strings = {name: str(value) for name, value in headers.items() if value is not None}
    xet = XetStorage(source, commit, headers, hub)
    session.others.append(xet.hang_up)

    def remote(name: str) -> RemoteFile:
        entry = files[name]
        url = hf_hub_url(source.repo, name, revision=commit, endpoint=hub)
        what = f"{source}: {name}"
        http = HttpFile(session, url, what, headers=strings, size=entry.size)
        read = partial(xet.read, entry.xet_hash, entry.size) if entry.xet_hash and xet.enabled else http.read
        sha256 = entry.lfs.sha256 if entry.lfs else None
        return RemoteFile(name, entry.size, sha256, None if sha256 else entry.blob_id, read, http.read)

    def require_access(name: str) -> None:
        get_hf_file_metadata(hf_hub_url(source.repo, name, revision=commit, endpoint=hub), token=token)

    @cache
    def index() -> RemoteFile:
        require_access(INDEX)
        return buffered(remote(INDEX))

    chosen = names or choose(list(files), source.include, source.exclude, lambda: indexed([index()]))
    chosen = list(map(safe_name, chosen))  # what is left out may have any name
    require_access(chosen[0])
    listed = tuple(index() if name == INDEX else remote(name) for name in chosen)
    indexed(listed)  # raises ValueError if a locked index is not one
    return Listing(str(source), commit, listed)


def _tree(url: str, headers: Mapping[str, Any]) -> Iterator[Any]:
    """The files of a repository. huggingface_hub's list_repo_tree has no timeout for a silent hub.

    A mirror may pass on the hub's own link to the next page. So only the link's query counts, with its cursor.
    """
    from huggingface_hub.hf_api import RepoFile
    from huggingface_hub.utils import get_session, hf_raise_for_status

    asked = ""
    while url != asked:
        asked = url
        page = get_session().get(url, headers=headers, timeout=READ_SECONDS)
        hf_raise_for_status(page)
        yield from (RepoFile(**entry) for entry in page.json() if entry["type"] == "file")
        if not (link := page.links.get("next", {}).get("url")):
            return
        url = f"{url.partition('?')[0]}?{urlsplit(link).query}"
    raise LookupError("a page that names itself as the next")


class XetStorage:
    """The hub's chunked storage of one commit. hf_xet opens many connections and fetches only new chunks."""

    def __init__(self, source: HubSource, commit: str, headers: Mapping[str, str], endpoint: str | None):
        from huggingface_hub import constants

        self.enabled = not constants.HF_HUB_DISABLE_XET
        self._source, self._commit, self._headers, self._endpoint = source, commit, dict(headers), endpoint
        self._opening = threading.Lock()
        self._group: Any = None

    def read(self, xet_hash: str, size: int, offset: int) -> Iterator[bytes]:
        """The bytes of a file of `size` bytes from `offset`.

        Raises:
            Interrupted: the transfer failed.
            WeightsError: the hub gives no token for it.
        """
        from hf_xet import XetFileInfo

        group = self._connected()
        try:
            stream = group.download_stream(XetFileInfo(xet_hash, size), start=offset)
            try:
                yield from stream
            finally:
                stream.cancel()
        except Exception as error:  # hf_xet raises any; the next read connects again
            self._group = None
            raise Interrupted(f"Xet: {type(error).__name__}: {error}; HF_HUB_DISABLE_XET=1 avoids Xet") from None

    def hang_up(self) -> None:
        """End the reads of all threads."""
        if group := self._group:
            group.abort()

    def _connected(self) -> Any:
        with self._opening:
            if self._group is None:
                self._group = asking_hub(self._source, self._connect)
            return self._group

    def _connect(self) -> Any:
        from hf_xet import XetSession
        from huggingface_hub.utils import get_session, hf_raise_for_status
        from huggingface_hub.utils._xet import (
            XetTokenType,
            parse_xet_connection_info_from_headers,
            xet_connection_info_refresh_url,
            xet_headers_without_auth,
        )

        route = xet_connection_info_refresh_url(
            token_type=XetTokenType.READ,
            repo_id=self._source.repo,
            repo_type="model",
            revision=self._commit,
            endpoint=self._endpoint,
        )
        grant = get_session().get(route, headers=self._headers, timeout=READ_SECONDS)
        hf_raise_for_status(grant)
        info = parse_xet_connection_info_from_headers(grant.headers)
        if info is None:
            raise LookupError("a token for Xet")
        return XetSession().new_download_stream_group(
            endpoint=info.endpoint,
            token=info.access_token,
            token_expiry_unix_secs=info.expiration_unix_epoch,
            token_refresh_url=route,
            token_refresh_headers=self._headers,
            custom_headers=xet_headers_without_auth(self._headers),
        )
