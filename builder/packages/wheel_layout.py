"""An installed wheel as entries: pypa/installer decides what goes where, nothing is executed.

Source: https://packaging.python.org/en/latest/specifications/binary-distribution-format/ and
.../recording-installed-packages/.
"""

from __future__ import annotations

import configparser
import csv
import hashlib
import io
import lzma
import os
import posixpath
import re
import stat
import struct
import zipfile
import zlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from installer import install
from installer.destinations import WheelDestination
from installer.exceptions import InstallerError
from installer.records import Hash, InvalidRecordEntry, RecordEntry, parse_record_file
from installer.scripts import Script
from installer.sources import WheelFile
from installer.utils import Scheme, fix_shebang

from builder.errors import BuilderError
from builder.oci.entry import Entry, check_path
from builder.packages import bytecode, exclude
from builder.packages.lock_file import normalized
from builder.packages.python import DEFAULT, Python

if TYPE_CHECKING:
    from installer.scripts import ScriptSection

# A folder, or a file that some Python imports: `name/…`, name.py, name.so, name.<tag>.so.
_MODULE = re.compile(r"([^\W\d]\w*)(?:/.+|\.py|(?:\.[\w-]+)?\.so)")
_NOT_A_WHEEL = (
    zipfile.BadZipFile, KeyError, ValueError, AssertionError, NotImplementedError, InstallerError,
    InvalidRecordEntry, configparser.Error, struct.error, OSError, EOFError, zlib.error,
    lzma.LZMAError,
)  # fmt: skip


def unpack(
    wheels: Sequence[LayerDestination], interpreter: bytecode.Interpreter
) -> Iterator[Entry]:
    """Yield the entries of wheels as `installed` returned them, their byte-code and RECORD added.

    Tests that a wheel brings are not compiled: who imports them all the same waits for it. RECORD
    is written anew, as by pip, with the hashes that the wheel's own promises; they are compared
    with the content when the layer is written. Of several wheels together each source is compiled
    once for all layers that hold it.
    """
    kept = interpreter.kept if len(wheels) > 1 else None
    sources = {source.path: source for wheel in wheels for source in wheel.sources()}
    compiled = {e.path: e for e in bytecode.compile_sources(sources.values(), interpreter, kept)}
    for wheel in wheels:
        yield from wheel.entries.values()
        where = (bytecode.cache_path(s.path, interpreter.python) for s in wheel.sources())
        own = [compiled[path] for path in where if path in compiled]
        yield from own
        yield wheel.record(own)


def check_apart(layouts: Mapping[str, Mapping[str, str]], lock: str) -> None:
    """Raise BuilderError where two wheels write one file with different content.

    Neither pip nor an image's layers tell: the last one stays. Equal content, such as the empty
    `__init__.py` of a namespace, is fine. `layouts` are the wheels' by their files' names; `lock`
    names what pins them for the message.
    """
    seen: dict[str, tuple[str, str]] = {}
    folders: dict[str, str] = {}
    for name, files in sorted(layouts.items()):
        for path, digest in files.items():
            other, before = seen.setdefault(path, (name, digest))
            if before != digest:
                raise _both(other, name, path, "with different content", lock)
            parent = posixpath.dirname(path)
            while parent and parent not in folders:
                folders[parent] = name
                parent = posixpath.dirname(parent)
    for path in sorted(seen.keys() & folders.keys()):
        how = "one as a file and one as a folder"
        raise _both(seen[path][0], folders[path], path, how, lock)


def _both(first: str, second: str, where: str, how: str, lock: str) -> BuilderError:
    return BuilderError(
        f"{first} and {second} of {lock} both write /{where}, {how}, so one would be broken; leave "
        "one of them out of requirements.in, or lock it in a target of its own and take what you "
        "need with COPY --from"
    )


def installed(path: Path, prefix: str, python: Python = DEFAULT) -> LayerDestination:
    """Return what the wheel `path` writes below `prefix`, but for byte-code and RECORD.

    Raises BuilderError for what is no wheel, and for names that leave the prefix.
    """
    destination = LayerDestination(path.name, prefix, python)
    try:
        source = _Source(path)  # open as long as an entry refers to it
        install(source, destination, {})
    except _NOT_A_WHEEL as error:
        raise BuilderError(
            f"{path.name}: not a wheel that can be installed "
            f"({type(error).__name__}: {error}); ask its publisher, or pin another version"
        ) from None
    site = posixpath.join(prefix, python.site) + "/"
    there = {p.removeprefix(site) for p in destination.entries if p.startswith(site)}
    archive = [p for p in source.modules() if ".dist-info/RECORD" not in p]
    if lost := [*lost_modules(archive, there, python), *sorted({*archive} - there)]:
        raise BuilderError(
            f"{path.name}: {python} would not find {', '.join(lost[:5])} in the "
            "image, though the wheel has it; pin a version whose wheel is made for this Python"
        )
    return destination


def lost_modules(
    archive: Iterable[str], installed: Iterable[str], python: Python = DEFAULT
) -> list[str]:
    """Return the top-level modules among `archive` that `python` does not find `installed`.

    Both are paths from site-packages; a module is a folder, or a file that any Python could take
    for one. Source: https://docs.python.org/3/reference/import.html#the-path-based-finder.

    >>> lost_modules(["a/__init__.py", "b.cpython-27-x86_64-linux-gnu.so"], ["a/__init__.py"])
    ['b']
    """
    wanted = {match[1] for path in archive if (match := _MODULE.fullmatch(path))}
    found = set()
    for path in installed:
        first, slash, _ = path.partition("/")
        name = first.partition(".")[0]
        if slash or first.removeprefix(name) in python.suffixes:
            found.add(name if not slash else first)
    return sorted(wanted - found)


@dataclass(frozen=True, slots=True)
class _File:
    """A file of the archive, as the stream that installer passes on; it is read later."""

    archive: zipfile.ZipFile
    info: zipfile.ZipInfo
    promised: bytes = b""

    def open(self) -> BinaryIO:
        return cast("BinaryIO", _Content(self.archive, self.info))

    def deflated(self) -> Callable[[], BinaryIO] | None:
        if self.info.compress_type != zipfile.ZIP_DEFLATED:
            return None
        path = str(self.archive.filename)
        return cast("Callable[[], BinaryIO]", partial(_Member, path, self.info))

    def hash(self) -> bytes:
        """Return the SHA-256 of the content."""
        with self.open() as stream:
            return hashlib.file_digest(cast("Any", stream), "sha256").digest()


class _Source(WheelFile):
    """A wheel that yields its files unopened."""

    def __init__(self, path: Path) -> None:
        """Raise BuilderError for links, devices, and names that leave the wheel."""
        self.archive = zipfile.ZipFile(path)
        for info in self.archive.infolist():
            if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise BuilderError(
                    f"{path.name}: refused the entry {info.filename}: not a plain file"
                )
            if "\\" in info.filename:  # one part of a path here, several where it was made
                raise BuilderError(
                    f"{path.name}: refused the entry {info.filename!r}: it has a backslash"
                )
            check_path(info.filename, path.name)
        super().__init__(self.archive)
        self._promised = dict(self._promises())

    def _promises(self) -> Iterator[tuple[str, bytes]]:
        """Yield the SHA-256 of each file for which the wheel's RECORD has one."""
        if "RECORD" not in self.dist_info_filenames:
            return
        for path, value, _ in parse_record_file(self.read_dist_info("RECORD").splitlines()):
            name, _, encoded = value.partition("=")
            if name == "sha256":
                yield path, urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))

    def modules(self) -> Iterator[str]:
        """Yield the files of the archive that belong into site-packages, from there on."""
        for info in self.archive.infolist():
            first, _, rest = info.filename.partition("/")
            scheme, _, below = rest.partition("/")
            if first.endswith(".data"):
                if scheme in ("purelib", "platlib") and not info.is_dir():
                    yield below
            elif not info.is_dir() and "__pycache__" not in info.filename.split("/"):
                yield info.filename

    def get_contents(self) -> Iterator[tuple[tuple[str, str, str], BinaryIO, bool]]:
        """Yield each file, a `.data` folder under the name that the wheel's own name asks for.

        pip takes any folder that ends in .data at the top; byte-code of others is left out.
        """
        for info in self.archive.infolist():
            if info.is_dir() or "__pycache__" in info.filename.split("/"):
                continue
            first, _, rest = info.filename.partition("/")
            path = f"{self.data_dir}/{rest}" if first.endswith(".data") else info.filename
            mode = info.external_attr >> 16
            file = _File(self.archive, info, self._promised.get(info.filename, b""))
            executable = stat.S_ISREG(mode) and bool(mode & 0o111)
            yield (path, "", ""), cast("BinaryIO", file), executable


@dataclass
class LayerDestination(WheelDestination):
    """A destination of pypa/installer that collects entries instead of writing files.

    `source` names the wheel for messages; `prefix` is the environment's folder in the image.
    """

    source: str
    prefix: str
    made_for: Python = DEFAULT
    entries: dict[str, Entry] = field(default_factory=dict)
    rows: dict[str, tuple[str, str]] = field(default_factory=dict)
    record_path: str = ""

    @property
    def digests(self) -> dict[str, str]:
        """Return the digest of each file by its path."""
        return {path: digest for path, (digest, _) in self.rows.items()}

    @property
    def site(self) -> str:
        """The folder of modules in the image, a slash at its end."""
        return posixpath.join(self.prefix, self.made_for.site) + "/"

    def less(self, patterns: Sequence[str]) -> LayerDestination:
        """Return it without what `patterns` leave out; raises BuilderError as `exclude.taken`."""
        files = self._from_site(self.entries)
        gone = {files[file] for file in exclude.taken(files, patterns, self.source)}
        entries = {path: entry for path, entry in self.entries.items() if path not in gone}
        rows = {path: row for path, row in self.rows.items() if path not in gone}
        return replace(self, entries=entries, rows=rows)

    def sources(self) -> Iterator[Entry]:
        """Yield the modules that are compiled."""
        site = len(self.site)
        for path, entry in self.entries.items():
            module = path.endswith(".py") and path.startswith(self.site)
            if module and "/tests/" not in path[site - 1 :]:
                yield entry

    def _from_site(self, paths: Iterable[str]) -> dict[str, str]:
        """Return each path by how RECORD has it: from site-packages."""
        site = self.site
        inside = {path[len(site) :]: path for path in paths if path.startswith(site)}
        return inside | {
            posixpath.relpath(path, site): path for path in paths if not path.startswith(site)
        }

    def place(self, scheme: str, path: str) -> str:
        """Return where a file of a scheme goes in the image."""
        distribution = normalized(self.source.partition("-")[0])
        folders = {
            "purelib": self.made_for.site, "platlib": self.made_for.site, "scripts": "bin",
            "data": "",
            "headers": f"include/site/python{self.made_for.version}/{distribution}",
        }  # fmt: skip
        return check_path(posixpath.join(self.prefix, folders[scheme], path), self.source)

    def write_file(
        self, scheme: Scheme, path: str | os.PathLike[str], stream: BinaryIO, is_executable: bool
    ) -> RecordEntry:
        """Collect one file of the archive; it is read again when the layer is written."""
        file, path = cast("_File", stream), os.fspath(path)
        where = self.place(scheme, path)
        mode = 0o755 if is_executable or scheme == "scripts" else 0o644
        if scheme == "scripts":
            with file.open() as opened, fix_shebang(io.BytesIO(opened.read()), self.python) as it:
                return self._add(Entry(where, "file", mode, content=it.read()), path)
        entry = Entry(
            where, "file", mode, content=file.open, size=file.info.file_size,
            deflated=file.deflated(), sha256=file.promised,
        )  # fmt: skip
        return self._add(entry, path, file.promised or file.hash())

    def write_script(
        self, name: str, module: str, attr: str, section: ScriptSection
    ) -> RecordEntry:
        """Collect the script of an entry point."""
        script = Script(name, module, attr, section)
        _, content = script.generate(self.python, "posix")
        return self._add(Entry(self.place("scripts", name), "file", 0o755, content=content), name)

    @property
    def python(self) -> str:
        """The interpreter that scripts name in their first line."""
        return f"/{posixpath.join(self.prefix, 'bin/python3')}"

    def _add(self, entry: Entry, path: str, sha256: bytes = b"") -> RecordEntry:
        if isinstance(entry.content, bytes):
            sha256, size = hashlib.sha256(entry.content).digest(), len(entry.content)
        else:
            size = cast("int", entry.size)
        value = Hash("sha256", urlsafe_b64encode(sha256).decode().rstrip("="))
        self.entries[entry.path] = entry
        self.rows[entry.path] = (str(value), str(size))
        return RecordEntry(path, value, size)

    def finalize_installation(
        self,
        scheme: Scheme,
        record_file_path: str | os.PathLike[str],
        records: Iterable[tuple[Scheme, RecordEntry]],
    ) -> None:
        """Take where RECORD goes; it is written when the byte-code is there."""
        del records  # a name that is twice in the archive is twice among them
        self.record_path = self.place(scheme, os.fspath(record_file_path))

    def record(self, compiled: Iterable[Entry]) -> Entry:
        """Return the file RECORD: paths from site-packages, byte-code without hashes as by pip."""
        rows = {**self.rows, **{e.path: ("", "") for e in compiled}, self.record_path: ("", "")}
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        names = self._from_site(rows)
        writer.writerows(
            [name, *rows[path]] for name, path in sorted(names.items(), key=itemgetter(1))
        )
        return Entry(self.record_path, "file", content=text.getvalue().encode())


class _Content(io.RawIOBase):
    """A member of a zip file, unpacked; raises BuilderError, naming the wheel, where it cannot be.

    It may be read long after the wheel was opened, by who writes the layer.
    """

    def __init__(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
        self._what = f"{Path(str(archive.filename)).name}: {info.filename!r} cannot be unpacked"
        with self._named():
            self._stream = archive.open(info)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with self._named():
            data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed and hasattr(self, "_stream"):
            self._stream.close()
        super().close()

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except _NOT_A_WHEEL as error:
            raise BuilderError(
                f"{self._what} ({error}); ask the wheel's publisher, or pin another version"
            ) from None


class _Member(io.RawIOBase):
    """A member of a zip file as the raw stream that it is kept as.

    Source: APPNOTE.TXT 4.3.7: 30 bytes of local header, then the name and the extra field.
    """

    def __init__(self, path: str, info: zipfile.ZipInfo) -> None:
        self._stream = open(path, "rb")  # noqa: PTH123, SIM115 - a thousand times a layer
        self.name = f"{posixpath.basename(path)}: {info.filename}"
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
