"""What ADD brings into an image: a file by its checksum, or a repository's tree by its commit.

Meaning: https://docs.docker.com/reference/dockerfile/#add.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from builder.errors import BuilderError
from builder.oci.entry import Entry, check_path
from builder.packages import download

_COMMIT = re.compile(r"[0-9a-f]{40}")
_CHECKSUM = re.compile(r"sha256:([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file at `url` whose content hashes to `sha256`; `name` is the last part of the address."""

    url: str
    sha256: str
    name: str

    @property
    def source(self) -> str:
        """What a COPY of it would name."""
        return self.name

    def inputs(self) -> dict[str, str]:
        """Return what its content depends on."""
        return {"file": self.sha256}

    def entries(self, downloads: Path) -> list[Entry]:
        """Return the file, downloaded; its mode is Docker's for remote files, 0600."""
        path = download.fetch(
            self.url, self.sha256, downloads, self.name, advice="mend the checksum or the address"
        )
        return [Entry(self.name, "file", 0o600, content=path)]


@dataclass(frozen=True, slots=True)
class GitTree:
    """What `folder` of the repository `url` holds at `commit`."""

    url: str
    commit: str
    folder: str

    @property
    def source(self) -> str:
        """What a COPY of it would name."""
        return "/"

    def inputs(self) -> dict[str, str]:
        """Return what its content depends on."""
        return {"commit": self.commit, "folder": self.folder}

    def entries(self, downloads: Path) -> list[Entry]:
        """Return the tree, fetched."""
        from builder.packages import git  # subprocess costs time

        return git.entries(self.url, self.commit, self.folder, downloads / "git")


def parse(sources: Sequence[str], flags: Mapping[str, str]) -> RemoteFile | GitTree:
    """Return what an ADD of `sources` brings.

    Raises BuilderError with a way out for what is not pinned, local files, and credentials in the
    address, which would stay in the image's history.
    """
    if len(sources) != 1:
        raise BuilderError("ADD takes one source and a destination; write an ADD for each")
    (url,) = sources
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise BuilderError(f"ADD {url!r}: this is no address ({error}); mend it") from None
    if parts.username or parts.password:
        shown = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        raise BuilderError(
            f"ADD {shown} with a user name in the address would keep it in the image; put it "
            "into ~/.netrc or git's credential helper"
        )
    if parts.path.endswith(".git") and parts.scheme in ("http", "https", "file"):
        return _git_tree(url, flags)
    if parts.scheme in ("http", "https"):
        return _remote_file(url, flags)
    if not parts.scheme and not url.startswith("git@"):
        raise BuilderError(f"ADD of the local {url!r} is not supported; use COPY")
    raise BuilderError(
        f"ADD of {url!r} is not supported; there are https://…, and https://….git#<commit> or "
        "file:///….git#<commit> for repositories"
    )


def _git_tree(url: str, flags: Mapping[str, str]) -> GitTree:
    address, _, fragment = url.partition("#")
    reference, _, folder = fragment.partition(":")
    if "checksum" in flags:
        raise BuilderError(f"a commit is a checksum already; write {address}#<commit> alone")
    if not _COMMIT.fullmatch(reference):
        what = f"{reference!r} is not a commit" if reference else "there is no commit"
        raise BuilderError(
            f"ADD {url}: {what}, and branches and tags move; write {address}#<40 hexadecimal "
            f"digits>, as `git ls-remote {address} {reference or 'HEAD'}` prints them"
        )
    folder = folder.strip("/")
    return GitTree(address, reference, check_path(folder, url) if folder else "")


def _remote_file(url: str, flags: Mapping[str, str]) -> RemoteFile:
    checksum = flags.get("checksum", "")
    match = _CHECKSUM.fullmatch(checksum)
    if not match:
        what = f"--checksum={checksum} is not sha256: and 64 hexadecimal digits"
        raise BuilderError(
            f"ADD {url}: {what if checksum else 'there is no --checksum=sha256:…'}, so it could be "
            f"another file tomorrow; look at the file and take its `curl -fsSL {url} | sha256sum` "
            "(a repository's address ends with .git#<commit>)"
        )
    name = posixpath.basename(unquote(urlsplit(url).path))
    if not name:
        raise BuilderError(f"ADD {url}: the address ends without a file name; name the file")
    return RemoteFile(url, match[1], check_path(name, url))
