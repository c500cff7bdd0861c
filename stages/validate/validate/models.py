"""The models to judge: what model.json says of them must be so."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import digest
from common.errors import StageError
from common.tiles import Tiles

FP32, INT8 = "fp32", "int8"
CURVES = "curves.csv"
_FILES = {FP32: "model.onnx", INT8: "model.int8.onnx"}


@dataclass(frozen=True)
class Model:
    """A trained fold: its model.json and its ONNX files (variant -> path)."""

    fold: str
    facts: Mapping[str, Any]
    variants: Mapping[str, Path]

    @property
    def curves(self) -> tuple[tuple[float, float, float], ...]:
        """Its learning curves: epoch, loss, validation loss; none where train wrote none.

        Raises StageError where the file is not what train writes.
        """
        if CURVES not in self.facts["files"]:
            return ()
        path = self.variants[FP32].parent / CURVES
        try:
            with path.open(encoding="utf-8", newline="") as file:
                found = tuple(
                    (float(line["epoch"]), float(line["loss"]), float(line["validation_loss"]))
                    for line in csv.DictReader(file)
                )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StageError(f"cannot read {path} ({error!r}); train again") from None
        return found

    @property
    def digest(self) -> str:
        """The digest of its ONNX files: what train hands on."""
        named = self.facts["files"]
        return digest.of_hashes({path.name: named[path.name] for path in self.variants.values()})


def load(folders: Sequence[Path], tiles: Tiles) -> dict[str, Model]:
    """Return the model of each fold of the plate, in the plate's order.

    Raises StageError where a model is missing or there twice, its files are not those that its
    model.json names, it was trained on other tiles, or it saw a well that it is judged on.
    """
    found: dict[str, Model] = {}
    for folder in folders:
        model = _load(folder, tiles)
        if model.fold in found:
            raise StageError(f"there are two models of the fold {model.fold}; give one a fold")
        found[model.fold] = model
    if missing := [fold for fold in tiles.folds if fold not in found]:
        raise StageError(f"no model of the folds {', '.join(missing)} was given; train them")
    return {fold: found[fold] for fold in tiles.folds}


def _load(folder: Path, tiles: Tiles) -> Model:
    try:
        facts = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        fold, named = str(facts["fold"]), dict(facts["files"])
        trained_on, _ = str(facts["tiles_sha256"]), str(facts["model_type"])
        seen = {*facts["train_wells"], *facts["validation_wells"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StageError(f"cannot read the model in {folder}: {error!r}; train again") from None
    if fold not in tiles.folds:
        raise StageError(f"{folder} is of the unknown fold {fold!r}; train again")
    given = tiles.sha256
    if trained_on != given:
        raise StageError(
            f"the model {fold} was trained on the tiles {trained_on[:12]}…, those given are "
            f"{given[:12]}…; train again, or give the tiles it was trained on"
        )
    variants = {name: folder / file for name, file in _FILES.items() if (folder / file).exists()}
    for file in {_FILES[FP32], *(path.name for path in variants.values())} - set(named):
        raise StageError(f"{folder / 'model.json'} does not name {file}; train again")
    for name, expected in named.items():
        if digest.file_sha256(folder / name) != expected:
            raise StageError(f"{folder / name} is not what model.json names; train again")
    held = {tile.well for tile in tiles.index if tile.fold == fold}
    if held & seen:
        raise StageError(
            f"the model {fold} was trained on wells it would be judged on: "
            f"{', '.join(sorted(held & seen))}; train again"
        )
    return Model(fold, facts, variants)
