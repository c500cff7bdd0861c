"""Wheels by pip, as the host has it configured: which fit the images, and their download."""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from builder.errors import BuilderError
from builder.packages import python
from builder.packages.download import keep, sha256_file

# Debian trixie has glibc 2.41; a wheel for any older one fits.
PLATFORMS = (
    *(f"manylinux_2_{minor}_x86_64" for minor in range(41, 4, -1)),
    *("manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64", "linux_x86_64"),
)


class Pinned(Protocol):
    """What identifies a wheel."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def sha256(self) -> str: ...


_UNREACHED = re.compile(r"after connection broken by '(.+?)'?: /")


def platform() -> list[str]:
    """Return pip's options that choose wheels for the image instead of for this machine."""
    options = ["--only-binary=:all:", "--implementation=cp", f"--python-version={python.VERSION}"]
    options += [f"--abi={abi}" for abi in (python.TAG, "abi3", "none")]
    return options + [f"--platform={name}" for name in PLATFORMS]


def run(arguments: Sequence[str], what: str) -> str:
    """Run pip as the host has it configured and return what it printed.

    Raises BuilderError with pip's last words.
    """
    import subprocess

    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments]
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
                f"{lacking[1]} has no wheel for Python {python.VERSION} on linux-amd64, and sdists "
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


def fetch(wheels: Sequence[Pinned], cache: Path, lock: str) -> list[Path]:
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
                ["download", "--no-deps", "--require-hashes", *platform(),
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
