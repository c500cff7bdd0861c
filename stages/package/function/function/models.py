"""The served models: manifest, digests checked on start, and inference."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from common import digest
from common.errors import StageError
from numpy.typing import NDArray

FORMAT = 1


@dataclass(frozen=True)
class Model:
    """One fold's network: tiles uint8 [n, 256, 256, 3] -> probability float32 [n]."""

    name: str
    digest: str
    session: Any

    def run(self, tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the probability of the second class, tile by tile."""
        answers = [self.session.run(None, {"tiles": tile[None]})[0] for tile in tiles]
        return np.concatenate(answers).reshape(-1)


@dataclass(frozen=True)
class Models:
    """What the folder of models holds; `digest` is that of its manifest."""

    classes: tuple[str, ...]
    threshold: float
    digest: str
    models: tuple[Model, ...]


def load(folder: Path) -> Models:
    """Load and warm the models of `folder`.

    Raises StageError where manifest or a model is missing, or a file has another digest.
    """
    manifest = folder / "manifest.json"
    try:
        document = json.loads(manifest.read_text(encoding="utf-8"))
        if document["format"] != FORMAT:
            raise StageError(f"{manifest} has format {document['format']!r}, not {FORMAT}")
        models = []
        for entry in document["models"]:
            path = folder / entry["file"]
            wanted = entry["sha256"].removeprefix("sha256:")
            found = digest.file_sha256(path)
            if found != wanted:
                raise StageError(
                    f"the model {path} has sha256 {found}, {manifest.name} wants {wanted}; "
                    "package it again"
                )
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = options.inter_op_num_threads = 1
            session = onnxruntime.InferenceSession(
                path, options, providers=["CPUExecutionProvider"]
            )
            model = Model(entry["name"], f"sha256:{wanted}", session)
            model.run(np.zeros((1, 256, 256, 3), np.uint8))
            models.append(model)
        if not models:
            raise StageError(f"{manifest} lists no model; package validated models")
        return Models(
            tuple(document["classes"]),
            float(document["threshold"]),
            "sha256:" + digest.file_sha256(manifest),
            tuple(models),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StageError(f"cannot read the models in {folder}: {error!r}") from None
