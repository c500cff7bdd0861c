"""One plate of many: its control wells' tiles, on the workspace. `python3 -m prepare.controls`

The step is not taken from the backend's cache, as it says what lies in the claims: it hashes the
images that it would read, and keeps the tiles that the workspace has of the very same ones. A plate
that cannot be used is reported in their place, unless `on_broken` is `fail`.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from common import digest, plate, tiling, workspace
from common.errors import MachineError, StageError
from common.layout import Layout
from common.lock import lock
from common.many_plates import STATE, folder_of
from common.plate_list import ListedPlate, load_layout
from common.stage_io import StageIO, run_stage
from common.tiles import read_tiles

from prepare.cutting import spread
from prepare.plates import from_text
from prepare.scan import images_root
from prepare.stage import prepare_plate

REPORT, FAIL = "report", "fail"
FORMAT = 1


def control_tiles(task: StageIO) -> None:
    """Make a plate's tiles, or its problem, and put out its name and their digest.

    Raises StageError for a workspace that cannot be used, and for a plate that cannot, where that
    is asked for; MachineError for a full disk or too little memory.
    """
    listed = from_text(task.parameter("listed", str))
    on_broken = task.parameter("on_broken", str, REPORT)
    if on_broken not in {REPORT, FAIL}:
        raise StageError(f"on_broken is {on_broken!r}; give {REPORT} or {FAIL}")
    most = task.parameter("tiles_per_well", int, 0)
    if most < 0:
        raise StageError(f"tiles_per_well is {most}; give 0 for all, or a positive number")
    folder = folder_of(workspace.checked(task.parameter("workspace_name", str, "")), listed.plate)
    with lock(folder) as held:
        try:
            state = _state(listed, folder, most, task.parameter("fresh", str, ""))
        except MachineError:
            raise
        except StageError as error:
            problem = str(error).removeprefix(f"plate {listed.plate}: ")
            if on_broken == FAIL:
                raise StageError(f"plate {listed.plate}: {problem}") from None
            shutil.rmtree(folder, ignore_errors=True)
            state = {"format": FORMAT, "plate": listed.plate, "problem": problem}
        held.check()
        _write(folder, state)
    task.set_parameter("digest", handed(folder, listed.plate))
    print(f"plate {listed.plate}: {state['problem'] or 'ready'}", flush=True)


def handed(folder: Path, name: str) -> str:
    """Return what a plate's step hands on: its name, and half the digest of its state.

    Half of it, 128 bits, as all plates' must fit one argument (`common.plate_list.MOST_PLATES`).
    """
    return f"{name} {digest.file_sha256(folder / STATE)[:32]}"


def controls_of(layout: Layout, name: str) -> Layout:
    """Return the layout with its labelled wells only; raises StageError unless both kinds are."""
    wells = {key: well for key, well in layout.wells.items() if well.label is not None}
    for label, word in ((1, "positive"), (0, "negative")):
        if label not in {well.label for well in wells.values()}:
            raise StageError(
                f"plate {name}: the layout {layout.name} has no {word} control; a model cannot be "
                "trained or judged on this plate"
            )
    return replace(layout, wells=wells)


def _state(listed: ListedPlate, folder: Path, most: int, fresh: str) -> dict[str, Any]:
    """Return the plate's state, its tiles lying in `folder`; raises StageError."""
    layout = controls_of(load_layout(images_root(), listed), listed.plate)
    source = images_root() / listed.folder
    found = plate.match(source, layout)
    plate.check(found)
    across, down = layout.target or tiling.default_target(*layout.size)
    picks = spread(layout.fields, across // tiling.TILE * (down // tiling.TILE), most)
    found.images = {place: stack for place, stack in found.images.items() if place.field in picks}
    state = {
        "format": FORMAT, "plate": listed.plate, "problem": "", "images": plate.digest_of(found),
        "layout": layout.digest, "tiles_per_well": most, "fresh": fresh,
        "image": os.environ.get("PLATELINE_IMAGE", ""),
    }  # fmt: skip
    if _kept(folder, state):
        return {**state, "digest": digest.folder_digest(folder / "plate.json")}
    new = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    prepare_plate(source, layout, new, new / "summary.html", tiles_per_well=most, quiet=True)
    try:
        shutil.rmtree(folder, ignore_errors=True)
        new.rename(folder)
    except OSError as error:
        raise MachineError(f"cannot write {folder}: {error.strerror or error}") from None
    return {**state, "digest": digest.folder_digest(folder / "plate.json")}


def _kept(folder: Path, state: dict[str, Any]) -> bool:
    """Say whether the folder holds the tiles of this very state, whole."""
    try:
        there = json.loads((folder / STATE).read_text(encoding="utf-8"))
        same = {key: there.get(key) for key in state} == state
        return same and read_tiles(folder).digest == there["digest"]
    except (OSError, ValueError, KeyError, AttributeError, StageError):
        return False


def _write(folder: Path, state: dict[str, Any]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{STATE}.new"
        text = json.dumps(state, indent=1, sort_keys=True, ensure_ascii=False)
        temporary.write_text(text + "\n", encoding="utf-8")
        temporary.replace(folder / STATE)
    except OSError as error:
        raise MachineError(f"cannot write {folder}: {error.strerror or error}; make room") from None


if __name__ == "__main__":
    run_stage("prepare.controls", control_tiles)
