"""Is a build the same everywhere? Builds again, all surroundings changed, and compares digests.

Run as `python -m builder.inspect.verify ROOT JOBS NAME...` it is the other build: it builds into
the store that the environment names and prints the digests as JSON.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import builder
from builder.build.make import Built, build, plans
from builder.build.workspace import Workspace
from builder.errors import BuilderError
from builder.inspect import graph
from builder.inspect.compare import Difference, difference
from builder.packages import debian, pip, wheels
from builder.packages.download import downloads_folder
from builder.store import Store


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What must not reach a digest."""

    umask: int
    timezone: str
    locale: str
    jobs: int
    hash_seed: int
    folder: str


ROUNDS = (
    Surroundings(0o077, "Asia/Kathmandu", "tr_TR.UTF-8", 1, 1, "elsewhere"),
    Surroundings(0o002, "America/St_Johns", "C", 4, 2, "a/deeper/folder"),
    Surroundings(0o027, "Pacific/Kiritimati", "de_DE.UTF-8", 3, 3, "with space/und ümlaut"),
)


def verify(
    workspace: Workspace,
    store: Store,
    names: Sequence[str] = (),
    *,
    rounds: int = 1,
    jobs: int = 2,
    progress: Callable[[str], object] = lambda _: None,
) -> list[Difference]:
    """Build the targets `names` (all without names) again `rounds` times; return what differs.

    Each round has an empty store, a copy of the workspace in another folder with other times and
    modes, and its own umask, time zone, locale, hash seed and number of jobs; where this process is
    root's, another user. Downloads are shared, since they are checked by hash. `progress` is told
    what happens. Raises BuilderError where a build fails.
    """
    with store.in_use(), tempfile.TemporaryDirectory(prefix="plateline-verify-") as name:
        _copy(workspace, Path(name))
        known = build(workspace, store, names, jobs=jobs)
        copy = _same(Workspace.load(Path(name)), workspace, store, known)
        _bring_downloads(copy, graph.with_needs(graph.needs(copy), list(known)))
        return [
            different
            for number in range(rounds)
            for different in _round(copy, store, known, ROUNDS[number % len(ROUNDS)], progress)
        ]


def _same(
    copy: Workspace, workspace: Workspace, store: Store, known: Mapping[str, Built]
) -> Workspace:
    """Return the copy, to which nobody writes; raise where it is not what was built."""
    for name, plan in plans(copy, store, list(known)).items():
        if plan.key != known[name].key:
            raise BuilderError(
                f"files of {name} changed while they were copied for the comparison; "
                f"try again when nothing writes to {workspace.root}"
            )
    return copy


def _round(
    workspace: Workspace,
    store: Store,
    known: Mapping[str, Built],
    here: Surroundings,
    progress: Callable[[str], object],
) -> list[Difference]:
    """Build once in other surroundings and return what differs."""
    user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
    progress(
        f"as {user.pw_name if user else 'the same user'}, umask {here.umask:04o}, "
        f"{here.timezone}, {here.locale}, --jobs {here.jobs}"
    )
    with tempfile.TemporaryDirectory(prefix="plateline-verify-") as name:
        folder = Path(name)
        digests = _elsewhere(workspace, known, here, folder, user)
        other = Store(folder / "store")
        return [
            difference(n, (store, b.image), (other, other.image(digests[n])))
            for n, b in known.items()
            if digests[n] != b.image.digest
        ]


def _bring_downloads(workspace: Workspace, names: Sequence[str]) -> None:
    """Download what the locks name, as this user: another one may have no way to the mirrors."""
    for name in names:
        folder = workspace.target(name).folder
        if (folder / wheels.LOCK).exists():
            pip.fetch(wheels.read_lock(folder), downloads_folder(), f"{name}/{wheels.LOCK}")
        if (folder / "debian.lock").exists():
            debian.fetch(debian.read_lock(folder), downloads_folder())


def _elsewhere(
    workspace: Workspace,
    names: Mapping[str, Built],
    here: Surroundings,
    folder: Path,
    user: pwd.struct_passwd | None,
) -> dict[str, str]:
    """Build in a process of its own and return the digests."""
    root = folder / here.folder
    _copy(workspace, root)
    for part in ("store", "home"):
        (folder / part).mkdir()
    # The other process looks for them beside its store.
    _link(downloads_folder(), folder / "downloads")
    code = Path(builder.__file__).parents[1]
    environ = {
        **os.environ, "HOME": str(folder / "home"), "TZ": here.timezone, "LC_ALL": here.locale,
        "LANG": here.locale, "PYTHONHASHSEED": str(here.hash_seed),
        "PLATELINE_STORE": str(folder / "store"), "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": str(code),
    }  # fmt: skip
    python = Path(sys.executable)
    if user:
        if not _open_to_all(code):
            _link(code / "builder", folder / "code/builder")
            environ["PYTHONPATH"] = str(folder / "code")
        if not _open_to_all(Path(sysconfig.get_path("stdlib"))):
            python = _python(folder / "python")
            environ |= {"PYTHONHOME": str(folder / "python"),
                        "LD_LIBRARY_PATH": str(folder / "python/lib")}  # fmt: skip
        folder.chmod(0o755)
        own = [folder / part for part in ("store", "home", "downloads", here.folder)]
        for path in [*own, *root.parents, *root.rglob("*")]:
            if path.is_relative_to(folder) and path != folder:
                os.chown(path, user.pw_uid, user.pw_gid, follow_symlinks=False)
    command = [str(python), "-m", "builder.inspect.verify", str(root), str(here.jobs), *names]
    done = subprocess.run(
        command, cwd=folder, env=environ, umask=here.umask, capture_output=True, text=True,
        check=False, user=user.pw_uid if user else None, group=user.pw_gid if user else None,
        extra_groups=[] if user else None,
    )  # fmt: skip
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise BuilderError(f"the build in other surroundings failed: {reason[0]}")
    digests: dict[str, str] = json.loads(done.stdout)
    return digests


def _copy(workspace: Workspace, root: Path) -> None:
    """Copy what recipes can name to `root`, with other times and modes, last names first."""
    wanted = {path for target in workspace.targets.values() for path in target.folder.iterdir()}
    wanted.add(workspace.root / ".dockerignore")
    shown = {path.relative_to(workspace.root) for path in wanted if path.is_file()}
    shown |= {Path(e.path) for e in workspace.entries("") if e.kind != "dir"}
    for path in sorted(shown, reverse=True):
        source, copy = workspace.root / path, root / path
        copy.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            copy.symlink_to(source.readlink())
        else:
            shutil.copyfile(source, copy)
            copy.chmod(0o700 if source.stat().st_mode & 0o100 else 0o600)
    for entry in workspace.entries(""):
        if entry.kind == "dir":
            (root / entry.path).mkdir(parents=True, exist_ok=True)


def _open_to_all(path: Path) -> bool:
    """Tell whether every user may read and enter a folder."""
    return all(folder.stat().st_mode & 0o005 == 0o005 for folder in (path, *path.parents))


def _python(home: Path) -> Path:
    """Make a copy of this Python and its libraries at `home`, and return its program."""
    library = home / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    _link(Path(sysconfig.get_path("stdlib")), library, ignore=("site-packages", "test"))
    packages = Path(sysconfig.get_path("purelib"))
    if _open_to_all(packages):
        (library / "site-packages").symlink_to(packages)
    else:
        _link(packages, library / "site-packages")
    if sysconfig.get_config_var("Py_ENABLE_SHARED"):
        name = str(sysconfig.get_config_var("INSTSONAME"))
        shutil.copy2(Path(str(sysconfig.get_config_var("LIBDIR")), name), home / "lib")
    binary = home / "bin/python3"
    binary.parent.mkdir()
    shutil.copy2(Path(sys.executable).resolve(), binary)
    return binary


def _link(source: Path, destination: Path, ignore: Sequence[str] = ()) -> None:
    """Copy a folder by hard links where the file system allows it, else by bytes."""

    def link(one: str, other: str) -> None:
        try:
            os.link(one, other)
        except OSError:
            shutil.copy2(one, other)

    shutil.copytree(source, destination, symlinks=True, copy_function=link,
                    ignore=shutil.ignore_patterns(*ignore))  # fmt: skip


def main(arguments: Sequence[str]) -> int:
    """Build as the other process; returns the exit code."""
    root, jobs, *names = arguments
    try:
        built = build(Workspace.load(Path(root)), Store.open(), names, jobs=int(jobs))
    except BuilderError as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps({name: b.image.digest for name, b in built.items()}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
