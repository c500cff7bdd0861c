"""A git repository's tree at one commit, fetched by the `git` program and checked object by object.

Every commit, tree and blob is hashed here as it is read, so that what gets into a layer is what the
commit's name stands for: neither the server, nor the kept copy, nor any attribute or filter of git
has a say. Object format: https://git-scm.com/book/en/v2/Git-Internals-Git-Objects.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import subprocess
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO

from builder.errors import BuilderError
from builder.oci.entry import Entry, check_path

_OPTIONS = [
    # Nobody is there to answer, a hook or another transport is not asked for, and a server that
    # sends less than a byte a second for a minute is gone.
    *("-c", "core.askPass=", "-c", "core.hooksPath=/dev/null"),
    *("-c", "protocol.allow=never", "-c", "protocol.https.allow=always"),
    *("-c", "protocol.http.allow=always", "-c", "protocol.file.allow=always"),
    *("-c", "http.lowSpeedLimit=1", "-c", "http.lowSpeedTime=60"),
]


# What git, or its other side, says of an object that is not there or is not what its name says.
_DAMAGED = re.compile(
    r"(unable|not) .*(read|unpack|parse)\b.*[0-9a-f]{40}|[0-9a-f]{40}.*(is corrupt|missing)"
    r"|(missing|bad|corrupt)\w* .*[0-9a-f]{40}|repository corruption"
)
_OBJECT = re.compile(r"\b[0-9a-f]{40}\b")


def entries(url: str, commit: str, folder: str, cache: Path) -> list[Entry]:
    """Return what `folder` of the repository `url` holds at `commit` (all of it for "").

    `commit` is 40 hexadecimal digits. The objects are kept in `cache/<commit>`. Owners are root,
    modes 0755 for folders and executables and 0644 otherwise. Raises BuilderError where the
    repository or the commit cannot be had, for a folder that is not there, for submodules, and for
    objects that do not hash to their names (what was kept is removed then).
    """
    try:
        return list(_tree(_Objects(fetch(url, commit, cache)), commit, folder, url))
    except _DamagedError:
        # The kept copy, since git checks what it fetches: once more from the source.
        shutil.rmtree(cache / commit, ignore_errors=True)
        return list(_tree(_Objects(fetch(url, commit, cache)), commit, folder, url))


def fetch(url: str, commit: str, cache: Path) -> Path:
    """Return a bare repository that has `commit`, fetched from `url` unless it is kept already."""
    path = cache / commit
    if path.exists():
        return path
    try:
        cache.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=cache))
    except OSError as error:
        raise BuilderError(f"{cache} cannot be written ({error.strerror})") from None
    try:
        _git(["init", "--quiet", "--bare", str(temporary)])
        where = ["--git-dir", str(temporary)]
        alone = _git([*where, "fetch", "--quiet", "--depth=1", "--no-tags", url, commit])
        if alone:
            # Some servers give branches and tags only.
            whole = _git([*where, "fetch", "--quiet", url, "+refs/*:refs/*"])
            if whole or _git([*where, "cat-file", "-e", f"{commit}^{{commit}}"]):
                raise _lacking(url, commit, alone, whole)
        temporary.chmod(0o755)
        try:
            temporary.rename(path)
        except OSError:
            if not path.exists():  # another process was faster otherwise
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return path


def _lacking(url: str, commit: str, alone: str, whole: str) -> BuilderError:
    """Return why `commit` cannot be had, from what git said of it alone and of all branches."""
    said = [line.strip() for line in f"{alone}\n{whole}".splitlines()]
    # The two sides speak at the same time: the line that names the object may be the later one.
    lacking = sorted(filter(_DAMAGED.search, said), key=lambda line: not _OBJECT.search(line))
    if damaged := next(iter(lacking), ""):
        return BuilderError(
            f"the repository {url} lacks an object of the commit {commit}, or has a damaged one "
            f"({damaged}); `git fsck` there names all of them, and `git fetch --refetch` there "
            "brings them again from where it was cloned"
        )
    if "not our ref" in alone:
        return BuilderError(
            f"{url} has no commit {commit} ({_first(alone)}); `git ls-remote {url}` lists what its "
            "branches and tags point at. If it is a shallow clone, `git fetch --unshallow` there "
            "brings older commits"
        )
    if whole:
        return BuilderError(
            f"fetching {url} failed ({_first(whole)}); check the address and the network"
        )
    return BuilderError(
        f"{url} has no commit {commit} ({_first(alone)}); `git ls-remote {url}` lists what its "
        "branches and tags point at"
    )


def _first(complaint: str) -> str:
    """Return the line of git's complaint that says what is wrong."""
    lines = complaint.splitlines()
    return next((line for line in lines if line.startswith(("fatal: ", "error: "))), lines[0])


def _environment() -> dict[str, str]:
    """Return the host's environment without what points git at another repository."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_DIR")}
    for name in ("GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE"):
        kept.pop(name, None)
    return {**kept, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}


def _git(arguments: Sequence[str]) -> str:
    """Run git and return what it complained about, a line each: nothing where it succeeded."""
    try:
        done = subprocess.run(
            ["git", *_OPTIONS, *arguments],
            env=_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
    except FileNotFoundError:
        raise BuilderError("git is not installed; ADD of a repository needs it") from None
    if done.returncode == 0:
        return ""
    return done.stderr.decode(errors="replace").strip() or f"exit code {done.returncode}"


class _DamagedError(BuilderError):
    """An object is missing or does not hash to its name."""


class _Objects:
    """Reads objects of a repository through one `git cat-file --batch`, each one checked."""

    def __init__(self, repository: Path) -> None:
        self._repository = repository
        process = subprocess.Popen(
            ["git", *_OPTIONS, "--git-dir", str(repository), "cat-file", "--batch"],
            env=_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert process.stdin
        assert process.stdout
        self._requests, self._answers = process.stdin, process.stdout
        # Entries outlive the call that made them and read their content later.
        weakref.finalize(self, _end, process)

    def open(self, blob: str) -> BinaryIO:
        """Return the content of a file as a stream."""
        return io.BytesIO(self.read(blob, "blob"))

    def read(self, name: str, kind: str) -> bytes:
        """Return the content of the object `name`; raises where it is not that, or not there."""
        try:
            self._requests.write(f"{name}\n".encode())
            self._requests.flush()
            words = self._answers.readline().split()
            data = self._answers.read(int(words[2]) + 1)[:-1] if len(words) == 3 else b""
        except (OSError, ValueError):
            words, data = [], b""
        header = f"{kind} {len(data)}\0".encode()
        found = hashlib.sha1(header + data).hexdigest()  # noqa: S324 - it is what git names by
        if found != name:
            raise _DamagedError(
                f"{self._repository}: the {kind} {name} is missing or damaged; "
                "remove that folder and build again"
            )
        return data


def _end(process: subprocess.Popen[bytes]) -> None:
    for stream in (process.stdin, process.stdout):
        if stream:
            stream.close()
    process.wait()


def _tree(objects: _Objects, commit: str, folder: str, url: str) -> Iterator[Entry]:
    first = objects.read(commit, "commit").split(b"\n", 1)[0]
    tree = first.removeprefix(b"tree ").decode()
    for part in folder.split("/") if folder else ():
        inside = {name: (mode, item) for mode, name, item in _members(objects, tree)}
        mode, tree = inside.get(part, ("", ""))
        if mode != "40000":
            raise BuilderError(f"{url} has no folder {folder!r} at {commit}")
    yield from _walk(objects, tree, "", url)


def _walk(objects: _Objects, tree: str, prefix: str, url: str) -> Iterator[Entry]:
    for mode, name, item in _members(objects, tree):
        path = check_path(prefix + name, url)
        if mode == "40000":
            yield Entry(path, "dir", 0o755)
            yield from _walk(objects, item, path + "/", url)
        elif mode == "120000":
            yield Entry(path, "symlink", 0o777, target=objects.read(item, "blob").decode())
        elif mode == "160000":
            raise BuilderError(
                f"{url} has a submodule at {path}, which another repository's content belongs in; "
                f"ADD that repository there at #{item}, and this one's folders one by one"
            )
        else:
            permissions = 0o755 if int(mode, 8) & 0o100 else 0o644
            # Opened when it is written, so that one file at a time is in memory.
            yield Entry(path, "file", permissions, content=partial(objects.open, item))


def _members(objects: _Objects, tree: str) -> Iterator[tuple[str, str, str]]:
    """Yield mode, name and object of a tree's members."""
    rest = objects.read(tree, "tree")
    while rest:
        head, _, rest = rest.partition(b"\0")
        mode, _, name = head.decode(errors="surrogateescape").partition(" ")
        yield mode, name, rest[:20].hex()
        rest = rest[20:]
