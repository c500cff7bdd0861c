"""Wheels by pip, as the host has it configured: which fit the images, and their download."""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from builder.errors import BuilderError
from builder.packages.download import keep, sha256_file
from builder.packages.python import DEFAULT, Python
from builder.platform import AMD64

# Runs pip so that a requirement's conditions (PEP 508) are about the image, not this machine: its
# own options choose the files alone. https://github.com/pypa/pip/issues/11664
_ELSEWHERE = """
import json, sys
from pip._vendor.packaging import markers
found = json.loads(sys.argv.pop(1))
markers.default_environment = lambda: dict(found)
from pip._internal.cli.main import main
sys.exit(main())
"""


class Pinned(Protocol):
    """What identifies a wheel."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def sha256(self) -> str: ...


_UNREACHED = re.compile(r"after connection broken by '(.+?)'?: /")


def platforms(python: Python = DEFAULT) -> list[str]:
    """Return what wheels that run where `python` does are tagged with, the newest glibc first.

    A wheel for any older one fits. PEP 600 and, for the names of before, PEP 599, 571 and 513, of
    which only the first knows other processors.
    """
    machine, older = python.platform.machine, ("manylinux2010", "manylinux1")
    named = ("manylinux2014", *(older if python.platform == AMD64 else ()))
    return [
        *(f"manylinux_2_{minor}_{machine}" for minor in range(python.glibc, 4, -1)),
        *(f"{name}_{machine}" for name in named),
        f"linux_{machine}",
    ]


def choosing(python: Python) -> list[str]:
    """Return pip's options that choose wheels for the image instead of for this machine."""
    options = ["--only-binary=:all:", "--implementation=cp", f"--python-version={python.version}"]
    options += [f"--abi={abi}" for abi in (python.tag, "abi3", "none")]
    return options + [f"--platform={name}" for name in platforms(python)]


def environment(python: Python) -> dict[str, str]:
    """Return what a requirement's conditions are about: PEP 508, Environment Markers.

    The third number of the version is not known before an image is built, so it is 0.
    """
    return {
        "implementation_name": "cpython", "implementation_version": f"{python.version}.0",
        "os_name": "posix", "platform_machine": python.platform.machine, "platform_release": "",
        "platform_python_implementation": "CPython", "platform_system": "Linux",
        "platform_version": "", "python_full_version": f"{python.version}.0",
        "python_version": python.version, "sys_platform": "linux",
    }  # fmt: skip


def run(arguments: Sequence[str], what: str, python: Python | None = None) -> str:
    """Run pip as the host has it configured and return what it printed.

    With `python` conditions of requirements are about that one, not about this. Raises BuilderError
    with pip's last words.
    """
    import subprocess

    start = ["-c", _ELSEWHERE, json.dumps(environment(python))] if python else ["-m", "pip"]
    command = [sys.executable, *start, "--disable-pip-version-check", "--quiet", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        if unreached := _UNREACHED.search(done.stderr):
            # pip then says that there is no such version, which it cannot know.
            raise BuilderError(
                f"{what} failed: the package index cannot be reached ({unreached[1][:200]}); check "
                "the network and pip's own settings (`pip config list`)"
            )
        if lacking := re.search(r"No matching distribution found for (.+)", done.stderr):
            errors.insert(
                0,
                f"{lacking[1]} has no wheel for {python or DEFAULT}, and sdists "
                "are not taken unless sdists.in names them; ask for a version that has a wheel, or "
                "write `name==version` into sdists.in beside requirements.in. pip says:",
            )
        if wrong := re.findall(r"^    (\S+==\S+)(?: from .*)?:$", done.stderr, re.MULTILINE):
            names = ", ".join(wrong)
            reason = (
                f"{names} is not the file whose hash the lock holds; if nobody changed the lock"
            )
            errors = [f"{reason}, do not trust that index; otherwise run `invoke lock`"]
        reason = " ".join(errors or done.stderr.strip().splitlines()[-2:])
        raise BuilderError(f"{what} failed: {reason}")
    return done.stdout


def fetch(wheels: Sequence[Pinned], cache: Path, lock: str, python: Python = DEFAULT) -> list[Path]:
    """Return where the wheels are, those that are missing downloaded by pip and checked."""
    found = {wheel.sha256: next((cache / wheel.sha256).glob("*.whl"), None) for wheel in wheels}
    missing = [
        wheel
        for wheel in wheels
        if (path := found[wheel.sha256]) is None or sha256_file(path) != wheel.sha256
    ]
    if missing:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as name:
            folder = Path(name)
            lines = [f"{w.name}=={w.version} --hash=sha256:{w.sha256}\n" for w in missing]
            (folder / "requirements.txt").write_text("".join(lines))
            run(
                ["download", "--no-deps", "--require-hashes", *choosing(python),
                 "-d", name, "-r", str(folder / "requirements.txt")],
                f"downloading the wheels of {lock}",
            )  # fmt: skip
            for path in folder.glob("*.whl"):
                sha256 = sha256_file(path)
                keep(path, sha256, cache / sha256 / path.name, "pip")
                found[sha256] = cache / sha256 / path.name
    paths = [found[wheel.sha256] for wheel in wheels]
    assert all(paths)
    return [path for path in paths if path]
