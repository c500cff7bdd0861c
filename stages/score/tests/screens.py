"""Scored plates made up without images, and the screen of them.

`python3 screens.py FOLDER PLATES` leaves a screen and its report in FOLDER/out.
"""

import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
from common.tiles import Tile, Tiles
from pages import montage
from score import tables
from score.screen import Plate, write_screen

MODEL = "sha256:" + "ab" * 32
PARAMETERS = {"normalisation": "controls", "min_z_prime": 0.0, "min_cells": 10,
              "min_cell_share": 0.5, "nucleus_diameter": 18.0}  # fmt: skip
NASTY = "<img src=x onerror=alert(1)> & Söhne"


def plate(name, shape=(16, 24), active=0.05, seed=0, compound="compound {}", **row):
    """Return a plate: controls in the outer columns, a share of the samples active."""
    random = np.random.default_rng(seed)
    wells = []
    for r in range(shape[0]):
        for c in range(shape[1]):
            role = {0: "negative", 1: "empty", shape[1] - 1: "positive"}.get(c, "sample")
            effect = role == "positive" or (role == "sample" and (r * 7 + c) % 100 < 100 * active)
            odds = float(random.normal(6 if effect else -6, 0.8))
            wells.append(well(name, r, c, role, odds, compound.format(r), 0.5 * c))
    return of_wells(name, wells, shape, **row)


def well(name, r, c, role, odds, compound="", dose=None, flags=""):
    blank = {column.name: None for column in tables.WELLS}
    given = {} if role != "sample" else {"Metadata_Compound": compound, "Metadata_Dose": dose,
                                         "Metadata_DoseUnit": "µM"}  # fmt: skip
    return blank | {
        "Metadata_Plate": name, "Metadata_Well": f"{chr(65 + r)}{c + 1:02d}",
        "Metadata_Row": r + 1, "Metadata_Column": c + 1, "Metadata_Role": role,
        "Metadata_Compound": "", "Metadata_DoseUnit": "", "Metadata_Flags": flags,
        "Metadata_Standing": "new plate", "Metadata_Fields": 1, "Metadata_FieldsUsed": 1,
        "Score_Probability": 1 / (1 + np.exp(-odds)), "Score_LogOdds": odds,
        "Score_Call": "positive" if odds > 0 else "negative", "Score_Tiles": 9, "Score_Models": 2,
        "Score_ModelsAgree": True, "Score_Normalised": odds + 6, "Nuclei_CountPerField": 55.0,
        **given,
    }  # fmt: skip


def of_wells(name, wells, shape, **row):
    facts = {c.name: np.nan if c.kind == tables.NUMBER else None for c in tables.PLATES} | {
        "Metadata_Plate": name, "Metadata_PlateDigest": f"sha256:{name}",
        "Metadata_ModelDigest": MODEL, "Plate_Status": "ok", "Plate_Problems": "",
        "Plate_Wells": len(wells), "Plate_WellsFlagged": 0, "Plate_ZPrime_LogOdds": 0.6,
        "Plate_ZPrime_Probability": 0.9, "Plate_SSMD_LogOdds": 10.0, "Plate_NegativeMedian": -6.0,
        "Plate_NegativeMAD": 0.8, "Plate_Normalisation": "controls",
        "Plate_ReferenceWells": shape[0], **row,
    }  # fmt: skip
    if facts["Plate_Status"] != "ok":
        wells = [{**one, "Metadata_Flags": "plate_failed"} for one in wells]
    document = {"format": 2, "plate": name, "row": facts, "parameters": PARAMETERS,
                "model_digest": MODEL, "model": "host/model@" + MODEL, "image": "",
                "shape": list(shape), "pixel_size": None}  # fmt: skip
    return Plate(document, tables.table(tables.WELLS, wells))


def broken(name, problem="no image of well A01; copy it"):
    return of_wells(
        name, [], (0, 0), Plate_Status="failed", Plate_Problems=problem,
        Plate_ZPrime_LogOdds=np.nan, Plate_SSMD_LogOdds=np.nan, Plate_NegativeMedian=np.nan,
    )  # fmt: skip


def pictured(of, pixel_size=None):
    """Return the plate with a montage of drawn nuclei."""
    places = {(w["Metadata_Row"] - 1, w["Metadata_Column"] - 1): n % 6
              for n, w in enumerate(of.wells.to_pylist())}  # fmt: skip
    sheet = drawn(of.shape, tuple(sorted(places.items())))
    return replace(of, facts={**of.facts, "pixel_size": pixel_size}, montage=sheet)


@cache
def drawn(shape, places):
    random = np.random.default_rng(0)
    y, x = np.mgrid[:256, :256]
    drawings = []
    for _ in range(6):
        tile = random.normal(12, 3, (256, 256, 3))
        for cy, cx in random.uniform(0, 256, (40, 2)):
            tile[(y - cy) ** 2 + (x - cx) ** 2 < 80, 2] += 110
            tile[(y - cy) ** 2 + (x - cx) ** 2 < 300, 1] += random.uniform(20, 90)
        drawings.append(np.clip(tile, 0, 255).astype(np.uint8))
    index = (Tile("A01", "A", 1, 0, 0, 0, "", None, "", "sample", "", None, ""),) * 6
    tiles = Tiles(Path(), np.array(drawings), index, {})
    return montage.montage(tiles, dict(places), shape, montage.display_range(tiles))


def written(folder, plates, rate=0.05, agreement=0.5):
    """Write the screen of the plates to FOLDER/screen; return its summary and its report."""
    target = folder / "screen"
    target.mkdir(parents=True)
    _, summary, page = write_screen(target, plates, rate, agreement)
    return summary, page


def wells_of(plates):
    return pa.concat_tables([one.wells for one in plates]).to_pylist()


def screen_of(count):
    """Return so many plates of 384 wells, of which every tenth failed and one could not be read."""
    made = []
    for n in range(1, count):
        z = -3.2 if n % 10 == 3 else 0.4 + 0.3 * np.sin(n)
        problem = "Z' on log odds is -3.200, below 0"
        status = {} if z > 0 else {"Plate_Status": "failed", "Plate_Problems": problem}
        compound = NASTY if n == 1 else f"compound {{}} of library {n % 9}"
        made.append(
            pictured(
                plate(f"P{n:03d}", seed=n, compound=compound, Plate_ZPrime_LogOdds=z,
                      Plate_SSMD_LogOdds=8 + np.cos(n), Plate_NegativeMedian=-6 + 0.1 * (n % 5),
                      **status),
                0.65,
            )
        )  # fmt: skip
    return [*made, broken(f"P{count:03d}")]


if __name__ == "__main__":
    out = Path(sys.argv[1]) / "out"
    _, text = written(out, screen_of(int(sys.argv[2])))
    (out / "report").write_text(text, encoding="utf-8")
