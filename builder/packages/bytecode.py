"""Byte-code, compiled by an image's own interpreter and made canonical."""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import BinaryIO, cast

from builder.oci.entry import Entry
from builder.packages.python import DEFAULT, Python

# Runs in the image's Python. Reads `path NUL size NEWLINE source` records, and writes .pyc files as
# records of the same form.
# CPython's marshal output depends on reference counts: writing version 2 (without references),
# reading that back and writing version 4 makes it a function of the code alone. The flags word 1
# says unchecked-hash (PEP 552), so that no time stamp is stored and none is looked at.
SCRIPT = r"""
import importlib.util, marshal, sys, warnings
warnings.simplefilter("ignore")
source, sink = sys.stdin.buffer, sys.stdout.buffer
while line := source.readline():
    path, _, size = line.rstrip(b"\n").rpartition(b"\0")
    text = source.read(int(size))
    try:
        code = compile(text, "/" + path.decode(), "exec", dont_inherit=True, optimize=0)
    except (SyntaxError, ValueError):
        continue  # templates and test data for other versions are in many wheels
    body = marshal.dumps(marshal.loads(marshal.dumps(code, 2)), 4)
    data = importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little")
    data += importlib.util.source_hash(text) + body
    sink.write(path + b"\0%d\n" % len(data) + data)
"""


# Part of the keys of what holds byte-code.
FORMAT = "pyc-1"
# Bytes of source for one process of the interpreter, and how many run at the same time: together
# they bound a build's memory. A process costs as much as 100 kB of source before it compiles any.
BATCH = 4 << 20
_turns = threading.BoundedSemaphore(2)


class Kept:
    """Byte-code by the path and the content of its source, in a temporary file."""

    def __init__(self) -> None:
        self._file: BinaryIO | None = None
        self._turn = threading.Lock()
        self._places: dict[bytes, tuple[int, int] | None] = {}

    def __contains__(self, source: bytes) -> bool:
        return source in self._places

    def add(self, source: bytes, data: bytes | None) -> None:
        """Keep the byte-code of a source; None where it does not compile."""
        with self._turn:
            if data is None:
                self._places[source] = None
                return
            if self._file is None:
                temporary = tempfile.TemporaryFile()  # noqa: SIM115 - the entries hold it open
                self._file = cast("BinaryIO", temporary)
            self._places[source] = self._file.seek(0, os.SEEK_END), len(data)
            self._file.write(data)
            self._file.flush()

    def entry(self, source: bytes, path: str) -> Entry | None:
        """Return the byte-code of a source as the file `path`; None where it does not compile."""
        place = self._places[source]
        if place is None:
            return None
        at, size = place
        content = partial(self._open, size, at)
        return Entry(path, "file", content=content, size=size)

    def _open(self, size: int, at: int) -> BinaryIO:
        assert self._file
        return io.BytesIO(os.pread(self._file.fileno(), size, at))


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python that compiles: what identifies it in a key, and a way to run it on a script.

    `run(script, stdin)` returns what the script printed. `python` is what it compiles for: what it
    makes does not depend on the processor. `kept` is what it has compiled that several layers hold.
    """

    key: str
    run: Callable[[str, bytes], bytes]
    python: Python = DEFAULT
    kept: Kept = field(default_factory=Kept, compare=False, repr=False)


def cache_path(path: str, python: Python = DEFAULT) -> str:
    """Return where `python` looks for the byte-code of `path` (PEP 3147)."""
    folder, _, name = path.rpartition("/")
    return f"{folder}/__pycache__/{name.removesuffix('.py')}.{python.cache_tag}.pyc"


def compile_sources(
    sources: Iterable[Entry], interpreter: Interpreter, kept: Kept | None = None
) -> Iterator[Entry]:
    """Yield the byte-code of each source that compiles, as an entry beside it.

    The output is the same on every machine for the same interpreter and sources. What `kept` has is
    not compiled again, and what is compiled is there afterwards; without one it is kept until the
    entries are gone.
    """
    from concurrent.futures import ThreadPoolExecutor  # logging costs time

    kept = kept or Kept()

    def compiled(batch: list[Entry]) -> list[Entry]:
        with _turns:
            found = {entry.path: _read(entry) for entry in batch}
            keys = {path: _key(path, data) for path, data in found.items()}
            new = {path: data for path, data in found.items() if keys[path] not in kept}
            records = (b"%b\0%d\n%b" % (p.encode(), len(d), d) for p, d in new.items())
            made = dict(_records(interpreter.run(SCRIPT, b"".join(records)))) if new else {}
            for path in new:
                kept.add(keys[path], made.get(path))
        places = ((cache_path(path, interpreter.python), key) for path, key in keys.items())
        entries = (kept.entry(key, path) for path, key in places)
        return [entry for entry in entries if entry]

    with ThreadPoolExecutor(2) as pool:
        for entries in pool.map(compiled, _batches(sources)):
            yield from entries


def checked(compiled: Entry) -> Entry:
    """Return byte-code that Python takes only while its source is as it was (PEP 552).

    So a layer above may bring another source of that name.
    """
    data = _read(compiled)
    return replace(compiled, content=data[:4] + (3).to_bytes(4, "little") + data[8:])


def _key(path: str, data: bytes) -> bytes:
    """Return what byte-code follows from: it holds the path of its source too."""
    return hashlib.sha256(b"%b\0%b" % (path.encode(), data)).digest()


def _read(entry: Entry) -> bytes:
    with entry.open() as stream:
        return stream.read()


def _batches(sources: Iterable[Entry]) -> Iterator[list[Entry]]:
    batch: list[Entry] = []
    size = 0
    for entry in sorted(sources, key=lambda source: source.path):
        batch.append(entry)
        size += entry.size if entry.size is not None else len(_read(entry))
        if size >= BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _records(output: bytes) -> Iterator[tuple[str, bytes]]:
    position = 0
    while position < len(output):
        end = output.index(b"\n", position)
        path, _, size = output[position:end].rpartition(b"\0")
        yield path.decode(), output[end + 1 : end + 1 + int(size)]
        position = end + 1 + int(size)
