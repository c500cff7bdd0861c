"""An image's Python, run on a script: how byte-code is compiled.

The Python of pinned Debian packages needs no namespace: its own loader starts it out of a folder
into which nothing but these packages was unpacked, each checked by its hash. A Python of anybody
else's image is a program of strangers, so it runs in bubblewrap or not at all.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from builder import oci
from builder.errors import BuilderError
from builder.packages.python import DEFAULT, HOME, Python
from builder.sandbox.process import Process, run
from builder.store import Store

_ENVIRON = {
    "PYTHONHASHSEED": "0",
    # The mathematics that folds constants picks its code by processor unless told not to:
    # https://sourceware.org/glibc/manual/2.41/html_node/Hardware-Capability-Tunables.html
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX,-AVX2,-AVX512F,-FMA,-FMA4",
}
# Ends the interpreter where a file of the host was mapped into it: by /etc/ld.so.preload, or for
# want of a library among the packages. A chroot without /proc has nothing to be asked.
_GUARD = """
import os, sys
own = os.getcwd().rstrip("/") + "/"
files = [os.path.abspath(path) for path in sys.path]
try:
    with open("/proc/self/maps", "rb") as maps:
        words = [line.split(None, 5)[5:] for line in maps]
    files += [os.fsdecode(word[0].strip()) for word in words if word and word[0][:1] == b"/"]
except OSError:
    pass
for path in files:
    if not path.startswith(own):
        sys.exit(f"{path} of this machine was loaded into it")
"""


def run_pinned(root: Path, script: str, stdin: bytes, python: Python = DEFAULT) -> bytes:
    """Run `script` by `python` of the Debian packages in the folder `root`; return its output.

    All paths are below `root`, which is the current folder, and nothing of this process's
    environment is passed on. Raises BuilderError with its last words where it fails.
    """
    loader, libraries = python.loading(root)
    command = [
        f"./{loader}", "--inhibit-cache", "--library-path", libraries,
        "--argv0", python.program, python.program, "-S", "-s", "-P", "-B", "-X", "utf8",
        "-c", _GUARD + script,
    ]  # fmt: skip
    env = _ENVIRON | {"PYTHONHOME": HOME, "LC_ALL": "C", "PATH": ""}
    try:
        done = subprocess.run(
            command, input=stdin, capture_output=True, check=False, cwd=root, env=env
        )
    except OSError as error:
        raise BuilderError(
            f"the Python of the Debian packages in {root} cannot be run ({error.strerror}); "
            "it needs an x86-64 Linux and a file system that is not mounted noexec: point "
            "PLATELINE_STORE at another one"
        ) from None
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise BuilderError(
            f"compiling byte-code by the Python of the Debian packages in {root} ended with exit "
            f"code {done.returncode}: {' '.join(words)}"
        )
    return done.stdout


def _same_version(python: Python) -> str:
    """Return what ends an interpreter that is not `python`; wheels were chosen for that one."""
    return f"""
import sys
found = "%d.%d" % sys.version_info[:2]
if found != "{python.version}":
    sys.exit("its python3 is " + found + ", and wheels are for {python.version}: say which it is "
             "by ENV PYTHON_VERSION before COPY --from=wheels")
"""


def run_python(
    store: Store, image: oci.Image, script: str, stdin: bytes, python: Python = DEFAULT
) -> bytes:
    """Run `script` by the image's python3 in bubblewrap, without network; return its output.

    It is the first that the image's PATH leads to. Raises BuilderError with its last words where it
    fails, and where it is not the version of `python`.
    """
    from builder.sandbox.bubblewrap import Bubblewrap  # not needed for the Python of packages

    process = Process(
        image=image,
        command=("python3", "-I", "-S", "-B", "-c", _same_version(python) + script),
        env={**_ENVIRON, "LC_ALL": "C.UTF-8"},
        user="65532:65532",
        workdir="/",
    )
    with tempfile.TemporaryFile() as output:
        ended = run(Bubblewrap(store), process, output, stdin)
        output.seek(0)
        data = output.read()
    if ended.code:
        words = " ".join(data.decode(errors="replace").strip().splitlines()[-1:])
        if words.startswith("bwrap: ") and "execvp" not in words:
            raise BuilderError(
                f"the image {image.digest[:19]} brings a Python of its own, which compiles only "
                f"isolated, and nothing can be isolated here ({words}); build where user "
                "namespaces are allowed, or take Python from Debian packages: begin the recipe "
                "with `FROM base`, or with `FROM scratch` and `COPY --from=debian / /`"
            )
        raise BuilderError(
            f"compiling byte-code by the image {image.digest[:19]} ended with {ended}: {words}"
        )
    return data
