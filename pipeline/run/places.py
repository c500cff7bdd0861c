"""Where each name and path of a package lies on this machine: the one place that maps them.

What they may be is the grammar of `pipeline.spec.names`; here nothing is read through a link.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.run import beneath
from pipeline.run.beneath import Refused
from pipeline.spec import names

STORE_INSIDE = "/var/lib/plateline"
_LONGEST = 120  # of a folder's name in bytes; file systems take 255


@contextmanager
def _grammar() -> Iterator[None]:
    """Turn what the grammar does not allow into Refused: trying again does not mend it."""
    try:
        yield
    except PipelineError as error:
        raise Refused(str(error)) from None


def checked(name: str, what: str) -> str:
    """Return `name`, which becomes one part of a path; raises Refused that says `what` it is of."""
    with _grammar():
        return names.key(what, name)


def folder_name(step: str) -> str:
    """Return the name of a step's folder: its own, or the begin of a long one and its digest.

    Dots join the names of the tasks around a step to its own.
    """
    for part in step.split("."):
        checked(part, "the task")
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
    return f"{names.KFP}{folder_name(step)}"


def artifact(run: Path, uri: str) -> tuple[Path, str] | None:
    """Return the output folder of a step and the path below it of an artifact; None if elsewhere.

    Raises Refused for another path of this machine, and for one that leads out of the folder.
    """
    with _grammar():
        found = names.place(uri)
    if found is None:
        return None
    step, path = found
    return step_folder(run, step) / "out", "/".join(path)


def artifact_path(run: Path, uri: str) -> Path | None:
    """Return where an artifact lies on this machine; None for one elsewhere, or not there.

    Raises Refused for a path that is not allowed, and where a link is on the way.
    """
    found = artifact(run, uri)
    return found[0] / found[1] if found and beneath.kind(*found) else None


def reported(uri: str, step: str, inputs: Iterable[str]) -> str:
    """Return the URI that a step reports for its artifact in the place of the one it was given.

    It may be elsewhere below the step's own outputs, an input's own URI or below one, or on another
    machine. Raises Refused for any other: the next step would get that path of this machine.
    """
    with _grammar():
        if names.place(uri) is None:
            return uri
    path = uri.removeprefix("file://")
    if path in inputs or path.startswith((f"{outputs_inside(step)}/", *(f"{i}/" for i in inputs))):
        return path
    raise Refused(
        f"it reports an artifact at {uri!r}, which is not below its own outputs "
        f"({outputs_inside(step)}); write it there"
    )


def mount_point(path: str) -> str:
    """Return the path at which a package mounts something; raises Refused for a reserved one."""
    with _grammar():
        return names.mount_path(path)


def in_claim(folder: Path, sub_path: str, claim: str, *, make: bool) -> Path:
    """Return the sub-path of a claim's folder; `make` makes it where it is missing.

    Raises Refused where it is not below the claim, passes through a link, or is missing.
    """
    with _grammar():
        path = "/".join(names.sub_path(sub_path))
    if not path:
        return folder
    try:
        if make:
            beneath.make_folder(folder, path)
        there = beneath.kind(folder, path)
    except Refused as error:
        raise Refused(
            f"the subPath {sub_path!r} of the claim {claim} does not stay in it: {error}"
        ) from None
    if not there:
        raise Refused(f"the claim {claim} has no {sub_path!r} ({folder})")
    return folder / path


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
