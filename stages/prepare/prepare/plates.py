"""The first step of a screen: which plates there are. `python3 -m prepare.plates`

It is never taken from a cache. What it puts out is as long as the list of plates, and nothing else
of a run grows with their number. No image is read here: that is each plate's own step `scan`.
"""

from __future__ import annotations

import json
from dataclasses import asdict

from common.plate_list import ListedPlate, read_plates
from common.stage_io import StageIO, run_stage

from prepare.scan import images_root


def plates(task: StageIO) -> None:
    """Put out the listed plates, each as a JSON text. Raises StageError for an unclear list."""
    given, layout = task.parameter("plates", str), task.parameter("plate_layout", str, "")
    found = read_plates(images_root(), given, layout)
    task.set_parameter("listed", [as_text(one) for one in found])
    print(f"plates: {len(found)} plates", flush=True)


def as_text(plate: ListedPlate) -> str:
    """Return a listed plate as the text that the steps of one plate are handed."""
    return json.dumps(asdict(plate), ensure_ascii=False, sort_keys=True)


def from_text(text: str) -> ListedPlate:
    """Return the listed plate of `as_text`."""
    return ListedPlate(**json.loads(text))


if __name__ == "__main__":
    run_stage("prepare.plates", plates)
