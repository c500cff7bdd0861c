"""The context `wheels`: pinned wheels, downloaded by pip, unpacked by pypa/installer."""

from __future__ import annotations

import configparser
import io
import os
import posixpath
import re
import stat
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

from builder.errors import BuilderError
from builder.oci.entry import Entry, check_path
from builder.oci.layer_plan import LayerPlan
from builder.packages import bytecode, download
from builder.packages.debian import check_fresh, lock_command

PYTHON = "3.13"
LOCK = "requirements.linux-amd64.lock"
SITE = f"lib/python{PYTHON}/site-packages"
# A wheel of this many bytes or more is a layer of its own; the others of a recipe share one.
OWN_LAYER = 1 << 20
FORMAT = "wheels-2"
# The test suites of packages: a tenth of numpy and scipy, of no use in an image.
_DROPPED = re.compile(r"[^/]+/(.+/)?tests/")
# Debian trixie has glibc 2.41; a wheel for any older one fits.
PLATFORMS = (
    *(f"manylinux_2_{minor}_x86_64" for minor in range(41, 4, -1)),
    *("manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64", "linux_x86_64"),
)
LINE = re.compile(r"([A-Za-z0-9._-]+)==(\S+) --hash=sha256:([0-9a-f]{64})  # (\d+) bytes")


@dataclass(frozen=True, slots=True)
class Wheel:
    """One pinned wheel; `size` in bytes."""

    name: str
    version: str
    sha256: str
    size: int


def read_lock(folder: Path) -> list[Wheel]:
    """Read the lock in `folder`; raises BuilderError where it is missing, stale or bad.

    It is a pip requirements file with exactly one sha256 a line.
    """
    path = folder / LOCK
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise BuilderError(f"{path} is not there; run `{lock_command(folder)}`") from None
    check_fresh(folder, "requirements.in", LOCK, text)
    wheels = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        match = LINE.fullmatch(line)
        if not match:
            raise BuilderError(
                f"{path}:{number}: not `name==version --hash=sha256:<hex>  # N bytes`: {line!r}; "
                f"run `{lock_command(folder)}`"
            )
        wheels.append(Wheel(match[1], match[2], match[3], int(match[4])))
    return wheels


def pinned(folder: Path) -> list[Wheel]:
    """Return the wheels of a lock even where it is stale; none where it cannot be read."""
    path = folder / LOCK
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    matches = [LINE.fullmatch(line) for line in text.splitlines()]
    return [Wheel(m[1], m[2], m[3], int(m[4])) for m in matches if m]


def check_one_version(folders: Iterable[Path]) -> None:
    """Raise BuilderError where the locks in `folders` pin two wheels of one package."""
    seen: dict[str, tuple[Wheel, Path]] = {}
    for folder in folders:
        for wheel in pinned(folder):
            other, where = seen.setdefault(wheel.name, (wheel, folder))
            if other.sha256 != wheel.sha256:
                versions = [f"{w.version} (sha256:{w.sha256[:12]})" for w in (other, wheel)]
                raise BuilderError(
                    f"{wheel.name} is locked as {versions[0]} for {where.name} and as "
                    f"{versions[1]} for {folder.name}; a workspace has one version of a package: "
                    f"run `invoke lock`"
                )


def pip_platform() -> list[str]:
    """Return pip's options that choose wheels for the image instead of for this machine."""
    options = ["--only-binary=:all:", "--implementation=cp", f"--python-version={PYTHON}"]
    options += [f"--abi={abi}" for abi in ("cp313", "abi3", "none")]
    return options + [f"--platform={platform}" for platform in PLATFORMS]


def pip(arguments: Sequence[str], what: str) -> str:
    """Run pip as the host has it configured and return what it printed.

    Raises BuilderError with pip's last words.
    """
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        if lacking := re.search(r"No matching distribution found for (.+)", done.stderr):
            errors.insert(
                0, f"{lacking[1]} has no wheel for Python {PYTHON} on linux-amd64, and sdists are "
                "not taken; ask for a version that has one. pip says:"
            )  # fmt: skip
        if wrong := re.findall(r"^    (\S+==\S+)(?: from .*)?:$", done.stderr, re.MULTILINE):
            names = ", ".join(wrong)
            reason = (
                f"{names} is not the file whose hash the lock holds; if nobody changed the lock"
            )
            errors = [f"{reason}, do not trust that index; otherwise run `invoke lock`"]
        reason = " ".join(errors or done.stderr.strip().splitlines()[-2:])
        raise BuilderError(f"{what} failed: {reason}")
    return done.stdout


def plan(
    folder: Path, cache: Path, destination: str, interpreter: bytecode.Interpreter
) -> list[LayerPlan]:
    """Plan the layers of the wheels in `folder`'s lock, unpacked under `destination`."""
    wheels = read_lock(folder)
    prefix = destination.strip("/")
    small = [wheel for wheel in wheels if wheel.size < OWN_LAYER]
    groups = [(f"{w.name} {w.version}", [w]) for w in wheels if w.size >= OWN_LAYER]
    if small:
        groups.insert(0, (f"{len(small)} small wheels", small))

    def layer(name: str, group: list[Wheel]) -> LayerPlan:
        def entries() -> Iterator[Entry]:
            paths = fetch(group, cache, f"{folder.name}/{LOCK}")
            for path in paths:
                yield from unpack(path, prefix, interpreter)

        inputs = {
            "wheels": [[wheel.name, wheel.version, wheel.sha256] for wheel in group],
            "destination": destination,
            "bytecode": interpreter.key,
            "format": FORMAT,
        }
        return LayerPlan(name=name, inputs=inputs, entries=entries)

    return [layer(name, group) for name, group in groups]


def fetch(wheels: Sequence[Wheel], cache: Path, lock: str) -> list[Path]:
    """Return where the wheels are, those that are missing downloaded by pip and checked."""
    found = {wheel.sha256: next((cache / wheel.sha256).glob("*.whl"), None) for wheel in wheels}
    missing = [
        wheel
        for wheel in wheels
        if (path := found[wheel.sha256]) is None or download.sha256_file(path) != wheel.sha256
    ]
    if missing:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as name:
            folder = Path(name)
            lines = [f"{w.name}=={w.version} --hash=sha256:{w.sha256}\n" for w in missing]
            (folder / "requirements.txt").write_text("".join(lines))
            pip(
                ["download", "--no-deps", "--require-hashes", *pip_platform(),
                 "-d", name, "-r", str(folder / "requirements.txt")],
                f"downloading the wheels of {lock}",
            )  # fmt: skip
            for path in folder.glob("*.whl"):
                sha256 = download.sha256_file(path)
                download.keep(path, sha256, cache / sha256 / path.name, "pip")
                found[sha256] = cache / sha256 / path.name
    paths = [found[wheel.sha256] for wheel in wheels]
    assert all(paths)
    return [path for path in paths if path]


@dataclass
class LayerDestination:
    """A destination of pypa/installer that collects entries instead of writing files."""

    path: Path
    prefix: str
    entries: list[Entry] = field(default_factory=list)

    def place(self, scheme: str, path: str) -> str:
        """Return where a file of a scheme goes in the image."""
        folders = {"purelib": SITE, "platlib": SITE, "scripts": "bin", "data": "",
                   "headers": "include"}  # fmt: skip
        return check_path(posixpath.join(self.prefix, folders[scheme], path), self.path.name)

    def add(self, scheme: str, path: str, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
        """Collect one file of the archive; it is read when the layer is written."""
        executable = scheme == "scripts" or info.external_attr >> 16 & 0o111
        mode = 0o755 if executable else 0o644
        where = self.place(scheme, path)
        if scheme == "scripts" and (data := archive.read(info)).startswith(b"#!python"):
            data = self.shebang() + data.partition(b"\n")[2]
            self.entries.append(Entry(where, "file", mode, content=data))
            return
        deflated = None
        if info.compress_type == zipfile.ZIP_DEFLATED:
            deflated = cast("Callable[[], BinaryIO]", partial(_Member, self.path, info))
        self.entries.append(
            Entry(where, "file", mode, content=lambda: cast("BinaryIO", archive.open(info)),
                  size=info.file_size, deflated=deflated)
        )  # fmt: skip

    def shebang(self) -> bytes:
        """Return the first line of the scripts."""
        return f"#!/{posixpath.join(self.prefix, 'bin/python3')}\n".encode()

    def write_script(self, name: str, module: str, attribute: str) -> None:
        """Collect the console script `name`."""
        start = attribute.partition(".")[0]
        text = (f"import sys\nfrom {module} import {start}\n"
                f"if __name__ == '__main__':\n    sys.exit({attribute}())\n")  # fmt: skip
        content = self.shebang() + text.encode()
        self.entries.append(Entry(self.place("scripts", name), "file", 0o755, content=content))


def unpack(path: Path, prefix: str, interpreter: bytecode.Interpreter) -> Iterable[Entry]:
    """Return the entries of a wheel installed under `prefix`, its byte-code included.

    Raises BuilderError for what is no wheel, and for names that leave the prefix.
    """
    from installer.sources import WheelFile

    destination = LayerDestination(path, prefix)
    try:
        archive = zipfile.ZipFile(path)  # open as long as an entry refers to it
        source = WheelFile(archive)
        data_folder = f"{source.distribution}-{source.version}.data/"
        for info in _files(archive, path.name):
            scheme, inner = "purelib", info.filename
            if inner.startswith(data_folder):
                scheme, _, inner = inner.removeprefix(data_folder).partition("/")
            if not inner.endswith(".dist-info/RECORD") and not _DROPPED.match(inner):
                destination.add(scheme, inner, archive, info)
        for script in _console_scripts(source):
            destination.write_script(*script)
    except (zipfile.BadZipFile, KeyError, ValueError, NotImplementedError) as error:
        raise BuilderError(f"{path.name}: not a wheel that can be unpacked ({error})") from None
    entries = destination.entries
    sources = [e for e in entries if e.path.endswith(".py") and f"{SITE}/" in e.path]
    return [*entries, *bytecode.compile_sources(sources, interpreter)]


def _files(archive: zipfile.ZipFile, source: str) -> Iterator[zipfile.ZipInfo]:
    for info in archive.infolist():
        if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise BuilderError(f"{source}: refused the entry {info.filename}: not a plain file")
        if not info.is_dir():
            yield info


class _Member(io.RawIOBase):
    """A member of a zip file as the raw stream that it is kept as.

    Source: APPNOTE.TXT 4.3.7: 30 bytes of local header, then the name and the extra field.
    """

    def __init__(self, path: Path, info: zipfile.ZipInfo) -> None:
        self._stream = path.open("rb")
        self._stream.seek(info.header_offset + 26)
        self._stream.seek(sum(struct.unpack("<HH", self._stream.read(4))), os.SEEK_CUR)
        self._left = info.compress_size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        size = self._stream.readinto(memoryview(buffer)[: self._left])
        self._left -= size
        return size

    def close(self) -> None:
        self._stream.close()
        super().close()


def _console_scripts(source: Any) -> Iterator[tuple[str, str, str]]:
    if "entry_points.txt" not in source.dist_info_filenames:
        return
    parser = configparser.ConfigParser(delimiters=("=",), strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(source.read_dist_info("entry_points.txt"))
    for name, value in (
        parser["console_scripts"] if parser.has_section("console_scripts") else {}
    ).items():
        module, _, attribute = value.partition("[")[0].strip().partition(":")
        yield name, module.strip(), attribute.strip()
