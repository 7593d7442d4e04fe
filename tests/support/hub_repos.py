"""The local hub holds these repositories: their files, commits and listings."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePosixPath

from tests.support.replies import Content, Refused


@dataclass(frozen=True)
class RepoFile:
    path: str
    content: Content
    lfs: bool
    xet_hash: str | None = None

    @property
    def pointer(self):
        """What git keeps of an LFS file: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md"""
        facts = f"oid sha256:{self.content.sha256}\nsize {self.content.size}\n"
        return f"version https://git-lfs.github.com/spec/v1\n{facts}".encode()

    @cached_property
    def oid(self):
        return (Content(self.pointer) if self.lfs else self.content).git_oid

    @property
    def etag(self):
        return f'"{self.content.sha256 if self.lfs else self.oid}"'

    def lfs_facts(self, digest):
        """The two APIs name the sha256 differently."""
        facts = {digest: self.content.sha256, "size": self.content.size, "pointerSize": len(self.pointer)}
        return {"lfs": facts} if self.lfs else {}

    def as_sibling(self, blobs):
        facts = {"blobId": self.oid, "size": self.content.size, **self.lfs_facts("sha256")}
        return {"rfilename": self.path} | (facts if blobs else {})

    def as_tree_item(self):
        facts = {"type": "file", "path": self.path, "oid": self.oid, "size": self.content.size}
        return facts | self.lfs_facts("oid") | ({"xetHash": self.xet_hash} if self.xet_hash else {})


@dataclass
class Repo:
    """A model repository: `commit` is its newest, and the earlier ones stay."""

    name: str
    commit: str = ""
    commits: dict[str, dict[str, RepoFile]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    gated: bool | str = False
    private_token: str | None = None
    small_files_gzip: bool = False

    def commit_of(self, revision):
        commit = self.refs.get(revision, revision)
        if commit not in self.commits:
            raise Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    def file(self, commit, path):
        if path not in self.commits[commit]:
            raise Refused(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": commit})
        return self.commits[commit][path]

    def check_gate(self, token):
        if self.gated and (self.gated is True or token != self.gated):
            message = f"Access to model {self.name} is restricted and you are not in the authorized list."
            raise Refused(403 if token else 401, "GatedRepo", message)

    def tree(self, commit, folder, recursive):
        files = self.commits[commit]
        folders = {".", *(str(parent) for path in files for parent in PurePosixPath(path).parents)}
        if (folder or ".") not in folders:
            raise Refused(404, "EntryNotFound", f"{folder} does not exist on this revision")
        items = {path: file.as_tree_item() for path, file in files.items()}
        items |= {path: folder_item(path) for path in folders - {"."}}
        below = [path for path in items if is_below(path, folder or ".", recursive)]
        return [items[path] for path in sorted(below)]


def folder_item(path):
    return {"type": "directory", "path": path, "oid": Content(path.encode()).git_oid, "size": 0}


def is_below(path, folder, recursive):
    parents = [str(parent) for parent in PurePosixPath(path).parents]
    return folder in parents if recursive else folder == parents[0]
