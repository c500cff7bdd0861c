"""The suite's packages, an image for them, and a server that runs what it is handed."""

from __future__ import annotations

import io
import itertools
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from builder.store import Store
from pipeline.kubeflow.conformance.suite import packages
from pipeline.run import places
from pipeline.run.record import Step
from pipeline.run.runner import Volume, load, run
from tests.pipeline.run.conftest import busybox

CLAIM, SECRET, MARK = "a-claim", "a-secret", "0a1b2c3d"


@pytest.fixture(scope="session")
def conformance_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store.open(tmp_path_factory.mktemp("conformance") / "store")


@pytest.fixture(scope="session")
def conformance_image(conformance_store: Store) -> str:
    return f"localhost/test/busybox@{busybox(conformance_store).digest}"


@pytest.fixture
def suite(conformance_image, tmp_path):
    """Return a function that compiles the cases of these names; MARK is new in each test."""

    def do(*names):
        mark = f"{MARK}-{tmp_path.name}"
        cases = packages.everything(conformance_image, CLAIM, SECRET, mark)
        (tmp_path / "compiled").mkdir(exist_ok=True)
        wanted = {name: cases[name] for name in names or cases}
        return packages.compiled(wanted, tmp_path / "compiled")

    return do


@pytest.fixture
def cluster(kubeflow, conformance_store, tmp_path):
    """Make the server run what it is handed, by the runner of this machine, as a cluster would.

    `cluster.change(steps)` may change what it then says of a run.
    """
    made = Cluster(kubeflow, conformance_store, tmp_path / "cluster")
    kubeflow.execute = made.execute
    return made


class Cluster:
    """Runs the package that a run brings along, and keeps artifacts as an object store does."""

    def __init__(self, kubeflow: Any, store: Store, folder: Path) -> None:
        self._kubeflow, self._store, self._folder = kubeflow, store, folder
        self._numbers = itertools.count()
        (folder / "claim").mkdir(parents=True)
        (folder / "secret").mkdir()
        (folder / "secret" / "key").write_text("conformance")
        self.change = lambda steps: steps

    def execute(self, asked: dict[str, Any]) -> tuple[str, Mapping[str, Step]]:
        number = next(self._numbers)
        brought = asked["pipeline_spec"]
        documents = [brought["pipeline_spec"], brought["platform_spec"]] if (
            "pipeline_spec" in brought) else [brought]  # fmt: skip
        path = self._folder / f"{number}.yaml"
        path.write_text(yaml.safe_dump_all(documents))
        result = run(
            load(path), self._store, parameters=asked["runtime_config"]["parameters"],
            volumes={CLAIM: Volume(self._folder / "claim", writable=True)},
            secrets={SECRET: self._folder / "secret"}, runs=self._folder / f"runs-{number}",
            engine="bubblewrap", use_cache=documents[0]["pipelineInfo"]["name"] == "cache",
        )  # fmt: skip
        steps = {
            name: self._uploaded(number, result.folder, step)
            for name, step in result.steps.items()
            if step.state != "skipped"
        }
        state = "SUCCEEDED" if result.state == "succeeded" else "FAILED"
        return state, self.change(steps)

    def _uploaded(self, number: int, folder: Path, step: Step) -> Step:
        artifacts: dict[str, list[dict[str, Any]]] = {}
        for key, entries in step.artifacts.items():
            artifacts[key] = []
            for each, entry in enumerate(entries):
                path = places.artifact_path(folder, entry["uri"])
                if path is None:
                    artifacts[key].append(entry)
                    continue
                where = f"mlpipeline/{number}/{step.name}/{each}/{key}"
                self._kubeflow.objects[f"minio/{where}"] = _packed(path)
                artifacts[key].append({**entry, "uri": f"minio://{where}"})
        return replace(step, artifacts=artifacts)


def _packed(path: Path) -> bytes:
    if path.is_file():
        return path.read_bytes()
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        for file in sorted(p for p in path.rglob("*") if p.is_file()):
            archive.add(file, file.relative_to(path).as_posix())
    return data.getvalue()
