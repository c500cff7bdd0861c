"""What each plate of a run over many is worth: its controls, its Z', its wrong calls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from common.assay import z_factor
from common.many_plates import plate_of
from common.tiles import Tiles

from .judge import SCALES
from .verdict import Verdict


def by_plate(tiles: Tiles, verdicts: Mapping[str, Verdict]) -> list[dict[str, Any]]:
    """Return a line a plate and fold, worst Z' on log odds first; none for a run over one plate.

    Its wells were held out from the model of that fold. None is what cannot be told.
    """
    if "plates" not in tiles.plate:
        return []
    lines = []
    for fold, verdict in verdicts.items():
        of = verdict.judged
        wells: dict[str, list[str]] = {}
        for well in of.labels:
            wells.setdefault(plate_of(well), []).append(well)
        for plate, own in wells.items():
            roles = {label: [well for well in own if of.labels[well] == label] for label in (1, 0)}
            lines.append(
                {
                    "plate": plate,
                    "fold": fold,
                    "positive": len(roles[1]),
                    "negative": len(roles[0]),
                    "wrong": [well for well in own if of.labels[well] != int(of.positive(well))],
                    "z_factor": {
                        scale: z_factor(
                            *(np.array([of.score(w, scale) for w in roles[r]]) for r in (1, 0))
                        )
                        for scale in SCALES
                    },
                }
            )

    def order(line: dict[str, Any]) -> float:
        found = line["z_factor"]["log_odds"]
        return float("-inf") if found is None else float(found)

    return sorted(lines, key=order)
