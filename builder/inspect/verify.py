"""Is a build the same everywhere? Builds again, all surroundings changed, and compares digests.

Run as `python -m builder.inspect.verify ROOT JOBS CORES PLATFORM NAME...` it is the other build: it
builds into the store that the environment names, and prints digests and what it saw as JSON.
"""

from __future__ import annotations

import json
import os
import platform as machine
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from builder.build import lock, planner, sdists
from builder.build.make import Built, build, plans
from builder.build.plan import ImagePlan
from builder.build.workspace import Workspace
from builder.errors import BuilderError
from builder.inspect import graph, pythons
from builder.inspect.compare import Difference, difference
from builder.inspect.pythons import Python
from builder.packages import debian, sdist, wheels
from builder.packages.download import downloads_folder
from builder.platform import KNOWN, NATIVE, Platform, of_config
from builder.sandbox import host
from builder.store import Store, default_root


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What must not reach a digest, besides the Python and its libraries; `cores` 0 is all."""

    umask: int
    timezone: str
    locale: str
    jobs: int
    cores: int
    hash_seed: int
    folder: str


@dataclass(frozen=True, slots=True)
class By:
    """What builds: a Python, the folders of what it imports, and with bubblewrap or without."""

    python: Python
    sites: list[Path]
    isolating: bool


ROUNDS = (
    Surroundings(0o077, "Asia/Kathmandu", "tr_TR.UTF-8", 3, 1, 1, "elsewhere"),
    Surroundings(0o002, "America/St_Johns", "C", 4, 0, 2, "a/deeper/folder"),
    Surroundings(0o027, "Pacific/Kiritimati", "de_DE.UTF-8", 1, 2, 3, "with space/und ümlaut"),
)


def verify(
    workspace: Workspace,
    store: Store,
    names: Sequence[str] = (),
    *,
    rounds: int = 1,
    jobs: int = 2,
    platform: Platform = NATIVE,
    progress: Callable[[str], object] = lambda _: None,
) -> list[Difference]:
    """Build the targets `names` (all without names) again `rounds` times; return what differs.

    They are for `platform`.
    Each round has an empty store, a copy of the workspace in another folder with other times and
    modes, and its own Python, umask, time zone, locale, hash seed, number of jobs and of cores;
    where this process is root's, another user. The Pythons are those that `pythons.others` finds,
    one after the other, then this one. Downloads are shared, since they are checked by hash.
    `progress` is told what each round had, as seen in it, and which Pythons could not be used.
    Raises BuilderError where a build fails.
    """
    with store.in_use(), tempfile.TemporaryDirectory(prefix="plateline-verify-") as name:
        _copy(workspace, Path(name))
        known = build(workspace, store, names, jobs=jobs, platform=platform)
        copy = _same(Workspace.load(Path(name)), workspace, store, known, platform)
        needed = graph.with_needs(graph.needs(copy, list(known)), list(known))
        _bring_downloads(copy, needed, platform, progress)
        made_of = plans(copy, store, needed, platform)
        isolating = any(map(planner.isolates, made_of.values()))
        found = _usable(made_of, store, progress, isolating=isolating)
        progress(f"built here: {_sentence(_seen('', jobs))}")
        differences: list[Difference] = []
        used: list[By] = []
        for number in range(rounds):
            if more := next(found, None):
                used.append(more)
            here = ROUNDS[number % len(ROUNDS)]
            differences += _round(copy, store, known, here, used[number % len(used)], progress)
        if left := [by.python.name for by in found if by.python != pythons.own()]:
            progress(f"not tried: {', '.join(left)}; --rounds {rounds + len(left)} tries them too")
        return differences


def _usable(
    plans: Mapping[str, ImagePlan],
    store: Store,
    progress: Callable[[str], object],
    *,
    isolating: bool,
) -> Iterator[By]:
    """Yield the Pythons to build with and their libraries; tell which cannot be used, and why."""
    for python in (*pythons.others(plans, store), pythons.own()):
        if isinstance(python, str):
            progress(python)
            continue
        try:
            yield By(python, pythons.libraries(python, store, isolating=isolating), isolating)
        except BuilderError as error:
            progress(f"{python.name} cannot be used: {error}")


def _same(
    copy: Workspace,
    workspace: Workspace,
    store: Store,
    known: Mapping[str, Built],
    platform: Platform,
) -> Workspace:
    """Return the copy, to which nobody writes; raise where it is not what was built."""
    for name, plan in plans(copy, store, list(known), platform).items():
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
    by: By,
    progress: Callable[[str], object],
) -> list[Difference]:
    """Build once in other surroundings and return what differs."""
    user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="plateline-verify-") as name:
        folder = Path(name)
        digests, seen = _elsewhere(workspace, known, here, by, folder, user)
        progress(f"built again by {by.python.name}: {_sentence(seen)}")
        other = Store(folder / "store")
        return [
            difference(n, (store, b.image), (other, other.image(digests[n])))
            for n, b in known.items()
            if digests[n] != b.image.digest
        ]


def _bring_downloads(
    workspace: Workspace,
    names: Sequence[str],
    platform: Platform,
    progress: Callable[[str], object],
) -> None:
    """Download what the locks name, as this user: another one may have no way to the mirrors."""
    for name in names:
        target = workspace.target(name)
        folder, asked = target.folder, target.requirements
        if made := sdist.read_lock(folder):
            # Made again, in another folder: what differs from the lock is refused.
            image = lock.python_of(workspace, target, Store(default_root()))
            sdists.make(made, image, wheels.locked_for(asked), again=True)
            for item in made:
                if item.allowed:
                    what = f"{item.name} {item.version}, whose wheel may differ"
                    progress(f"not made again: {what}: {item.allowed}")
        for each in dict.fromkeys((NATIVE, platform)):
            if (folder / asked.lock(each)).exists():
                pinned = wheels.read_lock(asked, each)
                wheels.fetch(asked, pinned, downloads_folder(), each)
            if (folder / each.debian_lock).exists():
                debian.fetch(debian.read_lock(folder, each), downloads_folder())


def _elsewhere(
    workspace: Workspace,
    names: Mapping[str, Built],
    here: Surroundings,
    by: By,
    folder: Path,
    user: pwd.struct_passwd | None,
) -> tuple[dict[str, str], dict[str, str]]:
    """Build in a process of its own and return the digests, and what that process saw."""
    of = next(iter({of_config(b.plan.config).name for b in names.values()}), NATIVE.name)
    root = folder / here.folder
    _copy(workspace, root)
    for part in ("store", "home", "programs"):
        (folder / part).mkdir()
    # The other process looks for them beside its store.
    _share(downloads_folder(), folder / "downloads", by_all=user is not None)
    code, sites = pythons.CODE, list(by.sites)
    words, variables = pythons.started(by.python, folder, by_all=user is not None)
    if user and not pythons.open_to_all(code):
        pythons.link(code / "builder", folder / "code/builder")
        code = folder / "code"
    for number, site in enumerate(sites):
        if user and not pythons.open_to_all(site):
            sites[number] = folder / f"site{number}"
            pythons.link(site, sites[number])
            sites[number].chmod(0o755)
    # The one program that a build starts otherwise; without bubblewrap where that can be.
    if git := shutil.which("git"):
        (folder / "programs/git").symlink_to(git)
    searched = os.environ.get("PATH", "") if by.isolating else str(folder / "programs")
    environ = {
        **os.environ, "PATH": searched, "HOME": str(folder / "home"), "TZ": here.timezone,
        "LC_ALL": here.locale, "LANG": here.locale, "PYTHONHASHSEED": str(here.hash_seed),
        "PLATELINE_STORE": str(folder / "store"), "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": os.pathsep.join(map(str, (code, *sites))), **variables,
    }  # fmt: skip
    if user:
        folder.chmod(0o755)
        own = [folder / part for part in ("store", "home", "downloads", here.folder)]
        for path in [*own, *root.parents, *root.rglob("*")]:
            if path.is_relative_to(folder) and path != folder:
                os.chown(path, user.pw_uid, user.pw_gid, follow_symlinks=False)
    command = [
        *words,
        "-m",
        "builder.inspect.verify",
        str(root),
        str(here.jobs),
        str(here.cores),
        of,
    ]
    done = subprocess.run(
        [*command, *names], cwd=folder, env=environ, umask=here.umask, capture_output=True,
        text=True, check=False, user=user.pw_uid if user else None,
        group=user.pw_gid if user else None, extra_groups=[] if user else None,
    )  # fmt: skip
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise BuilderError(
            f"the build by {by.python.name}, in other surroundings, failed: {reason[0]}"
        )
    digests, seen = json.loads(done.stdout)
    return digests, seen


def _share(downloads: Path, folder: Path, *, by_all: bool) -> None:
    """Let `folder` be what was downloaded: the same for the same user, for another one links."""
    if not by_all:
        folder.symlink_to(downloads.absolute())
        return
    folder.mkdir()
    # What is being downloaded has another name yet, and goes away meanwhile.
    for path in (*downloads.glob("[0-9a-f]" * 64), *downloads.glob("git/" + "[0-9a-f]" * 40)):
        pythons.link(path, folder / path.relative_to(downloads))


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


def _seen(folder: str, jobs: int) -> dict[str, str]:
    """Return what this process has of that must not reach a digest."""
    umask = os.umask(0)
    os.umask(umask)
    return {
        "Python": machine.python_version(),
        "isal": metadata.version("isal"),
        "zlib": zlib.ZLIB_RUNTIME_VERSION,
        "C library": " ".join(machine.libc_ver()),
        "bubblewrap": next(host.programs(), "none"),
        "user": _user(),
        "umask": f"{umask:04o}",
        "time zone": os.environ.get("TZ", time.tzname[0]),
        "locale": os.environ.get("LC_ALL") or os.environ.get("LANG") or "C",
        "hash seed": os.environ.get("PYTHONHASHSEED", "random"),
        "cores": str(len(os.sched_getaffinity(0))),
        "--jobs": str(jobs),
        **({"folder": folder} if folder else {}),
    }


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # a container's user often has no name
        return str(os.geteuid())


def _sentence(seen: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in seen.items())


def main(arguments: Sequence[str]) -> int:
    """Build as the other process; returns the exit code."""
    root, jobs, cores, of, *names = arguments
    try:
        if int(cores):
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-int(cores) :])
        workspace, store = Workspace.load(Path(root)), Store.open()
        built = build(workspace, store, names, jobs=int(jobs), platform=KNOWN[of])
    except BuilderError as error:
        print(error, file=sys.stderr)
        return 1
    digests = {name: b.image.digest for name, b in built.items()}
    print(json.dumps([digests, _seen(root, int(jobs))]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
