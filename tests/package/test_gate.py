"""What the quality gate found is signed as it lies in the image, and only where it passed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from builder.oci.reference import Reference
from builder.registry.client import Registry
from builder.signing.signatures import signers, statements
from builder.store import Store
from cli.serving import sign_model
from pipeline.errors import PipelineError
from pipeline.release import gate
from pipeline.release.gate import QUALITY_GATE
from tests.key_pairs import PASSWORD, key_pair

from .conftest import Run

PLATE = "5" * 64
Change = Callable[[dict[str, Any]], object]


def judged(folder: Path, change: Change = lambda _: None) -> None:
    """Write the gate into the manifest of `folder`, as validate does."""
    path = folder / "manifest.json"
    document = json.loads(path.read_text())
    for model in document["models"]:
        model["variant"] = "fp32"
    of_model = {"weighted_f1": 0.95, "accuracy": 0.95, "auc": 1.0, "z_factor": None}
    document["gate"] = {
        "passed": True,
        "f1_threshold": 0.9,
        "plate_digest": f"sha256:{PLATE}",
        "models": {model["fold"]: dict(of_model) for model in document["models"]},
    }
    change(document)
    path.write_text(json.dumps(document))


@pytest.fixture
def package(base: Reference, registry_host: str, run: Run) -> Callable[[], Reference]:
    def made() -> Reference:
        repository = f"{registry_host}/served/model"
        return Reference.parse(run(function_image=str(base), model_repo=repository)["image"])

    return made


def test_the_image_is_signed_and_so_is_what_its_gate_found(
    package: Callable[[], Reference], servable: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    judged(servable)
    image = package()
    capsys.readouterr()
    key = key_pair(tmp_path)
    monkeypatch.setenv("PLATELINE_STORE", str(tmp_path / "home/store"))
    monkeypatch.setenv("PLATELINE_SIGNING_PASSWORD", PASSWORD.decode())
    sign_model(str(image), sign=str(tmp_path / "lab.key"), json=True)
    with Registry(image.host) as registry:
        assert signers(registry, image.repository, image.digest, [key.public]) == [key.public]
        (said,) = statements(registry, image.repository, image.digest, [key.public], QUALITY_GATE)
    assert said.predicate == json.loads(capsys.readouterr().out)["gate"]
    assert said.predicate["result"] == "PASSED"
    assert said.predicate["thresholds"] == {"weighted_f1": 0.9}
    assert said.predicate["plate"] == {"digest": {"sha256": PLATE}}
    models = {model["file"]: model["sha256"] for model in
              json.loads((servable / "manifest.json").read_text())["models"]}  # fmt: skip
    signed = {f"{m['name']}.onnx": m["digest"]["sha256"] for m in said.predicate["models"]}
    assert signed == models
    assert said.predicate["models"][0]["metrics"]["z_factor"] is None


def read(image: Reference, store: Store) -> gate.Gate:
    with Registry(image.host) as registry:
        return gate.read(registry, store, image)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d.pop("gate"), "does not say what the quality gate found"),
        (lambda d: d["gate"].update(passed=False), "did not pass the gate"),
        (lambda d: d["gate"].update(f1_threshold=0.96), "a weighted F1 of 0.96 .*fold_1: 0.95"),
        (lambda d: d["gate"]["models"]["fold_2"].update(weighted_f1=0.5), "fold_2: 0.5"),
        (lambda d: d["gate"]["models"]["fold_2"].update(weighted_f1=float("nan")), "does not say"),
        (lambda d: d["gate"].update(f1_threshold=float("nan")), "does not say"),
        (lambda d: d["gate"]["models"].pop("fold_2"), "does not say what the quality gate found"),
        (lambda d: d["gate"].update(models={}), "does not say what the quality gate found"),
        (lambda d: d["gate"].update(plate_digest=""), "does not say which plate"),
        (lambda d: d["models"].pop(), "are not those that its manifest names"),
    ],
)
def test_what_did_not_pass_or_is_not_told_is_not_signed(
    package: Callable[[], Reference], servable: Path, store: Store, change: Change, says: str
) -> None:
    judged(servable, change)
    with pytest.raises(PipelineError, match=says):
        read(package(), store)


def test_an_image_without_models_and_a_tag_are_refused(
    base: Reference, registry_host: str, store: Store
) -> None:
    with pytest.raises(PipelineError, match="does not say what the quality gate found"):
        read(base, store)
    with pytest.raises(PipelineError, match="is a tag, which can move"):
        read(Reference(registry_host, "p/function", "latest"), store)
    with pytest.raises(PipelineError, match="is not there"):
        read(Reference(registry_host, "p/function", digest="sha256:" + "0" * 64), store)
