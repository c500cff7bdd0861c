"""From a served image one walks back to models, package, stage images, locks and commit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from builder.errors import BuilderError
from builder.oci import canonical
from builder.oci.reference import Reference
from builder.registry.client import Registry
from builder.registry.push import push
from builder.store import Store
from pipeline.errors import PipelineError
from pipeline.release import publish
from pipeline.release.trace import Places, trace, trace_run
from pipeline.spec import provenance
from pipeline.spec.provenance import Provenance

from .conftest import ROOT, Run, base_image


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=x", "-c", "user.email=x@localhost"]
    command = ["git", *who, "-C", str(folder), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def compiled(made: Provenance) -> bytes:
    info = {"name": "plateline", "description": made.described("From a plate to a model.")}
    return json.dumps({"pipelineInfo": info}).encode()


@dataclass
class Released:
    """A checkout with a lock, the package that was made from it, and its pinned function."""

    checkout: Path
    package: bytes
    function: Reference

    @property
    def digest(self) -> str:
        return canonical.sha256(self.package)


@pytest.fixture
def released(store: Store, registry_host: str, tmp_path: Path) -> Released:
    checkout = tmp_path / "checkout"
    lock = checkout / "stages" / "train" / "requirements.lock"
    lock.parent.mkdir(parents=True)
    lock.write_text("numpy==2.0\n")
    git(checkout, "init", "-q")
    git(checkout, "add", ".")
    git(checkout, "commit", "-q", "-m", "Pin numpy")
    image = base_image(store)
    made = Provenance(
        commit=git(checkout, "rev-parse", "HEAD"),
        dirty=False,
        images={
            name: {"key": "a" * 64, "digest": image.digest, "layers": {}}
            for name in ("function", "train")
        },
        locks={
            "stages/train/requirements.lock": {
                "sha256": canonical.sha256(b"numpy==2.0\n"),
                "packages": {"numpy": "2.0"},
            }
        },
    )
    package = compiled(made)
    images = dict.fromkeys(("function", "train"), ("a" * 64, image))
    with Registry(registry_host) as registry:
        push(store, images, f"{registry_host}/p", registry)
        publish.publish(registry, "p", store, package, dict.fromkeys(images, image))
    return Released(checkout, package, Reference(registry_host, "p/function", digest=image.digest))


@pytest.fixture
def packaged(released: Released, registry_host: str, run: Run) -> dict[str, str]:
    return run(
        function_image=str(released.function),
        model_repo=f"{registry_host}/served/model",
        artifact_repo=f"{registry_host}/served/artifact",
        package_digest=released.digest,
    )


@pytest.fixture
def empty(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "empty")


def test_the_walk_reaches_the_commit_in_a_registry_alone(
    released: Released, packaged: dict[str, str], empty: Store
) -> None:
    with Places(empty) as places:
        found = trace(Reference.parse(packaged["image"]), places, released.checkout)
    assert found.missing == []
    assert (found.image, found.artifact) == (packaged["image"], packaged["artifact"])
    assert found.base == str(released.function)
    assert [model["name"] for model in found.models] == ["fold_1", "fold_2"]
    assert found.metrics == {"fold_1 well weighted_f1": 1.0}
    assert found.package == released.digest
    assert set(found.stages) == {"function", "train"}
    assert list(found.locks) == ["stages/train/requirements.lock"]
    assert found.commit == git(released.checkout, "rev-parse", "HEAD")
    assert not found.dirty


def test_a_tag_is_pinned_on_the_way(packaged: dict[str, str], empty: Store) -> None:
    image = Reference.parse(packaged["image"])
    tagged = Reference(image.host, image.repository, f"kensert_CNN-{image.digest[7:19]}")
    with Places(empty) as places:
        assert trace(tagged, places).image == packaged["image"]


def test_a_tag_that_is_not_there_is_told_with_those_that_are(
    packaged: dict[str, str], empty: Store
) -> None:
    image = Reference.parse(packaged["image"])
    with Places(empty) as places:
        with pytest.raises(BuilderError, match="has no tag v9; it has kensert_CNN-"):
            trace(Reference(image.host, image.repository, "v9"), places)
        with pytest.raises(BuilderError, match="has no tag latest; nothing is there"):
            trace(Reference(image.host, "served/none"), places)


def test_the_store_alone_is_enough_for_local_names(
    released: Released, store: Store, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLATELINE_STORE", str(store.root))
    store.add(released.package)
    found = run(
        function_image=f"localhost/plateline/function@{released.function.digest}",
        model_repo="localhost/model",
        artifact_repo="localhost/artifact",
        package_digest=released.digest,
    )
    with Places(store) as places:
        walked = trace(Reference.parse(found["image"]), places, released.checkout)
        assert trace(Reference.parse("localhost/model"), places).image == found["image"]
        with pytest.raises(BuilderError, match="keeps nothing as localhost/other; add its @sha256"):
            trace(Reference.parse("localhost/other"), places)
    assert walked.missing == []
    assert walked.stages["train"]["image"].startswith("localhost/plateline/train@")


def test_what_is_not_there_is_told_and_the_rest_is_walked(
    released: Released, registry_host: str, run: Run, empty: Store, tmp_path: Path
) -> None:
    unknown = "sha256:" + "7" * 64
    there = {"function_image": str(released.function), "model_repo": f"{registry_host}/served/m"}
    bare = Reference.parse(run(**there)["image"])
    other = Reference.parse(run(**there, package_digest=unknown)["image"])
    file = tmp_path / "package.yaml"
    file.write_bytes(released.package)
    with Places(empty) as places:
        assert [m.partition(":")[0] for m in trace(bare, places).missing] == [
            "the artifact",
            "the package",
        ]
        (_, told) = trace(other, places).missing
        assert told.startswith(f"the package {unknown}: ")
        assert "has no release" in told
        (_, told) = trace(other, places, package=file).missing
        assert f"{file} is another one, {released.digest}" in told


def test_a_lock_that_is_not_the_commits_and_a_lost_image_are_told(
    released: Released, registry_host: str, run: Run, empty: Store
) -> None:
    made = provenance.read(released.package)
    lost = "sha256:" + "9" * 64
    made["images"]["train"]["digest"] = lost
    names = ("stages/train/requirements.lock", "stages/new.lock")
    made["locks"] = {name: {"sha256": lost, "packages": {}} for name in names}
    package = compiled(Provenance(**made))
    digest = empty.add(package).digest
    image = run(
        function_image=str(released.function),
        model_repo=f"{registry_host}/served/model",
        artifact_repo=f"{registry_host}/served/artifact",
        package_digest=digest,
    )["image"]
    with Places(empty) as places:
        found = trace(Reference.parse(image), places, released.checkout)
    assert found.missing == [
        f"the image of train: {registry_host}/p/train@{lost} is not in the registry",
        f"stages/new.lock at {found.commit[:12]}: this checkout does not have it",
        f"stages/train/requirements.lock at {found.commit[:12]} is another file than was used",
    ]


def of_run(released: Released, **parameters: str) -> bytes:
    """What an API server gives of a run: the pipeline as it is stored, and what it was given."""
    spec = json.loads(released.package)
    pins = [str(replace(released.function, repository=f"p/{n}")) for n in ("function", "train")]
    spec["root"] = {"images": pins}
    stored = {"pipeline_spec": spec, "platform_spec": {}}
    document = {"pipeline_spec": stored, "runtime_config": {"parameters": parameters}}
    return json.dumps(document).encode()


def test_a_run_on_the_server_alone_leads_to_the_commit(released: Released, empty: Store) -> None:
    document = of_run(released, package_digest=released.digest)
    with Places(empty) as places:
        found = trace_run(document, places, released.checkout)
    assert found.missing == []
    assert found.package == released.digest
    assert found.base == str(released.function)
    assert set(found.stages) == {"function", "train"}
    assert all(entry["key"] == "a" * 64 for entry in found.stages.values())
    assert found.locks == {"stages/train/requirements.lock": canonical.sha256(b"numpy==2.0\n")}
    assert found.commit == git(released.checkout, "rev-parse", "HEAD")


def test_a_version_says_its_package_by_its_name_and_a_run_may_only_name_its_version(
    released: Released, empty: Store
) -> None:
    version = json.loads(of_run(released))
    del version["runtime_config"]
    version["display_name"] = f"sha256-{released.digest.removeprefix('sha256:')}"
    named = {"pipeline_version_reference": {"pipeline_id": "p1", "pipeline_version_id": "v2"}}
    with Places(empty) as places:
        assert trace_run(json.dumps(version).encode(), places).package == released.digest
        with pytest.raises(PipelineError, match="/apis/v2beta1/pipelines/p1/versions/v2"):
            trace_run(json.dumps(named).encode(), places)


def test_what_a_run_does_not_say_is_told(released: Released, empty: Store) -> None:
    document = json.loads(of_run(released))
    document["pipeline_spec"]["pipeline_spec"]["root"] = {}
    with Places(empty) as places:
        found = trace_run(json.dumps(document).encode(), places)
        with pytest.raises(PipelineError, match="not made by `invoke compile`"):
            trace_run(b'{"pipeline_spec": {"pipelineInfo": {"name": "x"}}}', places)
    assert [told.partition(":")[0] for told in found.missing] == [
        "the package's digest", "the image of function", "the image of train",
    ]  # fmt: skip


def test_what_is_no_packaged_image_is_refused_or_told(
    released: Released, packaged: dict[str, str], empty: Store
) -> None:
    with Places(empty) as places:
        found = trace(released.function, places)
        assert found.missing[0].startswith("the base: the image was not made by the package stage")
        nowhere = Reference(released.function.host, "p/none", digest="sha256:" + "0" * 64)
        with pytest.raises(BuilderError, match="is not in the registry"):
            trace(nowhere, places)
        index = Reference(released.function.host, "p/pipeline", publish.tag_of(released.digest))
        with pytest.raises(PipelineError, match="is no image"):
            trace(index, places)


def test_the_task_prints_the_walk(packaged: dict[str, str], empty: Store) -> None:
    command = [sys.executable, "-m", "cli", "trace", packaged["image"]]
    env = {**os.environ, "PLATELINE_STORE": str(empty.root)}
    table, facts = (
        subprocess.run([*command, *flags], cwd=ROOT, env=env, check=True, capture_output=True)
        for flags in ([], ["--json"])
    )
    for word in (packaged["image"], packaged["artifact"], "model fold_1", "stage train", "commit"):
        assert word in table.stdout.decode()
    assert json.loads(facts.stdout)["artifact"] == packaged["artifact"]
