"""An sdist made into a wheel in an image, without network: PEP 517."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import tempfile
from collections.abc import Sequence
from pathlib import Path

from builder import oci
from builder.errors import BuilderError
from builder.packages.python import DEFAULT, Python
from builder.sandbox.engines import choose
from builder.sandbox.process import Mount, Process, run
from builder.store import Store

_TMP = "/tmp"  # noqa: S108 - the sandbox's own
SECONDS, MEMORY, BYTES = 600.0, 2 << 30, 1 << 28
_COMPILER = "name a target that has a compiler in sdists.in: `image TARGET`"
_FITS = r"[^-]+-[^-]+(-[^-]+)?-(cp3\d*-abi3|{tag}-{tag})-linux_{machine}\.whl"
_SCRIPT = r"""
import importlib, os, sys, tarfile, zipfile
sdist, backend, folder = sys.argv[1:4]
os.umask(0o022)
for path in sys.argv[4:]:
    zipfile.ZipFile(path).extractall("/tmp/requires")
with tarfile.open(sdist) as archive:
    archive.extractall(folder, filter="data")
os.chdir(os.path.join(folder, os.listdir(folder)[0]))
sys.path.insert(0, "/tmp/requires")
name, _, inner = backend.partition(":")
hooks = importlib.import_module(name)
for part in filter(None, inner.split(".")):
    hooks = getattr(hooks, part)
more = getattr(hooks, "get_requires_for_build_wheel", lambda _: [])({})
from importlib.metadata import PackageNotFoundError, version
import re
for line in more:
    try:
        version(re.match(r"[A-Za-z0-9._-]+", line)[0])
    except PackageNotFoundError:
        sys.exit(f"it asks for {line} while it is built, which its build-system.requires lacks")
hooks.build_wheel("/out", {})
"""


def build(
    store: Store, image: oci.Image, sdist: Path, backend: str, requires: Sequence[Path], place: str,
    *, compiler: bool = False, python: Python = DEFAULT,
) -> tuple[str, bytes]:  # fmt: skip
    """Return name and content of the wheel that `sdist` makes in the folder /tmp/`place`.

    With a `compiler` in the image, the wheel may be one of machine code for `python`, the image's.
    Raises BuilderError where it does not build, wants more than it may have, or makes another.
    """
    names = [f"/in/{path.name}" for path in requires]
    # What is compiled must not know the folder; Debian's Python asks for symbols (-g).
    flags = f"-g0 -ffile-prefix-map={_TMP}/{place}=."
    user = "65532:65532" if os.geteuid() == 0 else f"{os.getuid()}:{os.getgid()}"
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as output:
        out = Path(folder, "out")
        out.mkdir()
        out.chmod(0o777)
        Path(folder).chmod(0o755)
        process = Process(
            image=image,
            command=("/usr/bin/python3", "-s", "-P", "-B", "-c", _SCRIPT,
                     f"/in/{sdist.name}", backend, f"{_TMP}/{place}", *names),
            env={"PYTHONHASHSEED": "0", "SOURCE_DATE_EPOCH": "1577836800", "TZ": "UTC",
                 "LC_ALL": "C.UTF-8", "HOME": _TMP, "PYTHONPATH": "", "OMP_NUM_THREADS": "1",
                 "CFLAGS": flags, "CXXFLAGS": flags},
            mounts=(*(Mount(p, f"/in/{p.name}") for p in (sdist, *requires)),
                    Mount(out, "/out", writable=True)),
            user=user, workdir="/", timeout=SECONDS, memory=MEMORY,
        )  # fmt: skip
        ended = run(choose("auto", store), process, output)
        if ended.code:
            output.seek(0)
            words = output.read()[-2000:].decode(errors="replace").strip().splitlines()[-1:]
            raise BuilderError(
                f"{sdist.name} does not build without network{'' if compiler else ' and compiler'} "
                f"({ended}): {' '.join(words)}; ask for a version that has a wheel"
                + ("" if compiler else f", or {_COMPILER}")
            )
        return _only_wheel(out, sdist.name, python, compiler=compiler)


def is_pure(wheel: str) -> bool:
    """Tell whether a wheel is one of Python alone, by its name."""
    return wheel.endswith("-none-any.whl")


def _only_wheel(out: Path, sdist: str, python: Python, *, compiler: bool) -> tuple[str, bytes]:
    found = list(out.iterdir())
    if len(found) != 1 or not stat.S_ISREG(found[0].lstat().st_mode):
        raise BuilderError(f"{sdist} left no single file as its wheel; it is not taken")
    name = found[0].name
    if not is_pure(name) and not compiler:
        raise BuilderError(
            f"{sdist} makes {name!r}, which is no wheel of Python alone; ask for a version that "
            f"has a wheel, or {_COMPILER}"
        )
    fits = _FITS.format(tag=python.tag, machine=python.platform.machine)
    if not is_pure(name) and not re.fullmatch(fits, name):
        raise BuilderError(f"{sdist} makes {name!r}, which is no wheel for {python.where}")
    if found[0].lstat().st_size > BYTES:
        raise BuilderError(f"{sdist} makes a wheel of more than {BYTES >> 20} MiB; it is not taken")
    return name, found[0].read_bytes()


def sha256(content: bytes) -> str:
    """Return the hash that a lock holds of a wheel."""
    return hashlib.sha256(content).hexdigest()
