"""Packages without a wheel: what pins an sdist and its build requirements, and what is refused.

Nothing of an sdist is executed here. Format: https://packaging.python.org/en/latest/specifications/
source-distribution-format/; what it needs to be built: PEP 518.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from builder.errors import BuilderError
from builder.packages import lock_file
from builder.packages.download import fetch
from builder.packages.python import DEFAULT, Python
from builder.packages.wheels import LINE, Wheel

WANTED, LOCK = "sdists.in", "sdists.lock"
# The most that an sdist may hold, unpacked: bytes and members.
BYTES, MEMBERS = 1 << 29, 100_000
_ASKED = re.compile(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.!+_-]+)")
_LINE = re.compile(
    r"([A-Za-z0-9._-]+)==(\S+) --hash=sha256:([0-9a-f]{64})"
    r"  # makes ([A-Za-z0-9._+-]+\.whl) sha256:([0-9a-f]{64})"
)
_IMAGE = re.compile(r"image\s+([A-Za-z0-9._-]+)")
_ALLOWED = re.compile(r"allow\s+([A-Za-z0-9._-]+):\s*(\S.*)")
_DIFFERS = "  # need not be reproducible: "


@dataclass(frozen=True, slots=True)
class Sdist:
    """One pinned sdist, the wheels that build it, and the wheel that it makes.

    `allowed` is empty, or why it may make another wheel each time: then it is the one that `lock`
    made.
    """

    name: str
    version: str
    sha256: str
    wheel: str
    wheel_sha256: str
    requires: tuple[Wheel, ...]
    allowed: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """What sdists.in says: name and version of each sdist, and the target to build them in.

    `image` is empty where it names none: then it is the one that the recipe begins with, and what
    is compiled is refused. `allowed` has the names of those that need not be reproducible, with
    the reason that is given there.
    """

    sdists: tuple[tuple[str, str], ...]
    image: str = ""
    allowed: Mapping[str, str] = field(default_factory=dict)


def asked(folder: Path) -> Asked:
    """Read sdists.in; raises BuilderError for a line that is none of its three kinds."""
    path = folder / WANTED
    found: list[tuple[str, str]] = []
    allowed: dict[str, str] = {}
    image = ""
    for number, raw in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        line = raw.partition("#")[0].strip()
        if match := _ASKED.fullmatch(line):
            found.append((lock_file.normalized(match[1]), match[2]))
        elif (named := _IMAGE.fullmatch(line)) and not image:
            image = named[1]
        elif match := _ALLOWED.fullmatch(line):
            allowed[lock_file.normalized(match[1])] = match[2]
        elif line:
            raise BuilderError(
                f"{path}:{number}: not `name==version`, nor `allow NAME: REASON`, nor the one line "
                f"`image TARGET`: {line!r}; write it so"
            )
    if others := sorted(allowed.keys() - {name for name, _ in found}):
        raise BuilderError(
            f"{path}: `allow {others[0]}` is for no sdist of this file; take the line out"
        )
    return Asked(tuple(found), image, allowed)


def read_lock(folder: Path) -> list[Sdist]:
    """Read sdists.lock where sdists.in is; raises BuilderError where it is stale or bad."""
    if not (folder / WANTED).exists():
        return []
    text = lock_file.read(folder / LOCK)
    lock_file.check_fresh(folder, WANTED, LOCK, text)
    found: list[Sdist] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        if match := _LINE.fullmatch(line):
            found.append(Sdist(match[1], match[2], match[3], match[4], match[5], ()))
        elif found and line.startswith(_DIFFERS):
            found[-1] = replace(found[-1], allowed=line.removeprefix(_DIFFERS))
        elif found and line.startswith("  ") and (needs := LINE.fullmatch(line[2:])):
            last, wheel = found[-1], Wheel(needs[1], needs[2], needs[3], int(needs[4]))
            found[-1] = replace(last, requires=(*last.requires, wheel))
        else:
            raise BuilderError(
                f"{folder / LOCK}:{number}: not a line of this lock: {line!r}; "
                f"run `{lock_file.lock_command(folder)}`"
            )
    allowed = asked(folder).allowed
    for item in found:
        if item.allowed and item.allowed != allowed.get(item.name):
            raise BuilderError(
                f"{folder / LOCK}: the wheel of {item.name} {item.version} need not be "
                f"reproducible, and {WANTED} does not allow that for this reason; write "
                f"`allow {item.name}: {item.allowed}` there, or ask for a version that has a wheel"
            )
    return found


def write_lock(folder: Path, sdists: Sequence[Sdist]) -> None:
    """Write sdists.lock: an sdist a line, below it the wheels that build it."""
    lines = [
        f"# made from {WANTED} {lock_file.in_hash(folder, WANTED)}",
        "# by `invoke lock`: one sdist a line, below it the wheels that build it",
    ]
    for s in sdists:
        made = f"# makes {s.wheel} sha256:{s.wheel_sha256}"
        lines.append(f"{s.name}=={s.version} --hash=sha256:{s.sha256}  {made}")
        lines += [f"{_DIFFERS}{s.allowed}"] if s.allowed else []
        lines += [
            f"  {w.name}=={w.version} --hash=sha256:{w.sha256}  # {w.size} bytes"
            for w in s.requires
        ]
    (folder / LOCK).write_text("\n".join(lines) + "\n", encoding="utf-8")


def bring(name: str, version: str, sha256: str, cache: Path, python: Python = DEFAULT) -> Path:
    """Return where the sdist is, downloaded and checked where `cache` lacks it.

    An empty `sha256` takes the one that the index gives. Raises BuilderError.
    """
    if sha256 and (path := next((cache / sha256).glob("*.tar.gz"), None)):
        return fetch(path.as_uri(), sha256, cache, path.name)
    url, found = _locate(name, version, python)
    return fetch(url, sha256 or found, cache, url.rpartition("/")[2])


def _locate(name: str, version: str, python: Python) -> tuple[str, str]:
    """Ask pip for the address and hash of an sdist.

    pip executes an sdist to download it, unless its hash is wrong: then it says which file it was
    and what the hash is, and stops before that. So it is given a hash that nothing has.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "requirements.txt")
        path.write_text(f"{name}=={version} --hash=sha256:{'0' * 64}\n")
        done = subprocess.run(
            [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary=:all:",
             "--require-hashes", f"--python-version={python.version}", "-d", folder,
             "-r", str(path)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    address = re.search(r"^    \S+==\S+ from (\S+\.tar\.gz)", done.stderr, re.MULTILINE)
    sha256 = re.search(r"^\s+Got\s+([0-9a-f]{64})$", done.stderr, re.MULTILINE)
    if not address or not sha256 or "****" in address[1]:
        last = " ".join(done.stderr.strip().splitlines()[-2:])
        raise BuilderError(
            f"no sdist (.tar.gz) of {name} {version} can be had for Python {python.version}; "
            f"check {WANTED} and `pip config list`. pip says: {last}"
        )
    return address[1], sha256[1]


def build_system(path: Path) -> tuple[str, list[str]]:
    """Return the backend of an sdist and what building it needs, and check what it holds.

    Raises BuilderError for an archive that is damaged or too large, or that has a link, a device,
    or a path that leads out of its one folder.
    """
    backend, requires = "setuptools.build_meta:__legacy__", ["setuptools>=40.8.0"]
    size = count = 0
    top = ""
    try:
        with tarfile.open(path, "r|gz") as archive:
            for member in archive:
                parts = PurePosixPath(member.name).parts
                top = top or (parts[0] if parts else "")
                size, count = size + member.size, count + 1
                if size > BYTES or count > MEMBERS:
                    raise BuilderError(
                        f"{path.name} holds more than {BYTES >> 20} MiB or {MEMBERS} files; "
                        "it is not built"
                    )
                if not parts or parts[0] != top or ".." in parts or member.name.startswith("/"):
                    raise BuilderError(f"{path.name}: {member.name!r} leads out of its folder")
                if not (member.isreg() or member.isdir()):
                    raise BuilderError(f"{path.name}: {member.name!r} is neither file nor folder")
                if parts[1:] == ("pyproject.toml",) and member.size < 1 << 20:
                    stream = archive.extractfile(member)
                    assert stream
                    table = tomllib.loads(stream.read().decode()).get("build-system", {})
                    requires = [str(r) for r in table.get("requires", requires)]
                    backend = str(table.get("build-backend", backend))
                    if "backend-path" in table:
                        raise BuilderError(
                            f"{path.name} brings its own build backend (backend-path), which is "
                            "not supported; ask for a version that has a wheel"
                        )
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise BuilderError(f"{path.name} is not an sdist that can be read ({error})") from None
    return backend, requires
