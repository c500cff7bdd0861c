"""The NVIDIA GPUs of this machine: which device nodes and files of the driver CUDA needs inside.

The program in the image brings CUDA itself; only the driver's own libraries must be those of the
machine's kernel. What they are: nvc_info.c of NVIDIA's libnvidia-container, `compute` and `utility`
(https://github.com/NVIDIA/libnvidia-container/blob/v1.17.8/src/nvc_info.c).
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from builder.errors import BuilderError

LIBRARIES = "/usr/local/nvidia/lib64"  # where the driver's libraries are seen inside
_NODE = re.compile(r"nvidia([0-9]+|ctl|-uvm|-uvm-tools)")
_NEEDED = ("nvidiactl", "nvidia-uvm")  # beside one GPU at least
_LIBRARY = re.compile(
    r"lib(cuda|nvidia-ml|nvidia-cfg|nvidia-ptxjitcompiler|nvidia-nvvm|nvidia-gpucomp)\.so\.[0-9]+"
)
_CUDA = "libcuda.so.1"
# A line of `ldconfig -p`: name (kind,machine, …) => path.
_CACHED = re.compile(r"^\s+(\S+) \(([^)]*)\) => (\S+)$", re.MULTILINE)
_MACHINE = "x86-64"  # as ldconfig calls the one whose images are run
_VERSION = re.compile(r"(?m)^NVRM version:.*?\s([0-9]+(?:\.[0-9]+)+)\s")


@dataclass(frozen=True, slots=True)
class Gpus:
    """What a process gets: device nodes and libraries, each by its path inside -> that outside.

    Both are empty for an engine that finds them by itself. `driver` is the driver's version.
    """

    devices: Mapping[str, Path]
    libraries: Mapping[str, Path]
    driver: str = ""

    def __str__(self) -> str:
        count = sum(name.removeprefix("/dev/nvidia").isdigit() for name in self.devices)
        return f"{count} with the driver {self.driver or 'of an unknown version'}"


def nodes(names: Iterable[str]) -> list[str]:
    """Return those of the `names` in /dev that CUDA opens, sorted; pure.

    >>> nodes(["null", "nvidia0", "nvidiactl", "nvidia-uvm", "nvidia-modeset"])
    ['nvidia-uvm', 'nvidia0', 'nvidiactl']
    """
    return sorted(name for name in names if _NODE.fullmatch(name))


def libraries(listing: str) -> dict[str, str]:
    """Return the driver's libraries in what `ldconfig -p` prints, name -> path; pure.

    Of several of one name the loader takes the first. Those of another processor are left out.
    """
    found: dict[str, str] = {}
    for name, kind, path in _CACHED.findall(listing):
        if _LIBRARY.fullmatch(name) and _MACHINE in kind.split(","):
            found.setdefault(name, path)
    return found


def lacking(there: Iterable[str], found: Iterable[str]) -> str:
    """Return what a machine with these `nodes` and `libraries` lacks, '' for nothing; pure."""
    there = list(there)
    if not any(name.removeprefix("nvidia").isdigit() for name in there):
        return "there is no device /dev/nvidia0"
    if absent := [f"/dev/{name}" for name in _NEEDED if name not in there]:
        return f"there is no {' and no '.join(absent)} (`nvidia-modprobe -u -c 0` makes them)"
    if _CUDA not in found:
        return f"`ldconfig -p` knows no {_CUDA}, which the driver brings"
    return ""


def _listing() -> str:
    """Return what the loader of this machine finds, as `ldconfig -p` lists it."""
    try:
        done = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout


def find(root: Path = Path("/"), listing: Callable[[], str] = _listing) -> Gpus:
    """Return the GPUs of the machine below `root`; raises BuilderError that says what it lacks."""
    there = nodes(path.name for path in (root / "dev").iterdir())
    found = libraries(listing()) if there else {}
    if lack := lacking(there, found):
        raise BuilderError(
            f"this machine has no NVIDIA GPU that can be used: {lack}; install the driver "
            "(`nvidia-smi` must list the GPU), or leave out --gpus to compute on the processor"
        )
    version = root / "proc/driver/nvidia/version"
    said = _VERSION.search(version.read_text()) if version.exists() else None
    return Gpus(
        {f"/dev/{name}": root / "dev" / name for name in there},
        {f"{LIBRARIES}/{name}": root / path.lstrip("/") for name, path in found.items()},
        said[1] if said else "",
    )
