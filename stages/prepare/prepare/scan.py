"""The first step of a run: digests of what later steps take from claims. `python3 -m prepare.scan`

It is never taken from a cache, and reads files without decoding them, so it takes seconds; what
comes after it is cached by what it says.
"""

from __future__ import annotations

import os
from pathlib import Path

from common import layout, plate, workspace
from common.errors import StageError
from common.stage_io import StageIO, run_stage

_STAGES = ("prepare", "train", "validate")


def images_root() -> Path:
    """Return where the volume with the plates is mounted."""
    return Path(os.environ.get("PLATELINE_IMAGES", "/mnt/images"))


def plate_folder(task: StageIO) -> Path:
    """Return the folder of the plate that `task` names; raises StageError where there is none."""
    given = task.parameter("plate_path", str, "")
    folder = images_root() / given.lstrip("/")
    if not folder.is_dir():
        raise StageError(
            f"plate_path = {given!r} is no folder on the volume of the plates; give the path "
            "of the plate's folder there"
        )
    return folder


def scan(task: StageIO) -> None:
    """Put out the digests of the plate, of its layout, and of the checkpoints to be taken.

    Raises StageError for a plate that does not fit its layout, or is not the one that
    `plate_digest` names.
    """
    folder = plate_folder(task)
    known = layout.load(task.parameter("plate_layout", str), folder)
    found = plate.match(folder, known)
    plate.check(found, whole=task.parameter("bad_images", str, "fail") != "flag")
    plate_digest = plate.digest_of(found)
    check_plate(plate_digest, task.parameter("plate_digest", str, ""))
    wanted = [s for s in _STAGES if task.parameter(f"checkpoint_{s}", bool, default=False)]
    checkpoints = workspace.saved(task.parameter("workspace_name", str, ""), wanted)
    task.set_parameter("plate", plate_digest)
    task.set_parameter("layout", known.digest)
    task.set_parameter("checkpoints", checkpoints)
    print(f"scan: {len(found.images)} images, the plate is {plate_digest}", flush=True)


def check_plate(found: str, expected: str) -> None:
    """Raise StageError unless the plate has the digest that the run asks for, if it asks."""
    if expected and found != expected:
        raise StageError(
            f"the plate has the digest {found}, the run asks for {expected}; "
            "an image was changed, or plate_digest belongs to another plate"
        )


if __name__ == "__main__":
    run_stage("prepare.scan", scan)
