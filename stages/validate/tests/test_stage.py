"""The stage end to end, on small plates and tiny models."""

import csv
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from common import digest, inference
from common.errors import StageError
from example import GOOD, PLATE, Well, full, plain, task, write, write_model
from onnx_file import onnx_model
from validate import stage
from validate.stage import validate

CONSTANT = onnx_model(0, 0)


def run(folder, wells=None, models=None):
    asked = write(folder, wells or plain(), models)
    validate(asked)
    return asked


def read(folder, name):
    return json.loads((folder / "out" / name).read_text())


def test_right_models_pass_and_are_written_with_their_hashes(tmp_path):
    done = run(tmp_path)
    assert done.output_parameters()["passed"] is True
    servable = tmp_path / "out/servable"
    assert done.output_parameters()["digest"] == digest.folder_digest(servable)
    for entry in read(tmp_path, "servable/manifest.json")["models"]:
        assert digest.file_sha256(servable / entry["file"]) == entry["sha256"]


def test_what_is_served_says_what_the_gate_found(tmp_path):
    run(tmp_path)
    gate = read(tmp_path, "servable/manifest.json")["gate"]
    metrics = read(tmp_path, "results/metrics.json")
    assert (gate["passed"], gate["f1_threshold"]) == (True, metrics["f1_threshold"])
    assert gate["plate_digest"] == PLATE
    assert gate["models"].keys() == metrics["models"].keys()
    for fold, model in metrics["models"].items():
        assert gate["models"][fold]["weighted_f1"] == model["well"]["weighted_f1"]
        assert gate["models"][fold]["z_factor"] == model["z_factor"]["probability"]


def test_every_held_out_well_is_judged_once_by_the_model_that_did_not_see_it(tmp_path):
    wells = full()
    run(tmp_path, wells)
    with (tmp_path / "out/results/well_scores.csv").open() as file:
        scored = list(csv.DictReader(file))
    assert sorted(line["well"] for line in scored) == sorted(well.name for well in wells)
    assert {line["well"]: line["fold"] for line in scored} == {w.name: w.fold for w in wells}
    with (tmp_path / "out/results/tile_scores.csv").open() as file:
        assert len(list(csv.DictReader(file))) == sum(len(well.levels) for well in wells)
    for fold, model in read(tmp_path, "results/metrics.json")["models"].items():
        labelled = [w for w in wells if w.fold == fold and w.label is not None]
        assert np.sum(model["well"]["confusion"]) == len(labelled)
        assert np.sum(model["tile"]["confusion"]) == sum(len(w.levels) for w in labelled)


def test_wells_of_unlike_size_and_mixed_order_are_scored_by_their_own_tiles(tmp_path):
    """No place in an array is left over or cut through: a score is the pool of a well's tiles."""
    wells = [
        Well("A01", "a", (60, 60, 140), "negative", 0),
        Well("A02", "b", (140,), "positive", 1),
        Well("A03", "a", (140, 140, 140, 140, 140), "positive", 1),
        Well("A04", "b", (60, 140), "negative", 0),
    ]
    run(tmp_path, wells)
    with (tmp_path / "out/results/well_scores.csv").open() as file:
        found = {line["well"]: float(line["probability"]) for line in csv.DictReader(file)}
    expected = {w.name: 1 / (1 + np.exp(-(0.1 * np.mean(w.levels) - 10))) for w in wells}
    assert found == pytest.approx(expected, abs=0.02)


def test_one_failing_model_fails_the_gate(tmp_path):
    asked = write(tmp_path, plain())
    write_model(tmp_path, "B", {"model.onnx": CONSTANT})
    validate(asked)
    assert asked.output_parameters()["passed"] is False
    models = read(tmp_path, "results/metrics.json")["models"]
    assert models["A"]["well"]["weighted_f1"] == 1
    assert models["B"]["well"]["weighted_f1"] < 0.9


def test_no_model_passes_by_scoring_everything_alike(tmp_path):
    assert run(tmp_path, models={"model.onnx": CONSTANT}).output_parameters()["passed"] is False


def test_the_gate_takes_the_least_model_and_no_empty_list():
    metrics = {
        "models": {name: {"well": {"weighted_f1": f1}} for name, f1 in (("a", 1), ("b", 0.8))}
    }
    assert stage.gate(metrics, 0.8)
    assert not stage.gate(metrics, 0.81)
    assert not stage.gate({"models": {}}, 0.0)


# int8


def test_int8_is_served_when_it_calls_every_well_alike(tmp_path):
    run(tmp_path, models={"model.int8.onnx": onnx_model(0.1, -10.1)})
    manifest = read(tmp_path, "servable/manifest.json")
    assert {entry["variant"] for entry in manifest["models"]} == {"int8"}
    assert (tmp_path / "out/servable/A.onnx").read_bytes() == onnx_model(0.1, -10.1)


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (onnx_model(0.1, -15.45), "it calls .04.* otherwise"),
        (onnx_model(float("nan"), 0), "nan"),
        (b"x", "cannot run"),
    ],
)
def test_an_int8_that_changes_a_call_or_fails_is_not_served(tmp_path, other, reason):
    run(tmp_path, models={"model.int8.onnx": other})
    manifest = read(tmp_path, "servable/manifest.json")
    assert {entry["variant"] for entry in manifest["models"]} == {"fp32"}
    assert (tmp_path / "out/servable/A.onnx").read_bytes() == GOOD
    for model in read(tmp_path, "results/metrics.json")["models"].values():
        assert re.search(reason, model["int8_refused"])


def test_an_int8_that_changes_the_call_of_an_unlabelled_well_is_not_served(tmp_path):
    wells = [*plain(), Well("A07", "A", (101.0, 101.0))]
    run(tmp_path, wells, {"model.int8.onnx": onnx_model(0.1, -10.5)})
    variants = {e["fold"]: e["variant"] for e in read(tmp_path, "servable/manifest.json")["models"]}
    assert variants == {"A": "fp32", "B": "int8"}


def test_an_int8_that_ranks_tiles_worse_is_not_served(tmp_path):
    """All calls of wells alike, but scores so coarse that tiles tie: AUC falls by over 0.005."""
    wells = [
        *plain(),
        Well("A07", "A", (90.0, 40.0, 40.0, 40.0), "negative", 0),
        Well("A08", "A", (88.0, 160.0, 160.0, 160.0), "positive", 1),
    ]
    flat = onnx_model(1e3, -1e5)  # a step at 100: every tile below it is 0, every one above 1
    run(tmp_path, wells, {"model.int8.onnx": flat})
    models = read(tmp_path, "results/metrics.json")["models"]
    assert "AUC differs" in models["A"]["int8_refused"]
    assert "AUC" not in models["B"]["int8_refused"]


def test_an_int8_that_blurs_the_wells_it_was_trained_on_is_not_served(tmp_path):
    """All calls and ranks alike, but the controls of the other fold lie closer together."""
    wells = [w if w.fold == "A" else replace(w, levels=(w.levels[0] + 9,) * 2) for w in plain()]
    wells = [*wells, Well("B07", "B", (180.0, 180.0), "positive", 1)]
    run(tmp_path, wells, {"model.int8.onnx": onnx_model(0.03, -3)})
    models = read(tmp_path, "results/metrics.json")["models"]
    assert re.search("trained on it has Z' by probability", models["A"]["int8_refused"])
    assert models["A"]["variant"] == "fp32"


# What cannot be judged


def spoil_model_json(folder, **facts):
    path = folder / "model-A/model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **facts}))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "model-A/model.onnx").write_bytes(b"x"), "is not what model.json names"),
        (lambda f: spoil_model_json(f, files={}), "does not name model.onnx"),
        (lambda f: (f / "model-A/model.int8.onnx").write_bytes(GOOD), "name model.int8.onnx"),
        (lambda f: (f / "model-A/model.onnx").unlink(), "cannot read .*model.onnx"),
        (lambda f: spoil_model_json(f, tiles_sha256="0" * 64), "trained on the tiles 0000"),
        (lambda f: spoil_model_json(f, train_wells=["A02"]), "would be judged on: A02"),
        (lambda f: spoil_model_json(f, validation_wells=["A03"]), "would be judged on: A03"),
        (lambda f: spoil_model_json(f, fold="B"), "two models of the fold B"),
        (lambda f: spoil_model_json(f, fold="../x"), "unknown fold"),
        (lambda f: spoil_model_json(f, files=[1]), "cannot read the model"),
        (lambda f: (f / "model-A/model.json").write_text("{"), "cannot read the model"),
        (lambda f: (f / "tiles/tiles.csv").write_text("x"), "run prepare again"),
    ],
)
def test_what_does_not_fit_is_an_error(tmp_path, spoil, message):
    asked = write(tmp_path, plain())
    spoil(tmp_path)
    with pytest.raises(StageError, match=message):
        validate(asked)
    assert not (tmp_path / "out/servable").exists()


@pytest.mark.parametrize("bias", [float("nan"), float("inf")])
def test_a_model_of_nan_is_an_error_that_names_it(tmp_path, bias):
    model = onnx_model(float("nan"), bias)
    with pytest.raises(StageError, match=r"model.onnx answers nan, not a probability"):
        run(tmp_path, models={"model.onnx": model})


@pytest.mark.parametrize("labels", [{0}, {1}, {None}])
def test_a_fold_with_one_class_is_an_error_that_names_it(tmp_path, labels):
    (label,) = labels
    wells = [w if w.fold == "A" else Well(w.name, w.fold, w.levels, label=label) for w in plain()]
    with pytest.raises(StageError, match="held-out wells of B have not both classes"):
        run(tmp_path, wells)


def test_a_missing_model_is_an_error(tmp_path):
    write(tmp_path, plain())
    with pytest.raises(StageError, match="no model of the folds B"):
        validate(task(tmp_path, ["A"]))


@pytest.mark.parametrize("threshold", [90, -0.1, float("nan")])
def test_a_threshold_that_no_f1_can_have_is_an_error(tmp_path, threshold):
    with pytest.raises(StageError, match="f1_threshold"):
        validate(task(tmp_path, ["A"], f1_threshold=threshold))


def test_constant_images_are_judged_without_a_wrong_number(tmp_path):
    wells = [Well(w.name, w.fold, (0.0, 0.0), w.role, w.label) for w in plain()]
    done = run(tmp_path, wells)
    assert done.output_parameters()["passed"] is False
    model = read(tmp_path, "results/metrics.json")["models"]["A"]
    assert model["well"]["weighted_f1"] == pytest.approx(1 / 3)


# Dose series


def test_a_series_has_an_ec50_or_a_reason(tmp_path):
    run(tmp_path, full())
    models = read(tmp_path, "results/metrics.json")["models"]
    (fitted,), (flat,) = models["A-B"]["series"], models["C-D"]["series"]
    for scale in ("probability", "log_odds"):
        assert fitted["fit"][scale]["ec50"] == pytest.approx(16, rel=0.35)
        assert flat["fit"][scale]["ec50"] is None
        assert flat["fit"][scale]["flag"]
    names = done_metrics(tmp_path)
    assert "A-B Wortmannin ec50 nM" in names
    assert not any("Nothing> & Söhne ec50" in name for name in names)


def done_metrics(folder):
    return json.loads((folder / "out/metrics").read_text())


# Kubeflow Pipelines


def test_metrics_are_flat_numbers(tmp_path):
    metadata = run(tmp_path, full()).output_metadata()["metrics"]
    assert all(type(value) is float and np.isfinite(value) for value in metadata.values())
    assert metadata["C-D well weighted_f1"] == 1


def test_classification_has_the_confusion_matrix_and_the_roc_curve_of_all_wells(tmp_path):
    metadata = run(tmp_path).output_metadata()["classification"]
    assert metadata["confusionMatrix"] == {
        "annotationSpecs": [{"displayName": "negative"}, {"displayName": "positive"}],
        "rows": [{"row": [6, 0]}, {"row": [0, 6]}],  # only wells that are there are counted
    }
    points = metadata["confidenceMetrics"]
    for point in points:
        assert sorted(point) == ["confidenceThreshold", "falsePositiveRate", "recall"]
    assert (points[0]["recall"], points[-1]["falsePositiveRate"]) == (0, 1)
    json.dumps(metadata, allow_nan=False)


# Checkpoints


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    root = tmp_path / "workspace"
    root.mkdir()
    monkeypatch.setenv("PLATELINE_WORKSPACE", str(root))
    return root / "w/validate"


def checkpointed(folder, **parameters):
    again = task(folder, ["A", "B"], workspace_name="w", **parameters)
    validate(again)
    return again.output_parameters()["passed"]


def save(folder, model=GOOD):
    write(folder, plain(), {"model.onnx": model})
    return checkpointed(folder)


@pytest.mark.parametrize(("model", "passed"), [(GOOD, True), (CONSTANT, False)])
def test_a_checkpoint_passes_only_if_its_own_metrics_do(tmp_path, workspace, model, passed):
    assert save(tmp_path, model) is passed
    assert checkpointed(tmp_path, checkpoint=True) is passed


def test_a_checkpoint_that_says_passed_is_looked_at(tmp_path, workspace):
    save(tmp_path, CONSTANT)
    path = workspace / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["output_parameters"] = {"passed": True, "digest": "sha256:0"}
    path.write_text(json.dumps(manifest))
    again = task(tmp_path, ["A", "B"], workspace_name="w", checkpoint=True)
    validate(again)
    servable = digest.folder_digest(tmp_path / "out/servable")
    assert again.output_parameters() == {"passed": False, "digest": servable}


def test_a_checkpoint_of_another_threshold_does_not_fit(tmp_path, workspace):
    save(tmp_path)
    with pytest.raises(StageError, match=r"f1_threshold = 0\.9 and are now 0\.95"):
        checkpointed(tmp_path, checkpoint=True, f1_threshold=0.95)


def test_a_checkpoint_of_other_models_does_not_fit(tmp_path, workspace):
    save(tmp_path, CONSTANT)
    write_model(tmp_path, "A", {"model.onnx": GOOD})
    with pytest.raises(StageError, match="does not fit: its inputs"):
        checkpointed(tmp_path, checkpoint=True)


def test_a_checkpoint_without_metrics_cannot_be_judged(tmp_path, workspace):
    save(tmp_path)
    path = workspace / "outputs/results/metrics.json"
    path.write_text("{}")
    manifest = json.loads((workspace / "manifest.json").read_text())
    manifest["files"] = digest.file_hashes(workspace / "outputs")
    (workspace / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(StageError, match="cannot be judged"):
        checkpointed(tmp_path, checkpoint=True)


def test_a_full_disk_is_an_error_that_says_so(tmp_path, monkeypatch):
    asked = write(tmp_path, plain())

    def full_disk(self, *_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full_disk)
    with pytest.raises(StageError, match="cannot write the results: No space left on device"):
        validate(asked)


def test_without_a_gpu_an_image_for_gpus_computes_on_the_processor_and_says_so_once(
    tmp_path, monkeypatch, capfd
):
    if not inference.no_gpu():
        pytest.skip("a GPU is here")
    built_for = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(inference.onnxruntime, "get_available_providers", lambda: built_for)
    inference.providers.cache_clear()
    done = run(tmp_path)
    inference.providers.cache_clear()
    assert done.output_parameters()["passed"] is True
    (said,) = [line for line in capfd.readouterr().out.splitlines() if "warning" in line]
    assert re.fullmatch(
        r"warning: computing on the processor, in an image for NVIDIA GPUs: no NVIDIA driver .*",
        said,
    )


def test_onnxruntime_reports_to_nobody():
    """It tries to on import, and says so where it cannot keep its identifier: not in this image."""
    code = "import onnxruntime as o; o.InferenceSession"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
    assert "elemetry" not in done.stdout + done.stderr


def test_what_is_not_what_the_steps_before_handed_on_is_refused(tmp_path):
    """A step taken from the cache may have stored what was changed or lost since."""
    given = write(tmp_path, plain()).document["inputs"]["parameterValues"]
    hashes = [
        digest.of_hashes({"model.onnx": digest.file_sha256(tmp_path / f"model-{fold}/model.onnx")})
        for fold in "AB"
    ]
    given |= {
        "tiles_digest": digest.folder_digest(tmp_path / "tiles/plate.json"),
        "model_digests": hashes[::-1],
    }
    validate(task(tmp_path, "AB", **given))
    other = "sha256:" + "0" * 64
    for wrong in ({"tiles_digest": other}, {"model_digests": [hashes[0], other]}):
        with pytest.raises(StageError, match=f"{next(iter(wrong))} is .*the parameter fresh"):
            validate(task(tmp_path, "AB", **{**given, **wrong}))
