"""The pipeline as it is compiled: parameters that do something, claims, limits, users, retries."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from builder.store import Store
from pipeline.definition.pipelines import definition
from pipeline.definition.settings import Settings
from pipeline.definition.stages import MODEL, PIPELINES, STAGES
from pipeline.spec.compile import compile_package
from pipeline.spec.kubernetes import accelerator
from pipeline.spec.package import Package, load
from pipeline.spec.retries import Retries
from tests.pipeline.pins import MADE, PINS

PARAMETERS = {
    "plate_path": "bbbc/BBBC014/BBBC014_v1_images",
    "plate_layout": "bbbc014",
    "plate_digest": "",
    "model_type": "EfficientNet_Lite0",
    "f1_threshold": 0.8,
    "checkpoint_prepare": False,
    "checkpoint_train": False,
    "checkpoint_validate": False,
    "workspace_name": "kensert_CNN",
    "on_reject": "fail",
}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return make(tmp_path_factory.mktemp("package"), Settings())


def make(folder: Path, settings: Settings) -> Package:
    path = folder / "p.yaml"
    path.write_bytes(
        compile_package(definition(settings), PINS, MADE, Store.open(folder / "store")).data
    )
    return load(path)


def executors(package: Package) -> dict[str, dict]:
    return {
        label.removeprefix("exec-"): executor["container"]
        for label, executor in package.spec["deploymentSpec"]["executors"].items()
    }


def test_the_original_parameters_are_there_with_their_defaults(package: Package):
    declared = package.spec["root"]["inputDefinitions"]["parameters"]
    assert PARAMETERS.items() <= {n: d.get("defaultValue") for n, d in declared.items()}.items()
    assert {"epochs", "batch_size", "learning_rate", "seed", "artifact_repo", "model_repo"} <= set(
        declared
    )


def test_every_parameter_is_described_for_the_dashboard(package: Package):
    declared = package.spec["root"]["inputDefinitions"]["parameters"]
    assert [name for name, d in declared.items() if not d.get("description")] == []


def test_every_parameter_reaches_a_step(package: Package):
    text = json.dumps(package.spec["components"]) + json.dumps(package.spec["root"]["dag"])
    declared = package.spec["root"]["inputDefinitions"]["parameters"]
    unused = [name for name in declared if f'"pipelinechannel--{name}"' not in text]
    assert unused == []


def test_every_step_hands_the_digest_of_its_work_to_the_next(package: Package):
    inputs = {
        name.removeprefix("comp-"): set(c.get("inputDefinitions", {}).get("parameters", {}))
        for name, c in package.spec["components"].items()
    }
    assert "tiles_digest" in inputs["train"]
    assert {"tiles_digest", "model_digests"} <= inputs["validate"]
    assert "servable_digest" in inputs["package"]


def test_requests_and_limits_are_as_documented(package: Package):
    found = {}
    for name, container in executors(package).items():
        r = container["resources"]
        found[name] = (
            r["resourceCpuRequest"], r["resourceCpuLimit"],
            r["resourceMemoryRequest"], r["resourceMemoryLimit"],
        )  # fmt: skip
    assert found["prepare"] == ("2", "4", "4Gi", "8Gi")
    assert found["train"] == ("2", "4", "4Gi", "8Gi")
    assert found["validate"] == ("1", "2", "1Gi", "4Gi")
    assert found["package"] == ("1", "2", "1Gi", "2Gi")


def test_train_and_validate_alone_get_gpus_and_the_images_for_them_and_only_on_demand(
    package: Package, tmp_path: Path
):
    assert not any("accelerator" in c["resources"] for c in executors(package).values())
    made = make(tmp_path, Settings(gpus=2))
    asking = {n: c for n, c in executors(made).items() if "accelerator" in c["resources"]}
    assert set(asking) == {"train", "validate"}
    for name, container in asking.items():
        assert accelerator(container) == ("nvidia.com/gpu", "2")
        image = PINS[f"{name}-cuda12"]
        env = {e["name"]: e["value"] for e in container["env"]}
        assert (container["image"], env["PLATELINE_IMAGE"]) == (image, image)
        assert env["NVIDIA_DRIVER_CAPABILITIES"] == "compute,utility"
        (taint,) = made.kubernetes[f"exec-{name}"]["tolerations"]
        assert (taint["key"], taint["operator"]) == ("nvidia.com/gpu", "Exists")
    assert executors(made)["reject"]["image"] == PINS["validate"]


def test_the_docker_socket_is_mounted_only_for_the_builder_that_needs_it(
    package: Package, tmp_path: Path
):
    def claims(found: Package) -> set[str]:
        return {
            mount.get("constant") or mount["pvcNameParameter"]["runtimeValue"]["constant"]
            for mount in found.kubernetes["exec-package"].get("pvcMount", [])
        }

    assert claims(package) == set()
    assert claims(make(tmp_path, Settings(builder="docker"))) == {"dockervol-pvc"}


def test_no_step_runs_as_root_and_a_digest_is_not_pulled_again(package: Package):
    for label in package.spec["deploymentSpec"]["executors"]:
        settings = package.kubernetes[label]
        assert settings["securityContext"]["runAsNonRoot"] is True
        assert settings["securityContext"]["runAsUser"] == "65532"
        assert settings["imagePullPolicy"] == "IfNotPresent"
        assert int(settings["activeDeadlineSeconds"]) > 0


def tasks(package: Package) -> dict[str, dict]:
    found = {}
    for component in [package.spec["root"], *package.spec["components"].values()]:
        found |= component.get("dag", {}).get("tasks", {})
    return found


def test_all_but_the_first_step_and_the_summary_may_be_taken_from_the_cache(package: Package):
    """The first says what lies in claims now; the summary would tell how another run ended."""
    steps = {name: task for name, task in tasks(package).items() if name in STAGES}
    assert steps.keys() == set(PIPELINES[MODEL])
    assert {n for n, t in steps.items() if not t.get("cachingOptions", {}).get("enableCache")} == {
        "scan", "summary",
    }  # fmt: skip


def test_what_a_step_takes_from_a_claim_enters_its_key_as_a_digest_of_the_first_step(
    package: Package,
):
    """The backend's key holds a claim's name alone."""
    found = {}
    for name, settings in package.kubernetes.items():
        if settings.get("pvcMount") and name != "exec-scan":
            given = tasks(package)[name.removeprefix("exec-")]["inputs"]["parameters"]
            found[name] = {k for k in given if k.endswith("_digest")}
    assert found == {
        "exec-prepare": {"plate_digest", "layout_digest", "checkpoints_digest"},
        "exec-train": {"tiles_digest", "checkpoints_digest"},
        "exec-validate": {"tiles_digest", "checkpoints_digest"},
    }


def test_the_summary_is_told_how_the_run_ended(package: Package):
    assert tasks(package)["summary"]["triggerPolicy"]["strategy"] == "ALL_UPSTREAM_TASKS_COMPLETED"


def test_every_retry_may_begin_within_the_time_limits(package: Package):
    tried = {}
    for name, task in tasks(package).items():
        if retries := Retries.of(task.get("retryPolicy", {})):
            limit = int(package.kubernetes.get(f"exec-{name}", {}).get("activeDeadlineSeconds", 0))
            assert retries.needs(limit) <= retries.window or not retries.count
            tried[name] = retries.count
    assert {name: count for name, count in tried.items() if count} == {
        "scan": 1, "prepare": 1, "train": 2, "validate": 1, "package": 3,
    }  # fmt: skip


def test_each_step_is_as_its_declaration_says(package: Package):
    found = executors(package)
    assert found.keys() == set(PIPELINES[MODEL])
    for name, stage in ((name, STAGES[name]) for name in found):
        assert found[name]["image"] == PINS[stage.image]
        assert found[name]["command"] == ["python3", "-m", stage.module]
        assert found[name]["resources"]["resourceMemoryLimit"] == stage.memory[1]
