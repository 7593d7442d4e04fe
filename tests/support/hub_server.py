"""A Hugging Face hub and its CDN on 127.0.0.1, for the real clients, with faults on demand.

It answers as huggingface.co did in 2026 (https://huggingface.co/docs/hub/api): a small file is a 307 to the same host,
an LFS file a 302 to a signed URL on another one, here http://localhost, where a token must not follow. The bytes of a
Xet file come from a local:// folder through the real hf_xet.
"""

import gzip
import json
import re
import shutil
import tempfile
import time
from fnmatch import fnmatchcase
from itertools import count
from pathlib import Path, PurePosixPath
from urllib.parse import quote, unquote, urlencode

from tests.support.file_server import FileServer
from tests.support.hub_repos import Repo, RepoFile
from tests.support.replies import Content, Refused, Reply


class HubServer(FileServer):
    """The hub and its CDN."""

    def __init__(self, page_size=1000):
        super().__init__()
        self.cdn_url = self.url.replace("127.0.0.1", "localhost")  # another host, in the eyes of every client
        self.page_size = page_size  # of tree listings
        self._repos, self._cdn = {}, {}
        self._signature = 123
        self._folder = tempfile.TemporaryDirectory(prefix="hub-server-")
        self._cas_copies = count()

    def close(self):
        super().close()
        self._folder.cleanup()

    def add_repo(
        self,
        name,
        files,
        *,
        lfs=("*.safetensors",),
        xet=False,
        commit=None,
        branches=("main",),
        tags=(),
        gated=False,  # True: nobody may have the files; a token: its owner may
        private_token=None,
        small_files_gzip=False,
    ):
        """A repository, or another commit of one that is there: its branches move on, the old commit stays."""
        found = {path: self._repo_file(path, source, lfs, xet) for path, source in files.items()}
        commit = commit or Content(json.dumps({path: file.oid for path, file in found.items()}).encode()).git_oid
        repo = self._repos.setdefault(name, Repo(name))
        repo.commit, repo.gated, repo.private_token = commit, gated, private_token
        repo.small_files_gzip = small_files_gzip
        repo.commits[commit] = found
        repo.refs.update(dict.fromkeys([*branches, *tags], commit))
        return repo

    def _repo_file(self, path, source, lfs, xet):
        content = Content(source)
        if not any(fnmatchcase(path, pattern) for pattern in lfs):
            return RepoFile(path, content, lfs=False)
        file = RepoFile(path, content, lfs=True, xet_hash=self._upload(content) if xet else None)
        self._cdn[content.sha256] = file
        return file

    def _upload(self, content):
        """The content's hash in the CAS folder, whose database is locked for as long as the session lives."""
        from hf_xet import XetSession

        with XetSession().new_upload_commit(endpoint=f"local://{self.cas}") as commit, content.open() as file:
            upload = commit.start_upload_bytes(file.read())
        return upload.result().xet_info.hash

    @property
    def cas(self):
        """The folder with the chunks of Xet's files; each client gets a copy with its token."""
        return Path(self._folder.name, "cas")

    def expire_signatures(self):
        """The CDN's URLs that were given out answer 403 from now on."""
        self._signature += 1

    def reply_to(self, call):
        for pattern, route in self.ROUTES:
            if match := re.fullmatch(pattern, call.path):
                return route(self, call, *(unquote(group or "") for group in match.groups()))
        return super().reply_to(call)

    def _repo(self, call, name):
        repo = self._repos.get(name)
        if repo and repo.private_token in (None, call.token):
            return repo
        if repo and call.token:
            raise Refused(401, None, "Invalid credentials in Authorization header")
        if call.token:
            raise Refused(404, "RepoNotFound", "Repository not found")
        # The real hub leaves the code out here: its client knows the case by the URL, but only by one with https.
        raise Refused(401, "RepoNotFound", "Invalid username or password.", {"WWW-Authenticate": "Bearer"})

    def _model(self, call, name, revision):
        repo = self._repo(call, name)
        commit = repo.commit_of(revision or "main")
        siblings = [file.as_sibling("blobs" in call.query) for file in repo.commits[commit].values()]
        facts = {"private": bool(repo.private_token), "gated": "manual" if repo.gated else False, "siblings": siblings}
        return Reply.json({"id": name, "modelId": name, "sha": commit, **facts})

    def _tree(self, call, name, revision, folder):
        repo = self._repo(call, name)
        recursive = call.query.get("recursive", "").lower() in ("true", "1")
        items = repo.tree(repo.commit_of(revision), folder, recursive)
        start = int(call.query.get("cursor", 0))
        stop = start + self.page_size
        following = f"{self.url}{call.path}?{urlencode({**call.query, 'cursor': stop})}"
        return Reply.json(items[start:stop], {"Link": f'<{following}>; rel="next"'} if stop < len(items) else {})

    def _resolve(self, call, name, revision, path):
        repo = self._repo(call, name)
        repo.check_gate(call.token)
        commit = repo.commit_of(revision)
        file = repo.file(commit, path)
        headers = {"X-Repo-Commit": commit, "X-Linked-ETag": file.etag, "Accept-Ranges": "bytes"}
        if file.lfs:
            return self._to_cdn(file, headers | self._xet_headers(file, name, commit))
        same = urlencode({call.path: "", "etag": file.etag})
        location = f"/api/resolve-cache/models/{name}/{commit}/{quote(path)}?{same}"
        return Reply.text(307, f"Temporary Redirect. Redirecting to {location}", {**headers, "Location": location})

    def _to_cdn(self, file, headers):
        disposition = f'inline; filename="{PurePosixPath(file.path).name}"'
        query = {"response-content-disposition": disposition, "X-Amz-Signature": self.signature}
        location = f"{self.cdn_url}/cdn/{file.content.sha256}?{urlencode(query)}"
        headers = {**headers, "X-Linked-Size": file.content.size, "Location": location}
        return Reply.text(302, f"Found. Redirecting to {location}", headers)

    def _xet_headers(self, file, name, commit):
        if not file.xet_hash:
            return {}
        route = f"{self.url}/api/models/{name}/xet-read-token/{commit}"
        return {"X-Xet-Hash": file.xet_hash, "X-Xet-Refresh-Route": route, "Link": f'<{route}>; rel="xet-auth"'}

    def _resolve_cache(self, call, name, commit, path):
        repo = self._repo(call, name)
        repo.check_gate(call.token)
        file = repo.file(repo.commit_of(commit), path)
        headers = {"X-Repo-Commit": commit, "Content-Type": "text/plain; charset=utf-8"}
        if repo.small_files_gzip and call.takes_gzip:
            packed = gzip.compress(file.content.open().read())
            return Reply.file(packed, f"W/{file.etag}", {**headers, "Content-Encoding": "gzip"}, chunked=True)
        return Reply.file(file.content, file.etag, headers, ranges=True)

    @property
    def signature(self):
        return f"secret-signature-{self._signature}"

    def _from_cdn(self, call, sha256):
        if call.query.get("X-Amz-Signature") != self.signature or sha256 not in self._cdn:
            return Reply.text(403, "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>")
        file = self._cdn[sha256]
        etag = file.xet_hash or sha256[:32]  # as on the real CDN not the sha256
        return Reply.file(file.content, f'"{etag}"', ranges=True)

    def _xet_token(self, call, name, revision):
        """A token and a CAS folder for this client alone: hf_xet locks its folder's database."""
        repo = self._repo(call, name)
        repo.check_gate(call.token)
        repo.commit_of(revision)
        copy = shutil.copytree(self.cas, self.cas.with_name(f"cas-{next(self._cas_copies)}"))
        grant = {"casUrl": f"local://{copy}", "accessToken": "secret-xet-token", "exp": int(time.time()) + 3600}
        names = ("X-Xet-Cas-Url", "X-Xet-Access-Token", "X-Xet-Token-Expiration")
        return Reply.json(grant, dict(zip(names, grant.values(), strict=True)))

    ROUTES = (
        (r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", _model),
        (r"/api/models/([^/]+/[^/]+)/tree/([^/]+)(?:/(.+))?", _tree),
        (r"/api/models/([^/]+/[^/]+)/xet-read-token/([^/]+)", _xet_token),
        (r"/api/resolve-cache/models/([^/]+/[^/]+)/([^/]+)/(.+)", _resolve_cache),
        (r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", _resolve),
        (r"/cdn/([^/]+)", _from_cdn),
    )
