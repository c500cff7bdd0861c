"""A raw well, sent to the function, gets what validate computed for it from prepare's tiles."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import tempfile
from pathlib import Path

import pytest

from builder.build.make import build
from builder.build.workspace import Workspace
from builder.sandbox.bubblewrap import Bubblewrap
from builder.sandbox.process import Mount, Process, run

from .running import MODELS, ROOT, serving

PLATE = Path(os.environ.get("PLATELINE_BBBC013", ROOT.parent / "shared/data/bbbc013v1"))
WELLS = ("A01", "A12", "C07", "E03", "H12")
# Only puts a well's two files into one picture: the tiles are the function's business.
COMPOSE = """
import sys
from pathlib import Path
import numpy as np
from PIL import Image
from common import layout, pictures, plate
written = layout.load("bbbc013")
found = plate.match(Path("/mnt/images"), written)
for name in sys.argv[1:]:
    planes = (found.images[plate.Place(name, 0, meaning)] for meaning in ("signal", "dna"))
    signal, dna = (
        np.asarray(pictures.read_picture(found, one, written.size, written.bits)[0])
        for one in planes
    )
    Image.fromarray(np.stack([signal * 0, signal, dna], -1)).save(f"/work/{name}.png")
"""


def execute(store, image, command, mounts):
    with tempfile.TemporaryFile() as output:
        process = Process(image=image, command=tuple(command), mounts=mounts, timeout=300)
        ended = run(Bubblewrap(store), process, output)
        output.seek(0)
        assert ended.code == 0, output.read().decode()


def executor_input(parameters, inputs, outputs):
    """Return KFP's ExecutorInput with artifacts below /work."""
    return json.dumps(
        {
            "inputs": {
                "parameterValues": parameters,
                "artifacts": {
                    name: {"artifacts": [{"name": name, "uri": uri} for uri in uris]}
                    for name, uris in inputs.items()
                },
            },
            "outputs": {
                "outputFile": "/work/output.json",
                "artifacts": {
                    name: {"artifacts": [{"name": name, "uri": f"/work/{name}"}]}
                    for name in outputs
                },
            },
        }
    )


def write_model(folder, fold, tiles):
    """Write a trained model as train does, with one of the tiny networks."""
    folder.mkdir()
    data = (MODELS / f"{(fold[0] == 'A' and 'A') or 'B'}.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(data)
    document = {
        "format": 1,
        "fold": fold,
        "model_type": "tiny",
        "parameters": {},
        "train_wells": [],
        "validation_wells": [],
        "tiles_sha256": tiles["files"]["tiles.npy"],
        "files": {"model.onnx": hashlib.sha256(data).hexdigest()},
    }
    (folder / "model.json").write_text(json.dumps(document))


@pytest.mark.slow
def test_a_raw_well_gets_the_probability_that_validate_computed(built, tmp_path):
    if not (PLATE / "images").is_dir():
        pytest.skip(f"no BBBC013 plate at {PLATE}; set PLATELINE_BBBC013")
    images = build(Workspace.load(ROOT), built, ["prepare", "validate", "function"])
    tmp_path.chmod(0o777)
    mounts = (Mount(PLATE, "/mnt/images"), Mount(tmp_path, "/work", writable=True))
    given = executor_input({"plate_layout": "bbbc013"}, {}, ["tiles", "summary"])
    command = ["python3", "-m", "prepare", "--executor-input", given]
    execute(built, images["prepare"].image, command, mounts)
    execute(built, images["prepare"].image, ["python3", "-c", COMPOSE, *WELLS], mounts)
    plate = json.loads((tmp_path / "tiles/plate.json").read_text())
    for fold in plate["folds"]:
        write_model(tmp_path / f"model-{fold}", fold, plate)
    given = executor_input(
        {"f1_threshold": 0.0},
        {"tiles": ["/work/tiles"], "models": [f"/work/model-{fold}" for fold in plate["folds"]]},
        ["servable", "results", "metrics", "classification", "report"],
    )
    command = ["python3", "-m", "validate", "--executor-input", given]
    execute(built, images["validate"].image, command, mounts)
    with (tmp_path / "results/tile_scores.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    with (tmp_path / "results/well_scores.csv").open(newline="") as file:
        scores = {line["well"]: float(line["probability"]) for line in csv.DictReader(file)}
    with serving(Bubblewrap(built), images["function"].image, tmp_path / "servable") as function:
        for well in WELLS:
            answer = function.ask(body=(tmp_path / f"{well}.png").read_bytes()).json
            mine = [line for line in lines if line["well"] == well]
            (fold,) = {line["fold"] for line in mine}
            by_name = {model["name"]: model["probability"] for model in answer["models"]}
            assert len(answer["tiles"]) == len(mine) == 9
            assert by_name[fold] == pytest.approx(scores[well], abs=1e-6)
