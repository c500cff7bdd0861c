"""A policy that does not hold ends a task with every breach in one message."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.errors import BuilderError
from builder.policy.evidence import Own
from builder.registry.client import Registry
from builder.signing.signatures import sign
from builder.store import Store
from cli import policy
from cli.pipeline import compile, run  # noqa: A004 - the task's name
from cli.testing import test_stage as stage_tests
from cli.verification import verify_release
from pipeline.definition.pipelines import definition
from pipeline.definition.settings import Settings
from pipeline.definition.stages import PIPELINES, PLATES, SCORE, images_of
from pipeline.spec.compile import compile_package
from pipeline.spec.provenance import Provenance
from tests.key_pairs import PASSWORD, key_pair
from tests.pipeline.pins import PINS
from tests.pipeline.release.parts import image, released

IMAGE = "localhost/plateline/x@sha256:" + "1" * 64


def write(folder: Path, text: str) -> str:
    (folder / "policy.toml").write_text(text)
    return str(folder / "policy.toml")


def test_it_holds_or_every_breach_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = policy.read(write(tmp_path, "[tests]\npassed = true\n"))
    passed = {"sha256:" + "1" * 64: Own(lambda: b"{}", lambda: True)}
    policy.check(asked, [IMAGE], own=passed)
    assert "1 images keep to" in capsys.readouterr().err
    with pytest.raises(
        BuilderError, match=r"does not hold:\n  image x@sha256:1+, x@.*, rule tests: "
    ):
        policy.check(asked, [IMAGE, f"{IMAGE[:-1]}2"], own={})


def test_a_file_of_advisories_that_cannot_be_read_is_no_pass(tmp_path: Path) -> None:
    asked = policy.read(write(tmp_path, '[advisories]\nfile = "lost.zip"\n'))
    with pytest.raises(BuilderError, match=r"lost\.zip cannot be read"):
        policy.check(asked, [IMAGE])


def test_a_bad_policy_ends_compile_and_run_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = write(tmp_path, "[test]\npassed = true\n")
    monkeypatch.setattr("cli.pipeline.build", None)
    with pytest.raises(BuilderError, match=r"line 1: test is no setting; did you mean tests\?"):
        compile(allow_local=True, policy=bad)
    with pytest.raises(BuilderError, match="line 1: test is no setting"):
        run("lost.yaml", policy=bad)


@pytest.mark.usefixtures("impatient")
def test_a_package_of_others_does_not_run_against_a_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The base image that is handed over as a parameter counts too."""
    monkeypatch.setenv("PLATELINE_STORE", str(tmp_path / "home/store"))
    key_pair(tmp_path)
    asked = write(tmp_path, '[signatures]\nkeys = ["lab.pub"]\n')
    pins = {name: f"127.0.0.1:1/p/{name}@sha256:{'1' * 64}" for name in PINS}
    made = compile_package(definition(Settings()), pins, Provenance("", True, {}, {}), Store.open())
    (tmp_path / "package.yaml").write_bytes(made.data)
    with pytest.raises(BuilderError) as caught:
        run(str(tmp_path / "package.yaml"), policy=asked, trust=True, runs=str(tmp_path / "runs"))
    named = {name for name, pin in pins.items() if pin.encode() in made.data}
    assert named == {"prepare", "train", "validate", "package", "function"}
    for name in named:
        assert f"{name}@sha256:111111111111" in str(caught.value)
    assert "its signatures cannot be read" in str(caught.value)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", PIPELINES)
def test_the_checkout_is_asked_for_the_images_of_the_pipeline_that_was_compiled(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLATELINE_STORE", str(tmp_path / "home/store"))
    asked = write(tmp_path, "[tests]\npassed = true\n")
    images = images_of(name)
    pins = {image: f"localhost/plateline/{image}@sha256:{'1' * 64}" for image in images}
    source = Provenance("", True, {}, {})
    made = compile_package(definition(Settings(), name), pins, source, Store.open())
    (tmp_path / "package.yaml").write_bytes(made.data)
    built: list[str] = []

    def build(targets: str, *_: object, **__: object) -> None:
        built.append(targets)
        raise BuilderError("enough")

    monkeypatch.setattr("cli.pipeline.build", build)
    needed = {SCORE: ["model=r.example/m@sha256:" + "1" * 64, "plates=p"], PLATES: ["plates=p"]}
    with pytest.raises(BuilderError, match="enough"):
        run(
            str(tmp_path / "package.yaml"), policy=asked, trust=True, runs=str(tmp_path / "runs"),
            param=needed.get(name, []),
        )  # fmt: skip
    assert [sorted(targets.split(",")) for targets in built] == [sorted(images)]


def test_a_part_of_the_tests_is_not_signed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key_pair(tmp_path)
    monkeypatch.setenv("PLATELINE_SIGNING_PASSWORD", PASSWORD.decode())
    with pytest.raises(BuilderError, match="only a pass of all tests is signed"):
        stage_tests("train", pytest="-k x", sign=str(tmp_path / "lab.key"), registry="r.example/p")


def test_a_release_is_held_against_a_policy_where_its_package_pulls(
    tmp_path: Path, store: Store, registry_host: str
) -> None:
    """What is signed in the release's own repository is not what `run` and a cluster pull."""
    key = key_pair(tmp_path)
    asked = write(tmp_path, '[signatures]\nkeys = ["lab.pub"]\n')
    images = {name: image(store, name) for name in ("function", "train")}
    where = {"key": [str(tmp_path / "lab.pub")], "registry": f"{registry_host}/p"}
    with Registry(registry_host) as client:
        released(client, registry_host, store, images, key)
        verify_release("v1", **where)
        with pytest.raises(BuilderError, match=r"image function@sha256:\w+, train@.*none did"):
            verify_release("v1", policy=asked, **where)
        for name, made in images.items():
            sign(client, f"p/{name}", made.manifest, key)
        verify_release("v1", policy=asked, **where)
