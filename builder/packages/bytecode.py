"""Byte-code, compiled by an image's own interpreter and made canonical."""

from __future__ import annotations

import io
import os
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

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
# they bound a build's memory.
BATCH = 2 << 20
_turns = threading.BoundedSemaphore(2)


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python that compiles: what identifies it in a key, and a way to run it on a script.

    `run(script, stdin)` returns what the script printed. `python` is what it compiles for: what it
    makes does not depend on the processor.
    """

    key: str
    run: Callable[[str, bytes], bytes]
    python: Python = DEFAULT


def cache_path(path: str, python: Python = DEFAULT) -> str:
    """Return where `python` looks for the byte-code of `path` (PEP 3147)."""
    folder, _, name = path.rpartition("/")
    return f"{folder}/__pycache__/{name.removesuffix('.py')}.{python.cache_tag}.pyc"


def compile_sources(sources: Iterable[Entry], interpreter: Interpreter) -> Iterator[Entry]:
    """Yield the byte-code of each source that compiles, as an entry beside it.

    The output is the same on every machine for the same interpreter and sources. It is kept in a
    temporary file until it is read, not in memory.
    """
    from concurrent.futures import ThreadPoolExecutor  # logging costs time

    kept = tempfile.TemporaryFile()  # noqa: SIM115 - the entries hold it open

    def compiled(batch: list[Entry]) -> list[tuple[str, bytes]]:
        with _turns:
            records = (b"%b\0%d\n%b" % (e.path.encode(), len(d := _read(e)), d) for e in batch)
            return list(_records(interpreter.run(SCRIPT, b"".join(records))))

    def reader(offset: int, size: int) -> Callable[[], BinaryIO]:
        return lambda: io.BytesIO(os.pread(kept.fileno(), size, offset))

    with ThreadPoolExecutor(2) as pool:
        for records in pool.map(compiled, _batches(sources)):
            for path, data in records:
                content = reader(kept.tell(), len(data))
                kept.write(data)
                where = cache_path(path, interpreter.python)
                yield Entry(where, "file", content=content, size=len(data))
    kept.flush()


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
