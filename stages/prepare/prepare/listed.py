"""The steps of one plate of a list: scan it, prepare it. A plate that cannot be used is an answer.

One broken plate must not stop the others: unless `on_broken` is `fail`, the reason is handed on
instead, and takes the place of the tiles (`common.tiles.PROBLEM`).

`python3 -m prepare.listed`: prepares; the step `scan_plate` is `python3 -m prepare.listed_scan`.
"""

from __future__ import annotations

import shutil

from common import digest, plate
from common.errors import MachineError, StageError
from common.plate_list import ListedPlate, load_layout
from common.stage_io import StageIO, run_stage
from common.tiles import write_problem

from prepare.plates import from_text
from prepare.scan import check_plate, images_root
from prepare.stage import prepare_plate, print_progress

REPORT, FAIL = "report", "fail"


def scan(task: StageIO) -> None:
    """Put out the digests of the plate and its layout, or the problem that it has."""
    listed = from_text(task.parameter("listed", str))
    found = {"plate": "", "layout": "", "problem": ""}
    try:
        layout = load_layout(images_root(), listed)
        matched = plate.match(images_root() / listed.folder, layout)
        plate.check(matched, whole=False)
        found |= {"plate": plate.digest_of(matched), "layout": layout.digest}
    except MachineError:
        raise  # the next plate would fare no better
    except StageError as error:
        found["problem"] = _reported(task, listed, error)
    for name, value in found.items():
        task.set_parameter(name, value)
    print(f"scan: plate {listed.plate}: {found['problem'] or found['plate']}", flush=True)


def prepare(task: StageIO) -> None:
    """Cut the plate to tiles, or write the problem that it has in their place."""
    listed = from_text(task.parameter("listed", str))
    tiles = task.output("tiles")
    problem = task.parameter("problem", str, "")
    if not problem:
        try:
            _prepare(task, listed)
        except MachineError:
            raise
        except StageError as error:
            problem = _reported(task, listed, error)
    if problem:
        shutil.rmtree(tiles, ignore_errors=True)
        write_problem(tiles, problem)
        task.output("summary").write_text(
            "<!doctype html><meta charset=utf-8><p>The plate could not be used.</p>\n"
        )
        print(f"prepare: plate {listed.plate}: {problem}", flush=True)
        task.set_parameter("digest", digest.folder_digest(tiles))
    else:
        task.set_parameter("digest", digest.folder_digest(tiles / "plate.json"))


def _prepare(task: StageIO, listed: ListedPlate) -> None:
    layout = load_layout(images_root(), listed)
    check_plate(layout.digest, task.parameter("layout_digest", str, ""))
    prepare_plate(
        images_root() / listed.folder, layout, task.output("tiles"), task.output("summary"),
        expected=task.parameter("plate_digest", str, ""), whole=False, progress=print_progress,
    )  # fmt: skip


def _reported(task: StageIO, listed: ListedPlate, error: StageError) -> str:
    """Return the error's text, or raise it with the plate's name where broken plates stop a run."""
    chosen = task.parameter("on_broken", str, REPORT)
    if chosen not in {REPORT, FAIL}:
        raise StageError(f"on_broken = {chosen} is none of {REPORT}, {FAIL}") from None
    name = f"plate {listed.plate}: "
    if chosen == FAIL:
        raise StageError(name + str(error).removeprefix(name)) from None
    return str(error).removeprefix(name)


if __name__ == "__main__":
    run_stage("prepare.listed", prepare)
