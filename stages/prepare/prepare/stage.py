"""The prepare stage: a plate's images to tiles, an index and a summary."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from common import digest, plate, tiling
from common import layout as layouts
from common.errors import MachineError
from common.layout import Layout
from common.stage_io import StageIO
from common.tiles import CLASSES, Tile, write_index, write_plate
from common.workspace import with_checkpoint

from prepare.cutting import Field, cut_plate, spread
from prepare.quality import flags
from prepare.scan import check_plate, plate_folder
from prepare.summary import summary_html


def prepare(task: StageIO) -> None:
    """Run the stage as Kubeflow Pipelines asks."""

    def compute() -> None:
        folder = plate_folder(task)
        layout = layouts.load(task.parameter("plate_layout", str), folder)
        task.check_handed("layout_digest", layout.digest)
        document = prepare_plate(
            folder,
            layout,
            task.output("tiles"),
            task.output("summary"),
            expected=task.parameter("plate_digest", str, ""),
            whole=task.parameter("bad_images", str, "fail") != "flag",
            progress=print_progress,
        )
        task.set_parameter("folds", document["folds"])
        task.set_parameter("digest", digest.folder_digest(task.output("tiles") / "plate.json"))

    with_checkpoint(
        task, "prepare", restore=task.parameter("checkpoint", bool, default=False), compute=compute
    )


def print_progress(done: int, total: int) -> None:
    """Print, eight times a plate, how many wells are done."""
    if done % max(1, total // 8) == 0 or done == total:
        print(f"prepare: {done} of {total} wells", flush=True)


def prepare_plate(
    folder: Path,
    layout: Layout,
    tiles: Path,
    summary: Path,
    *,
    expected: str = "",
    whole: bool = True,
    tiles_per_well: int = 0,
    quiet: bool = False,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Write the tiles folder and the summary of the plate in `folder`; return plate.json.

    `expected` is the plate's digest where the run names one. Where the plate need not be `whole`,
    an image that is missing or cannot be read flags its field, whose tiles are black. Of a well at
    most `tiles_per_well` tiles are taken, where that is not 0. `quiet` says nothing of what the
    layout leaves out. Raises StageError for anything that cannot be used; `tiles` is then removed,
    so nothing half-written is taken for whole.
    """
    found = plate.match(folder, layout)
    plate.check(found, whole=whole)
    for note in () if quiet else found.notes:
        print(f"prepare: {note}", flush=True)
    try:
        tiles.mkdir(parents=True, exist_ok=True)
        fields, sha256, plate_digest = cut_plate(
            found, layout, tiles / "tiles.npy", tiles_per_well=tiles_per_well, whole=whole,
            workers=workers, progress=progress,
        )  # fmt: skip
        for one in fields:
            if one.problem:
                print(f"prepare: {one.flag}: {one.problem}", flush=True)
        check_plate(plate_digest, expected)
        document = _write(tiles, found, layout, fields, sha256, plate_digest, tiles_per_well)
        summary.write_text(summary_html(layout, document, fields), encoding="utf-8")
    except OSError as error:
        shutil.rmtree(tiles, ignore_errors=True)
        raise MachineError(f"cannot write {tiles}: {error.strerror or error}; make room") from None
    except BaseException:
        shutil.rmtree(tiles, ignore_errors=True)
        raise
    return document


def _write(
    tiles: Path,
    found: plate.Plate,
    layout: Layout,
    fields: list[Field],
    sha256: str,
    plate_digest: str,
    most: int,
) -> dict[str, Any]:
    marks = flags([field.quality for field in fields])
    across, down = (n // tiling.TILE for n in layout.target or tiling.default_target(*layout.size))
    picks = spread(layout.fields, across * down, most)
    index: list[Tile] = []
    by_well: dict[str, dict[str, Any]] = {}
    for field, seen in zip(fields, marks, strict=True):
        mark = field.flag or seen  # a black picture is not blank but not there
        well = layout.wells[field.well]
        entry = by_well.setdefault(
            well.name, {"well": well.name, **asdict(well), "flags": "", "fields": []}
        )
        entry["flags"] = " ".join(sorted({*entry["flags"].split(), *mark.split()}))
        entry["fields"].append({"field": field.field, "flags": mark, **asdict(field.quality)})
        index += [
            Tile(
                well=well.name,
                row=well.row,
                column=well.column,
                field=field.field,
                y=y,
                x=x,
                compound=well.compound,
                dose=well.dose,
                unit=well.unit,
                role=well.role,
                fold=well.fold,
                label=well.label,
                flags=mark,
            )
            for y, x in (divmod(place, across) for place in picks[field.field])
        ]
    for entry in by_well.values():
        del entry["name"]
    write_index(tiles / "tiles.csv", index)
    document = {
        "layout": {
            "name": layout.name,
            "title": layout.title,
            "source": layout.source,
            "digest": layout.digest,
            "rows": layout.rows,
            "columns": layout.columns,
            "size": list(layout.size),
            "target": [across * tiling.TILE, down * tiling.TILE],
            "fields": layout.fields,
            "bits": layout.bits,
            "channels": dict(layout.channels),
        },
        "plate_digest": plate_digest,
        "folds": list(layout.folds),
        "classes": list(CLASSES),
        "tile": tiling.TILE,
        "pixel_size": found.pixel_size,
        "wells": list(by_well.values()),
        "files": {
            "tiles.npy": sha256,
            "tiles.csv": digest.file_sha256(tiles / "tiles.csv"),
        },
    }
    write_plate(tiles, document)
    return document
