"""The released model: its files against their digests, and which of its models may judge a well."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import digest
from common.errors import StageError
from common.tiles import Tile, Tiles

MANIFEST = "manifest.json"
NEW, HELD_OUT, SEEN, UNKNOWN = "new plate", "held out", "trained on", "not known"


@dataclass(frozen=True)
class Released:
    """A servable: name -> ONNX file and fold, the threshold of a call, and the layout's size.

    `digest` is that of manifest.json, which the served function answers with.
    """

    digest: str
    files: Mapping[str, Path]
    folds: Mapping[str, str]
    threshold: float
    layout: Mapping[str, Any]
    trained_on: tuple[str, ...] | None

    def judges(self, tiles: Tiles, tile: Tile) -> tuple[tuple[str, ...], str]:
        """Return the models that may judge a well, given one tile of it, and what it is to them.

        On a plate that the models were trained on only those that never saw the well may; where
        none is left, all are named, and the well was trained on.
        """
        every = tuple(self.files)
        if self.trained_on is None:
            return every, UNKNOWN
        if tiles.plate.get("plate_digest", "") not in self.trained_on:
            return every, NEW
        unseen = tuple(name for name in every if self.folds[name] == tile.fold)
        return (unseen, HELD_OUT) if unseen else (every, SEEN)


def load(folder: Path) -> Released:
    """Return the servable in `folder`; raises StageError where a file is not what it names."""
    path = folder / MANIFEST
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        entries = [(str(e["name"]), str(e["file"]), str(e["sha256"]), str(e["fold"]))
                   for e in found["models"]]  # fmt: skip
        threshold, layout = float(found["threshold"]), dict(found["layout"])
        if tuple(found["classes"]) != ("negative", "positive") or "size" not in layout:
            raise ValueError("its classes or its layout are of another format")
        seen = found.get("trained_on")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StageError(
            f"{path} is not the manifest of a released model ({error!r}); give the image or the "
            "artifact that the package stage made"
        ) from None
    if not entries:
        raise StageError(f"{path} names no model; package it again")
    for _, file, expected, _ in entries:
        if Path(file).name != file or digest.file_sha256(folder / file) != expected:
            raise StageError(f"{folder / file} is not what {MANIFEST} names; package it again")
    return Released(
        digest="sha256:" + digest.file_sha256(path),
        files={name: folder / file for name, file, _, _ in entries},
        folds={name: fold for name, _, _, fold in entries},
        threshold=threshold,
        layout=layout,
        trained_on=None if seen is None else tuple(map(str, seen)),
    )


def misfit(model: Released, tiles: Tiles) -> str:
    """Return why a plate's tiles are not what the model has learnt from, or nothing.

    Cells of another size are not, as the served function has it, nor are samples of other bits.
    """
    given, known = tiles.plate["layout"], model.layout
    sizes: list[Sequence[int]] = [list(d.get(k) or []) for d in (given, known)
                                  for k in ("size", "target")]  # fmt: skip
    if sizes[:2] != sizes[2:]:
        return (
            f"the plate's images have {_by(sizes[0])} pixels and are cut from {_by(sizes[1])}, "
            f"those of the model {_by(sizes[2])} from {_by(sizes[3])}: cells would have another "
            "size than what the model has learnt from; train a model on plates of this kind, or "
            "set tiling.target of the layout if only the size of the image differs"
        )
    if "bits" in known and given.get("bits") != known["bits"]:
        return (
            f"the plate's samples have {given.get('bits')} bits, those of the model's plates "
            f"{known['bits']}: the same light would have another level; train a model on plates of "
            "this kind"
        )
    return ""


def _by(size: Sequence[int]) -> str:
    return " x ".join(map(str, size)) or "an unknown number"
