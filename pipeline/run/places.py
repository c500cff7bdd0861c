"""Where each name and path of a package lies on this machine: the one place that maps them."""

from __future__ import annotations

import errno
import hashlib
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from pipeline.run import beneath
from pipeline.run.beneath import Refused

INSIDE = "/kfp"  # of a container: each step's outputs are below /kfp/<step>
STORE_INSIDE = "/var/lib/plateline"
_LONGEST = 120  # of a folder's name in bytes; file systems take 255
_REMOTE = re.compile(r"(?!file:)[A-Za-z][A-Za-z0-9+.-]*://")
# What the sandbox makes itself, or what the run gives the step.
_RESERVED = ("/", "/proc", "/dev", "/sys", INSIDE, STORE_INSIDE)


def checked(name: str, what: str) -> str:
    """Return `name`, which becomes one part of a path; raises Refused that says `what` it is of."""
    if name.startswith(".") or "/" in name or not name.isprintable() or not name:
        raise Refused(
            f"the name {name!r} of {what} would leave its folder; a name has no /, no control "
            "character, and no dot at its begin"
        )
    return name


def folder_name(step: str) -> str:
    """Return the name of a step's folder: its own, or the begin of a long one and its digest."""
    checked(step, "a step")
    data = step.encode()
    if len(data) <= _LONGEST:
        return step
    begin = data[: _LONGEST - 20].decode(errors="ignore")
    return f"{begin}-{hashlib.sha256(data).hexdigest()[:16]}"


def step_folder(run: Path, step: str) -> Path:
    """Return the folder of a step in the folder of a run; its outputs are in `out/` below."""
    return run / "steps" / folder_name(step)


def outputs_inside(step: str) -> str:
    """Return where a container of `step` writes its outputs."""
    return f"{INSIDE}/{folder_name(step)}"


def artifact(run: Path, uri: str) -> tuple[Path, str] | None:
    """Return the output folder and the path below it of an artifact; None if no step made it.

    Raises Refused for a path that leads out of the step's folder.
    """
    path = uri.removeprefix("file://")
    if not path.startswith(f"{INSIDE}/"):
        return None
    step, _, name = path.removeprefix(f"{INSIDE}/").partition("/")
    beneath.parts(name)
    return run / "steps" / checked(step, "a step") / "out", name


def artifact_path(run: Path, uri: str, imports: Iterable[Path] = ()) -> Path | None:
    """Return where an artifact lies on this machine; None for one elsewhere, or not there.

    What an importer names must lie in a folder of `imports`. Raises Refused for a path that is not
    allowed, and where a link is on the way.
    """
    if is_remote(uri):
        return None
    root, name = artifact(run, uri) or imported(uri, imports)
    return root / name if beneath.kind(root, name) else None


def is_remote(uri: str) -> bool:
    """Tell whether `uri` leads to another machine, so that nothing of this one is read."""
    return bool(_REMOTE.match(uri))


def imported(uri: str, imports: Iterable[Path]) -> tuple[Path, str]:
    """Return the allowed folder and the path below it that an importer names.

    Raises Refused where no folder of `imports` holds it.
    """
    path = Path(uri.removeprefix("file://"))
    if path.is_absolute() and ".." not in path.parts:
        for folder in imports:
            for root in (folder.absolute(), folder.resolve()):
                if path != root and path.is_relative_to(root):
                    return root, path.relative_to(root).as_posix()
    raise Refused(
        f"it imports {uri}, a path of this machine that was not allowed; if the package may read "
        "it, give --allow-import with an absolute path of the folder around it"
    )


def reported(uri: str, step: str, inputs: Iterable[str]) -> str:
    """Return the URI that a step reports for its artifact in the place of the one it was given.

    It may be elsewhere below the step's own outputs, an input's own URI or below one, or on another
    machine. Raises Refused for any other: the next step would get that path of this machine.
    """
    if is_remote(uri):
        return uri
    path = uri.removeprefix("file://")
    for root in (outputs_inside(step), *inputs):
        if path == root and root in inputs:
            return path
        if path.startswith(f"{root}/"):
            beneath.parts(path.removeprefix(f"{root}/"))
            return path
    raise Refused(
        f"it reports an artifact at {uri}, which is not below its own outputs "
        f"({outputs_inside(step)}); write it there"
    )


def mount_point(path: str) -> str:
    """Return the path at which a package mounts something; raises Refused for a reserved one."""
    found = "/" + "/".join(part for part in path.split("/") if part)
    inner = found.split("/")
    if not path.startswith("/") or {".", ".."} & set(inner) or not path.isprintable():
        raise Refused(f"the mount path {path!r} must be absolute, without . and .. in it")
    if found in _RESERVED or found.startswith(tuple(f"{r}/" for r in _RESERVED if r != "/")):
        raise Refused(f"the mount path {path} is reserved; mount it elsewhere")
    return found


def in_claim(folder: Path, sub_path: str, claim: str, *, make: bool) -> Path:
    """Return the sub-path of a claim's folder; `make` makes it where it is missing.

    Raises Refused where it is not below the claim, passes through a link, or is missing.
    """
    if not sub_path:
        return folder
    try:
        if make:
            beneath.make_folder(folder, sub_path)
        there = beneath.kind(folder, sub_path)
    except Refused as error:
        raise Refused(
            f"the sub-path {sub_path!r} of the claim {claim} does not stay in it: {error}"
        ) from None
    if not there:
        raise Refused(f"the claim {claim} has no {sub_path!r} ({folder})")
    return folder / sub_path


def make_private(folder: Path) -> None:
    """Make a folder that only its owner may enter; one that is there is left as it is.

    Raises OSError where it cannot be made.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)


def advice(error: OSError) -> str:
    """Return what mends a failure to write."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "make room there"
    if error.errno == errno.ENAMETOOLONG:
        return "choose a shorter path with --runs DIR, or shorten the names in the pipeline"
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return "choose a folder that can be written with --runs DIR or PLATELINE_RUNS"
    return "see the system's message"
