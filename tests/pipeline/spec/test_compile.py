"""The same inputs give the same package, whatever else differs."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path

import pytest
import yaml

from builder.store import Store
from pipeline.definition.pipelines import definition
from pipeline.definition.settings import Settings
from pipeline.definition.stages import TARGETS
from pipeline.errors import PipelineError
from pipeline.spec.compile import compile_package, package_key, version
from pipeline.spec.package import Package, load
from pipeline.spec.provenance import Provenance, read
from tests.pipeline.pins import MADE, PINS

ROOT = Path(__file__).resolve().parents[3]


def compiled(tmp_path: Path, pins=PINS) -> Package:
    path = tmp_path / "p.yaml"
    path.write_bytes(
        compile_package(definition(Settings()), pins, MADE, Store.open(tmp_path / "store")).data
    )
    return load(path)


def test_every_container_runs_a_pinned_image_of_ours(tmp_path: Path):
    images = compiled(tmp_path).images()
    assert set(images.values()) == {PINS[name] for name in TARGETS if name != "function"}


def test_an_image_without_digest_is_refused(tmp_path: Path):
    with pytest.raises(PipelineError, match="not pinned"):
        compiled(tmp_path, pins={**PINS, "train": "registry.test/p/train:latest"})


def test_a_missing_image_is_refused(tmp_path: Path):
    with pytest.raises(PipelineError, match="train"):
        compiled(tmp_path, pins={k: v for k, v in PINS.items() if k != "train"})


@pytest.mark.parametrize("wrong", [{"gpus": -1}, {"builder": "podman"}])
def test_settings_that_mean_nothing_are_refused(wrong):
    with pytest.raises(PipelineError):
        Settings(**wrong)


def test_the_second_compilation_is_a_lookup_and_gives_the_same_bytes(tmp_path: Path):
    store = Store.open(tmp_path / "store")
    first = compile_package(definition(Settings()), PINS, MADE, store)
    second = compile_package(definition(Settings()), PINS, MADE, store)
    assert (first.cached, second.cached) == (False, True)
    assert first.data == second.data


@pytest.mark.parametrize(
    "change",
    [
        {"definition": definition(Settings(gpus=1))},
        {"definition": definition(Settings(builder="docker"))},
        {"pins": {**PINS, "train": PINS["train"].replace("ab", "cd")}},
        {"provenance": replace(MADE, dirty=True)},
    ],
)
def test_whatever_enters_the_package_changes_its_digest(tmp_path: Path, change):
    store = Store.open(tmp_path / "store")
    given = {"pins": PINS, "definition": definition(Settings()), "provenance": MADE}
    first = compile_package(**given, store=store)
    assert compile_package(**{**given, **change}, store=store).digest != first.digest


def test_a_damaged_package_in_the_store_is_made_again(tmp_path: Path):
    store = Store.open(tmp_path / "store")
    first = compile_package(definition(Settings()), PINS, MADE, store)
    path = store.path(first.digest)
    path.chmod(0o644)
    path.write_bytes(b"x" + first.data[1:])
    assert compile_package(definition(Settings()), PINS, MADE, store).data == first.data


@pytest.mark.parametrize("package", ["kfp", "kfp-kubernetes", "PyYAML", "protobuf"])
def test_a_version_is_read_as_pythons_own_reader_reads_it(package: str):
    assert version(package) == metadata.version(package)


def test_a_package_that_is_not_installed_has_no_version():
    with pytest.raises(metadata.PackageNotFoundError, match="no-such"):
        version("no-such")


SCRIPT = """
import importlib.util
import json, sys
from pathlib import Path
from builder.store import Store
from pipeline.definition.pipelines import definition
from pipeline.definition.settings import Settings
from pipeline.definition.stages import TARGETS
from pipeline.spec.compile import compile_package, package_key
from pipeline.spec.provenance import Provenance
pins = json.loads(sys.argv[1])
made = Provenance("c" * 40, False, {}, {})
print(compile_package(definition(Settings()), pins, made, Store.open(Path(sys.argv[2]))).digest)
"""


def test_the_bytes_do_not_depend_on_path_user_time_zone_locale_or_hash_seed(tmp_path: Path):
    digests = set()
    for number, environment in enumerate(
        (
            {"TZ": "UTC", "LC_ALL": "C", "PYTHONHASHSEED": "1", "USER": "a", "HOME": "/tmp"},
            {"TZ": "Asia/Tokyo", "LC_ALL": "de_DE.UTF-8", "PYTHONHASHSEED": "99", "USER": "b"},
        )
    ):
        home = tmp_path / f"checkout é {number}"
        for floor in ("builder", "pipeline"):
            shutil.copytree(ROOT / floor, home / floor)
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, json.dumps(PINS), str(home / "store")],
            cwd=home, env={**os.environ, **environment}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        digests.add(done.stdout)
    assert len(digests) == 1


def test_a_package_says_what_it_was_made_from(tmp_path: Path):
    made = Provenance("c" * 40, False, {"train": {"layers": {"COPY a: b # c": "d é"}}}, {})
    data = compile_package(definition(Settings()), PINS, made, Store.open(tmp_path / "store")).data
    assert read(data) == asdict(made)
    assert data.startswith(b"# PIPELINE DEFINITION\n")


def test_what_an_api_server_gives_back_says_it_too(tmp_path: Path):
    """It stores both parts in one document, begins with `components:`, and drops comments."""
    data = compile_package(definition(Settings()), PINS, MADE, Store.open(tmp_path / "store")).data
    spec, platform = yaml.safe_load_all(data)
    stored = {"pipeline_spec": spec, "platform_spec": platform}
    for given in (spec, stored, {"run_id": "7", "pipeline_spec": stored}):
        assert read(json.dumps(given).encode()) == asdict(MADE)
        assert read(yaml.safe_dump(given).encode()) == asdict(MADE)
    assert spec["pipelineInfo"]["description"].startswith("From a microscopy plate to")


def test_a_package_of_others_does_not():
    with pytest.raises(PipelineError, match="invoke compile"):
        read(b"# PIPELINE DEFINITION\npipelineInfo: {name: x, description: made by hand}\n")


def closure(module: str) -> set[str]:
    """Return `module` and all of this repository that it imports, as dotted names."""
    import grimp

    graph = grimp.build_graph("builder", "pipeline", include_external_packages=False)
    return {module, *graph.find_upstream_modules(module)}


def decides_nothing(module: str) -> bool:
    """The store keeps a package's bytes, checked by digest, wherever it is; an exception's class is
    in none; what the reader of the settings file found is in the key itself."""
    return module.startswith(("builder.store", "builder.folders", "builder.toml")) or (
        module.endswith(".errors")
    )


def test_the_key_holds_every_module_that_decides_what_a_package_holds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each module of the closure is changed in turn; none may leave the key as it was."""
    modules = closure("pipeline.spec.compile") | closure("pipeline.definition.plate_to_model")
    files = {
        Path(importlib.util.find_spec(name).origin) for name in modules if not decides_nothing(name)
    }
    before = package_key(definition(Settings()), PINS, MADE)
    read_bytes = Path.read_bytes
    unnoticed = []
    for changed in files:
        monkeypatch.setattr(
            Path, "read_bytes",
            lambda self, changed=changed: read_bytes(self) + b"#" * (self == changed),
        )  # fmt: skip
        if package_key(definition(Settings()), PINS, MADE) == before:
            unnoticed.append(changed.relative_to(ROOT))
    assert {f.stem for f in files} > {"compile", "lint", "values", "plate_to_model", "provenance"}
    assert not unnoticed
