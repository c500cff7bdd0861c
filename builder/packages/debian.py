"""The context `debian`: packages of a signed Debian index, pinned, unpacked, nothing executed."""

from __future__ import annotations

import io
import lzma
import operator
import os
import posixpath
import re
import tarfile
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

from builder.errors import BuilderError
from builder.oci.entry import Entry, check_path
from builder.oci.layer_plan import LayerPlan
from builder.oci.tar import Header
from builder.oci.tree import Bounds, Tree
from builder.packages import bytecode, download, lock_file
from builder.platform import NATIVE, Platform

# Files of no use in an image. Copyright files stay: licences ask for it.
_DROPPED = re.compile(
    r"usr/share/(man|info|locale|lintian|bug|pixmaps|applications|doc-base)(/|$)"
    r"|usr/share/doc/[^/]+/(?!copyright$)"
)
# Names and versions as in Debian's policy, 5.6.1 and 5.6.12; a path goes down only.
_LINE = re.compile(
    r"([a-z0-9][a-z0-9+.-]*) ([0-9][A-Za-z0-9.+:~-]*) "
    r"((?:[A-Za-z0-9_][A-Za-z0-9_.+~-]*/)*[a-z0-9][A-Za-z0-9_.+~%-]*) ([0-9]{1,15}) ([0-9a-f]{64})"
)
_LONGEST_CONTROL = 1 << 20
FORMAT = "debian-1"
SUITE = "trixie"
# https://www.debian.org/releases/: advisories and scanners name a release by its number.
RELEASES = {"bullseye": "11", "bookworm": "12", "trixie": "13", "forky": "14", "duke": "15"}


@dataclass(frozen=True, slots=True)
class Package:
    """One pinned .deb: `path` is below the mirror's root, `size` in bytes."""

    name: str
    version: str
    path: str
    size: int
    sha256: str

    @property
    def source(self) -> str:
        """The source package: the folder in the pool, `pool/main/g/glibc/libc6_…`."""
        parts = self.path.split("/")
        return parts[-2] if len(parts) > 2 else self.name


def suite(folder: Path) -> str:
    """Return the suite of Debian that `debian.in` in `folder` names, or the default."""
    match = re.search(r"(?m)^suite (\S+)", lock_file.read(folder / "debian.in"))
    return match[1] if match else SUITE


def read_lock(folder: Path, platform: Platform = NATIVE) -> list[Package]:
    """Read the lock for `platform` in `folder`: a line a package, five words each."""
    path = folder / platform.debian_lock
    text = lock_file.read(path)
    lock_file.check_fresh(folder, "debian.in", path.name, text)
    packages = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise BuilderError(
                f"{path}:{number}: not `name version path size sha256`: {line!r}; "
                f"run `{lock_file.lock_command(folder, path.name)}`"
            )
        packages.append(Package(match[1], match[2], match[3], int(match[4]), match[5]))
    return packages


def mirror(environ: Mapping[str, str] = os.environ, root: Path = Path("/")) -> str:
    """Return the Debian mirror: $PLATELINE_DEBIAN_MIRROR, or the one the host's apt uses.

    Raises BuilderError where there is neither.
    """
    if chosen := environ.get("PLATELINE_DEBIAN_MIRROR"):
        return chosen.rstrip("/")
    sources = [root / "etc/apt/sources.list"]
    sources += sorted((root / "etc/apt/sources.list.d").glob("*"))
    for path in sources:
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        for found in re.findall(r"(?m)^(?:URIs:\s*|deb\s+(?:\[[^]]*\]\s*)?)(\S+)", text):
            if found.rstrip("/").endswith("/debian") and found.startswith(("http", "file:")):
                return str(found).rstrip("/")
    raise BuilderError(
        "there is no Debian mirror in this machine's apt sources; "
        "set PLATELINE_DEBIAN_MIRROR to the URL of one (it ends with /debian)"
    )


def plan(
    folder: Path, cache: Path, destination: str, platform: Platform = NATIVE
) -> list[LayerPlan]:
    """Plan the one layer of the lock in `folder`: packages, dpkg status, and what scripts do.

    The packages are unpacked once, into a temporary file, for all that is made of them: the layer,
    its byte-code, and the folder out of which their Python compiles.
    """
    packages = read_lock(folder, platform)
    prefix = destination.strip("/")
    turn = threading.Lock()
    found: list[Entry] = []

    def entries() -> Iterator[Entry]:
        with turn:
            if not found:
                unpacked = unpack(packages, cache)
                found.extend([*_kept(_below(e, prefix) if prefix else e for e in unpacked)])
        yield from found

    pins = [[package.name, package.version, package.sha256] for package in packages]
    inputs = {"debian": pins, "destination": destination, "format": FORMAT}
    return [LayerPlan(name=f"{len(packages)} Debian packages", inputs=inputs, entries=entries)]


def _kept(entries: Iterable[Entry]) -> Iterator[Entry]:
    """Yield the entries with the contents of files in one temporary file, which they hold open."""
    spool = cast("BinaryIO", tempfile.TemporaryFile())  # noqa: SIM115 - as long as the entries
    for entry in entries:
        if entry.kind == "file":
            data, at = _content(entry), spool.tell()
            spool.write(data)
            opened = partial(_open, spool, len(data), at)
            yield replace(entry, content=opened, size=len(data))
        else:
            yield entry
    spool.flush()


def _open(spool: BinaryIO, size: int, at: int) -> BinaryIO:
    return io.BytesIO(os.pread(spool.fileno(), size, at))


def _below(entry: Entry, prefix: str) -> Entry:
    target = f"{prefix}/{entry.target}" if entry.kind == "hardlink" else entry.target
    return replace(entry, path=f"{prefix}/{entry.path}", target=target)


def fetch(packages: list[Package], cache: Path) -> list[Path]:
    """Return where the packages are, those that are missing downloaded (four at a time)."""
    from concurrent.futures import ThreadPoolExecutor  # logging costs time

    site = ""

    def get(package: Package) -> Path:
        nonlocal site
        kept = cache / package.sha256 / posixpath.basename(package.path)
        if not kept.exists():
            site = site or mirror()
        return download.fetch(
            f"{site}/{package.path}", package.sha256, cache, posixpath.basename(package.path)
        )

    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(get, packages))


def unpack(packages: list[Package], cache: Path) -> Iterator[Entry]:
    """Fetch, check and unpack `packages`, then add what scripts would make.

    Raises BuilderError as `overlaid` does.
    """
    if not packages:
        return
    entries = overlaid(packages, fetch(packages, cache))
    yield from entries.values()
    yield from finish(entries)


def overlaid(packages: Sequence[Package], paths: Sequence[Path]) -> dict[str, Entry]:
    """Return by path what `packages`, whose files are at `paths`, bring together.

    Of two that bring one file the one counts that says `Replaces` of the other, as with dpkg:
    https://www.debian.org/doc/debian-policy/ch-relationships.html#overwriting-files-and-replacing-packages-replaces.
    Raises BuilderError where neither does and what they bring differs, and where one brings
    something below what is a file or link of another.
    """
    entries: dict[str, Entry] = {}
    owners: dict[str, tuple[Package, Path]] = {}
    for package, path in zip(packages, paths, strict=True):
        for entry in read_deb(path, package.name):
            before = entries.get(entry.path)
            if before and not _alike(before, entry):
                other, file = owners[entry.path]
                if _replaces(file, package):
                    continue
                if not _replaces(path, other):
                    raise _both(other.name, package.name, f"bring /{entry.path}")
            entries[entry.path], owners[entry.path] = entry, (package, path)
    for where in entries:
        folder = posixpath.dirname(where)
        if folder in entries and entries[folder].kind != "dir":
            names = owners[folder][0].name, owners[where][0].name
            raise _both(*names, f"bring /{where}, where /{folder} is a {entries[folder].kind}")
    return entries


def _alike(one: Entry, other: Entry) -> bool:
    """Tell whether it does not matter which of the two counts."""
    if "dir" in (one.kind, other.kind):
        return one.kind == other.kind
    return replace(one, content=None) == replace(other, content=None) and (
        one.kind != "file" or _content(one) == _content(other)
    )


def _replaces(path: Path, other: Package) -> bool:
    """Tell whether the .deb at `path` says that it replaces files of `other`."""
    from debian.deb822 import PkgRelation
    from debian.debfile import DebFile
    from debian.debian_support import Version

    compare: dict[str, Callable[[Version, Version], bool]] = {
        "<<": operator.lt, "<=": operator.le, "=": operator.eq, ">=": operator.ge, ">>": operator.gt
    }  # fmt: skip
    field = DebFile(str(path)).control.debcontrol().get("Replaces", "")
    relations = [one for group in PkgRelation.parse_relations(field) for one in group]
    for relation in relations:
        if relation["name"] == other.name:
            relation_to, version = relation.get("version") or (">=", "0~~")
            if compare[relation_to](Version(other.version), Version(version)):
                return True
    return False


def _both(one: str, other: str, what: str) -> BuilderError:
    return BuilderError(
        f"the Debian packages {one} and {other} both {what}, and neither says that it replaces the "
        "other, so one would be broken (dpkg refuses that too); leave one of them out of "
        "debian.in: a line -name does so where others ask for it"
    )


def read_deb(path: Path, package: str) -> Iterator[Entry]:
    """Yield the files of a .deb, and its control data as `var/lib/dpkg/status.d/<package>`.

    Special bits but the sticky one are dropped. Raises BuilderError for what is no Debian package
    (deb(5)), for device nodes, for paths that leave, for entries that do not follow those before
    them (`Tree.add`), and for a package that unpacks beyond `Bounds`.
    """
    from debian.arfile import ArError, ArFile

    damaged = (ArError, tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError, ValueError)
    tree = Tree(path.name, Bounds.read(), path.stat().st_size)
    try:
        parts = {member.name: member for member in ArFile(str(path)).getmembers()}
        fields = _control(_part(parts, "control.tar"))
        archive = _part(parts, "data.tar")
        while (member := archive.next()) is not None:
            cast("Any", archive).members.clear()  # else memory grows with the package
            if member.name in (".", "./"):
                continue
            name = check_path(member.name, path.name)
            if _DROPPED.match(name):
                continue
            entry = tree.add(_entry(member, name, path.name))
            yield replace(entry, content=_bytes(archive, member)) if entry.kind == "file" else entry
    except damaged as error:
        raise BuilderError(f"{path.name}: not a Debian package ({error})") from None
    fields = fields.rstrip(b"\n") + b"\nStatus: install ok installed\n"
    yield Entry(path=f"var/lib/dpkg/status.d/{package}", kind="file", content=fields)


def _part(parts: Mapping[str, Any], name: str) -> tarfile.TarFile:
    """Return the tar `name` of a package; Debian compresses by what tarfile reads."""
    for found, member in parts.items():
        if found == name or found in (f"{name}.gz", f"{name}.xz", f"{name}.bz2"):
            return tarfile.open(fileobj=member, mode="r:*", tarinfo=Header)
    raise tarfile.ReadError(f"it has no {name}, plain or compressed by gzip, xz or bzip2")


def _control(archive: tarfile.TarFile) -> bytes:
    while (member := archive.next()) is not None:
        if member.name in ("control", "./control") and member.size <= _LONGEST_CONTROL:
            return _bytes(archive, member)
    raise tarfile.ReadError(f"it has no file control of at most {_LONGEST_CONTROL} bytes")


def _entry(member: tarfile.TarInfo, name: str, source: str) -> Entry:
    mode, owner = member.mode & 0o1777, (member.uid, member.gid)
    if member.isdir():
        return Entry(name, "dir", mode, *owner)
    if member.issym():
        target = posixpath.normpath(posixpath.join(posixpath.dirname(name), member.linkname))
        if not member.linkname.startswith("/") and f"{target}/".startswith("../"):
            raise BuilderError(f"{source}: refused the link {name} -> {member.linkname}: it leaves")
        return Entry(name, "symlink", 0o777, *owner, target=member.linkname)
    if member.islnk():
        return Entry(name, "hardlink", mode, *owner, target=check_path(member.linkname, source))
    if not member.isfile():
        raise BuilderError(f"{source}: refused the entry {name}: a device or other special file")
    return Entry(name, "file", mode, *owner, size=member.size)


def _bytes(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = archive.extractfile(member)
    if stream is None:
        raise tarfile.ReadError(f"{member.name} is no file")
    data = stream.read()
    if len(data) != member.size:
        raise tarfile.ReadError(f"it ends within {member.name}")
    return data


def finish(entries: Mapping[str, Entry]) -> Iterator[Entry]:
    """Yield what the packages' maintainer scripts would have made, as far as an image needs it.

    The concatenated CA bundle (of the package ca-certificates alone), OpenSSL's links to it, the
    interpreter's link, the time zone's, and the empty folders a container's mounts need.
    """
    certificates = sorted(
        path for path in entries if re.match(r"usr/share/ca-certificates/.*\.crt", path)
    )
    if certificates:
        bundle = b"".join(_content(entries[path]) for path in certificates)
        yield Entry("etc/ssl/certs/ca-certificates.crt", "file", content=bundle)
        yield Entry("usr/lib/ssl/certs", "symlink", 0o777, target="/etc/ssl/certs")
        yield Entry(
            "usr/lib/ssl/cert.pem", "symlink", 0o777, target="/etc/ssl/certs/ca-certificates.crt"
        )
    pythons = sorted(path for path in entries if re.fullmatch(r"usr/bin/python3\.\d+", path))
    if pythons:
        yield Entry("usr/bin/python3", "symlink", 0o777, target=posixpath.basename(pythons[-1]))
    if "usr/share/zoneinfo/Etc/UTC" in entries:
        yield Entry("etc/localtime", "symlink", 0o777, target="/usr/share/zoneinfo/Etc/UTC")
    for folder in ("proc", "sys", "dev", "run", "mnt"):
        yield Entry(folder, "dir", 0o755)
    yield Entry("tmp", "dir", 0o1777)
    yield Entry("var/tmp", "dir", 0o1777)


def _content(entry: Entry) -> bytes:
    with entry.open() as stream:
        return stream.read()


def library_bytecode(
    entries: Iterable[Entry], destination: str, interpreter: bytecode.Interpreter
) -> Iterator[Entry]:
    """Return the byte-code of the Python library among `entries`, as postinst scripts would."""
    folder = posixpath.join(destination.strip("/"), "usr/lib/python3")
    sources = [
        entry
        for entry in entries
        if entry.kind == "file" and entry.path.endswith(".py") and entry.path.startswith(folder)
    ]
    return bytecode.compile_sources(sources, interpreter)
