"""What a task printed when it had nothing to do, printed again while nothing it read has changed.

A part of what a task does can be kept in the same way, for tasks that were asked something else.
Planning all images loads a hundred modules and reads every input. Here the status of each input is
compared instead: kind and mode, inode, size, and the times of its last write and last change, to
the nanosecond. Nothing sets the time of the last change (ctime) but the kernel's clock, so a write
of the same size whose mtime is set back is seen. What was changed within two seconds before a task
began, or since, might be changed again in the same tick of the clock: then nothing is kept. The
same idea and its pitfalls: https://git-scm.com/docs/racy-git.

This module loads nothing that an interpreter has not loaded by itself, or nearly so.
"""

from __future__ import annotations

import fcntl
import marshal
import os
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress

from builder import folders

TYPE_CHECKING = False  # typing's own takes longer to load than all else here
if TYPE_CHECKING:
    from typing import Any

# Part of every question: a change in what is kept, or of what, makes what was kept useless.
_FORMAT = 2
_YOUNG = 2 * 10**9  # nanoseconds; file systems with coarser clocks have at most this
_STEP = 10**8  # nanoseconds by which the wall's clock and the other one may differ in one task
_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_GIT = ("git", "-C", _ROOT, "status", "--porcelain=v2", "--branch")

Row = tuple[int, int, int, int, int] | None
Question = tuple[object, ...]
# A part of what tasks do: its name, and what it depends on beside files. Only what marshal writes.
Part = tuple[object, ...]
# HOST/PATH of a registry, whether plain HTTP will do, and images by name with their digests.
There = tuple[str, bool, dict[str, str]]
# What this process was asked, and when by both clocks: `keep` answers that and nothing else.
_pending: list[tuple[Question, int, int]] = []
# What this process has recalled or kept of parts, as `keep` wrote it.
_parts: dict[Part, tuple[Any, ...]] = {}


def given(words: list[str]) -> bool:
    """Print what was kept for a command line, if all that it came from is as it was."""
    began = time.perf_counter()
    try:
        *_, text, note = _known(_question(words))
    except (OSError, ValueError, EOFError):  # nothing is kept, or it is true no longer
        return False
    try:
        print(text)
        sys.stdout.flush()
    except BrokenPipeError:
        from cli.output import unread

        unread()
    print(f"{time.perf_counter() - began:.2f} s{note}", file=sys.stderr)
    return True


def recalled(part: Part) -> Any:
    """Return what was kept as `part`, if all that it came from is as it was, otherwise None."""
    try:
        kept = _known(_question([part]))
    except (OSError, ValueError, EOFError):
        return None
    _parts[part] = kept
    return kept[-2]


def begin(words: list[str]) -> None:
    """Say that what this process prints from now on answers `words`, and may be kept."""
    _pending.clear()
    _parts.clear()
    with suppress(OSError):  # this folder has been removed
        _pending.append((_question(words), time.time_ns(), time.monotonic_ns()))


def keep(
    answer: Any,
    *,
    inputs: Iterable[str],
    results: Iterable[str],
    part: Part = (),
    upon: Part = (),
    copies: Mapping[str, str] | None = None,
    git: bytes | None = None,
    there: There | None = None,
    note: str = "",
) -> None:
    """Keep `answer`, the text that this process prints in the end, for who asks the same again.

    With `part` it is not the text but what this process found out as that part, of types that
    marshal writes. The part `upon`, which this process has kept or recalled, went into the answer:
    what that came from is what this comes from as well. Where it is neither, nothing is kept.
    `inputs` are all files and folders that it read, those that were not there as well. `results`
    are read by content, and their time is set to now whenever the answer is given, for `gc`.
    `copies` has the files that were written, each with the input that it is a copy of; `git` is
    what `git status` said, where the answer depends on it, and `there` the images that a registry
    must still have. `note` follows the time it took.
    Nothing is kept where something might change unseen, nor where the store cannot be written.
    """
    if not _pending or (upon and upon not in _parts):
        return
    question, wall, steady = _pending[0]
    if part:
        question = _question([part])
    if abs((time.time_ns() - wall) - (time.monotonic_ns() - steady)) > _STEP:
        return
    rows = {path: _row(path) for path in inputs}
    # What is not there was not there before either, if the folder that lacks it is old.
    folders_of_missing = {os.path.dirname(path) for path, row in rows.items() if row is None}
    old = (*rows.values(), *map(_row, folders_of_missing))
    if any(row is not None and row[4] > wall - _YOUNG for row in old):
        return
    try:
        contents = {path: _read(path) for path in results}
        if upon:
            _, its_rows, its_contents, _, git, there, *_ = _parts[upon]
            # As they were when the part was found out, which may be some time ago.
            rows, contents = {**rows, **its_rows}, {**contents, **its_contents}
        kept: Any = (question, rows, contents, dict(copies or {}), git, there, answer, note)
        data = marshal.dumps(kept)
        path = _path(question)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        temporary = f"{path}.{os.getpid()}"
        with open(temporary, "wb") as stream:
            stream.write(zlib.crc32(data).to_bytes(4, "big") + data)
        os.replace(temporary, path)
    except OSError:
        return
    if part:
        _parts[part] = kept


def _question(words: Sequence[object]) -> Question:
    environment = (
        (name, value)
        for name, value in sorted(os.environ.items())
        if name in ("HOME", "XDG_CACHE_HOME")
        # Nothing that is answered here is signed, and a password must not reach the disk.
        or (name.startswith("PLATELINE_") and "SIGNING" not in name)
    )
    return (
        _FORMAT, sys.version, sys.prefix, _ROOT, os.getcwd(), sys.stdout.isatty(), *environment,
        *words,
    )  # fmt: skip


def _path(question: Question) -> str:
    # Another question of the same name takes the place: the file holds the question itself.
    name = f"{zlib.crc32(repr(question).encode()):08x}"
    return os.path.join(folders.store(), "answers", name)


def _known(question: Question) -> tuple[Any, ...]:
    """Return what `keep` wrote for `question`, and set the times of results.

    Raises OSError, ValueError, and EOFError where nothing is kept that is still true.
    """
    path = _path(question)
    data = _read(path)
    if int.from_bytes(data[:4], "big") != zlib.crc32(data[4:]):
        raise ValueError(f"{path} is damaged")
    kept: Any = marshal.loads(data[4:])  # noqa: S302 - from the user's own store
    if kept[0] != question:
        raise ValueError(f"{path} answers another question")
    _, rows, contents, copies, git, there, *_ = kept
    said = git_status() if git is not None else lambda: None
    lock = os.open(os.path.join(folders.store(), "lock"), os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH)  # keeps `gc` out meanwhile, as Store.in_use does
        same = (
            all(_row(name) == row for name, row in rows.items())
            and all(_read(name) == content for name, content in contents.items())
            and all(_read(copy) == _read(original) for copy, original in copies.items())
        )
        if said() != git or not same or (there and not _has(*there)):
            raise ValueError(f"{path} is old")
        for name in (path, *contents):
            os.utime(name)
    finally:
        os.close(lock)
    return tuple(kept)


def _has(prefix: str, insecure: bool, digests: Mapping[str, str]) -> bool:
    """Tell whether the registry HOST/PATH says that it has these images, name -> digest."""
    from builder.errors import BuilderError
    from builder.registry.client import Registry, lacking  # costs time

    host, _, path = prefix.rstrip("/").partition("/")
    try:
        with Registry(host, insecure=insecure) as registry:
            return not lacking(registry, {f"{path}/{name}": d for name, d in digests.items()})
    except BuilderError:  # the task itself will say why
        return False


def _row(path: str) -> Row:
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return (
        status.st_mode, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns,
    )  # fmt: skip


def _read(path: str) -> bytes:
    with open(path, "rb") as stream:
        return stream.read()


def git_status() -> Callable[[], bytes | None]:
    """Start `git status` of this checkout; what is returned waits for its words, None if it failed.

    The words are those of git-status(1), "Porcelain Format Version 2", with the branch.
    """
    output, end = os.pipe()
    actions = [
        (os.POSIX_SPAWN_DUP2, end, 1),
        (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
    ]
    try:
        environ = {name: value for name, value in os.environ.items() if "PASSWORD" not in name}
        child = os.posix_spawnp(_GIT[0], _GIT, environ, file_actions=actions)
    except OSError:
        os.close(output)
        return lambda: None
    finally:
        os.close(end)

    def said() -> bytes | None:
        with open(output, "rb") as stream:
            found = stream.read()
        _, status = os.waitpid(child, 0)
        return found if status == 0 else None

    return said
