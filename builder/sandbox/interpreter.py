"""An image's own Python, run on a script: how byte-code is compiled."""

from __future__ import annotations

import tempfile

from builder import oci
from builder.errors import BuilderError
from builder.sandbox.bubblewrap import Bubblewrap
from builder.sandbox.process import Process, run
from builder.store import Store


def run_python(store: Store, image: oci.Image, script: str, stdin: bytes) -> bytes:
    """Run `script` by the image's python3 without network and return what it printed.

    Raises BuilderError with its last words where it fails.
    """
    process = Process(
        image=image,
        command=("/usr/bin/python3", "-I", "-S", "-B", "-c", script),
        env={"PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8", "PATH": "/usr/bin"},
        user="65532:65532",
        workdir="/",
    )
    with tempfile.TemporaryFile() as output:
        ended = run(Bubblewrap(store), process, output, stdin)
        output.seek(0)
        data = output.read()
    if ended.code:
        words = data.decode(errors="replace").strip().splitlines()[-1:]
        raise BuilderError(
            f"compiling byte-code by the image {image.digest[:19]} ended with {ended}: {words}"
        )
    return data
