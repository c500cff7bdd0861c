"""The served models: manifest, digests checked on start, and inference."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from common import digest
from common.errors import StageError
from common.tiling import TILE, default_target
from numpy.typing import NDArray

FORMAT = 1
Size = tuple[int, int]  # width, height in pixels


@dataclass(frozen=True)
class Model:
    """One fold's network: a tile uint8 [256, 256, 3] -> the probability of the second class."""

    name: str
    digest: str
    session: Any

    def run(self, tile: NDArray[np.uint8]) -> float:
        """Return the probability for one tile.

        One tile a call: on a CPU a batch is no faster, and a call is what a time limit can cancel.
        """
        value = float(self.session.run(None, {"tiles": tile[None]})[0].reshape(-1)[0])
        if not 0 <= value <= 1:
            raise ArithmeticError(
                f"the model {self.name} answered {value}, which is no probability"
            )
        return value


@dataclass(frozen=True)
class Models:
    """What the folder of models holds; `digest` is that of its manifest.

    `targets` says to which size a picture of which size is scaled before it is cut; where it is
    empty, the models' plate is unknown and any picture is scaled to the nearest number of tiles.
    """

    classes: tuple[str, ...]
    threshold: float
    digest: str
    models: tuple[Model, ...]
    targets: Mapping[Size, Size]


def load(folder: Path, workers: int = 1, intra_op_threads: int = 1) -> Models:
    """Load and warm the models of `folder`, so many at a time.

    Raises StageError where manifest or a model is missing, or a file has another digest.
    """
    manifest = folder / "manifest.json"
    try:
        data = manifest.read_bytes()
        document = json.loads(data)
        if document["format"] != FORMAT:
            raise StageError(f"{manifest} has format {document['format']!r}, not {FORMAT}")
        if document.get("tile", TILE) != TILE:
            raise StageError(f"{manifest} is for tiles of {document['tile']} pixels, not {TILE}")
        entries = [(e["name"], folder / e["file"], e["sha256"]) for e in document["models"]]
        if not entries:
            raise StageError(f"{manifest} lists no model; package validated models")
        with ThreadPoolExecutor(workers, "loading") as pool:
            loading = [pool.submit(_load, *entry, manifest, intra_op_threads) for entry in entries]
            return Models(
                tuple(document["classes"]),
                float(document["threshold"]),
                "sha256:" + hashlib.sha256(data).hexdigest(),
                tuple(future.result() for future in loading),
                _targets(document.get("layout") or {}),
            )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StageError(f"cannot read the models in {folder}: {error!r}") from None


def _targets(layout: Mapping[str, Any]) -> dict[Size, Size]:
    """Return what fits the plate's layout: a tile, a well as taken, and a well scaled already."""
    if "size" not in layout:
        return {}
    width, height = map(int, layout["size"])
    across, down = map(int, layout.get("target") or default_target(width, height))
    target = (across, down)
    return {(TILE, TILE): (TILE, TILE), target: target, (width, height): target}


def _load(name: str, path: Path, wanted: str, manifest: Path, threads: int) -> Model:
    wanted = wanted.removeprefix("sha256:")
    found = digest.file_sha256(path)
    if found != wanted:
        raise StageError(
            f"the model {path} has sha256 {found}, {manifest.name} wants {wanted}; package it again"
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        model = Model(name, f"sha256:{wanted}", session)
        model.run(np.zeros((TILE, TILE, 3), np.uint8))
    except Exception as error:  # noqa: BLE001 - onnxruntime's exceptions share no public base
        raise StageError(f"onnxruntime cannot run {path}: {error}; train again") from None
    return model
