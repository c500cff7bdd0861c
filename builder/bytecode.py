"""Byte-code, compiled by an image's own interpreter and made canonical."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

# Runs inside the image. Reads `path NUL size NEWLINE source` records, writes such of .pyc files.
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


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python that compiles: what identifies it in a key, and a way to run it on a script.

    `run(script, stdin)` returns what the script printed.
    """

    key: str
    run: Callable[[str, bytes], bytes]


def cache_path(path: str) -> str:
    """Return where CPython 3.13 looks for the byte-code of `path` (PEP 3147)."""
    folder, _, name = path.rpartition("/")
    return f"{folder}/__pycache__/{name.removesuffix('.py')}.cpython-313.pyc"


def compile_sources(sources: Mapping[str, bytes], interpreter: Interpreter) -> dict[str, bytes]:
    """Return path -> .pyc for each source that compiles; paths are those inside the image.

    The output is the same on every machine for the same interpreter and sources.
    """
    records = b"".join(
        path.encode() + b"\0%d\n" % len(text) + text for path, text in sorted(sources.items())
    )
    if not records:
        return {}
    output = interpreter.run(SCRIPT, records)
    compiled, position = {}, 0
    while position < len(output):
        end = output.index(b"\n", position)
        path, _, size = output[position:end].rpartition(b"\0")
        compiled[path.decode()] = output[end + 1 : end + 1 + int(size)]
        position = end + 1 + int(size)
    return compiled
