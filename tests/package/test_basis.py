"""A packaged image is known by its base only where it adds models and nothing else to it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from builder import oci
from builder.errors import BuilderError
from builder.oci.entry import Entry
from builder.oci.layer import write_layer
from builder.oci.reference import Reference
from builder.platform import AMD64, ARM64
from builder.registry import pull
from builder.registry.client import Registries, Registry
from builder.registry.push import push
from builder.signing.predicates import TEST_RESULT, passing
from builder.signing.signatures import sign, state
from builder.store import Store
from builder.store.roots import kept
from cli.deployment import deploy
from pipeline.errors import PipelineError
from pipeline.release.basis import base_of
from pipeline.release.trace import BASE_DIGEST, BASE_NAME, Places, trace
from tests.builder import small
from tests.key_pairs import key_pair

from .conftest import PACKAGE, Run, base_image

Config = Callable[[dict[str, Any]], object]


def packaged(base: Reference, host: str, run: Run, **more: str) -> Reference:
    made = run(function_image=str(base), model_repo=f"{host}/served/model", **more)
    return Reference.parse(made["image"])


def found(store: Store, image: Reference) -> Reference:
    with Registries() as registries:
        return base_of(registries, store, image)


def pushed(
    base: Reference, store: Store, entries: list[Entry], change: Config = lambda _: None,
    *, onto: int = 2,
) -> Reference:  # fmt: skip
    """Push an image by hand: `entries` on the first `onto` layers of the base, which it names."""
    under = store.image(base.digest)
    with store.writing() as (stream, keep):
        layer = write_layer(entries, stream)
        keep(layer.blob.digest)
    config = json.loads(json.dumps({k: v for k, v in under.config.items() if k != "rootfs"}))
    name = f"{base.host}/{base.repository}"
    config["config"]["Labels"] = {BASE_NAME: name, BASE_DIGEST: base.digest}
    change(config["config"])
    image, documents = oci.assemble(config, (*under.layers[:onto], layer))
    store.add_image(documents)
    with Registry(base.host) as registry:
        made = push(store, {"evil": ("1" * 64, image)}, f"{base.host}/served", registry)
    return made["evil"].reference


def test_the_base_is_the_image_that_was_packaged_on(
    base: Reference, registry_host: str, run: Run, store: Store
) -> None:
    assert found(store, packaged(base, registry_host, run)) == base


def test_an_index_stands_on_an_index_each_image_on_that_of_its_platform(
    registry_host: str, run: Run, store: Store, servable: Path
) -> None:
    under = small.index(store, base_image(store))
    with Registry(registry_host) as registry:
        base = small.push_index(store, under, f"{registry_host}/p", "function", registry)
        made = run(
            function_image=base, model_repo=f"{registry_host}/served/model",
            artifact_repo=f"{registry_host}/served/artifact", package_digest=PACKAGE,
        )  # fmt: skip
        image = Reference.parse(made["image"])
        named = pull.named(store, registry, image.repository, image.digest)
        assert named is not None
        again = run(
            function_image=base, model_repo=f"{registry_host}/served/model",
            artifact_repo=f"{registry_host}/served/artifact", package_digest=PACKAGE,
        )  # fmt: skip
        (tag,) = [t for t in registry.tags("served/model") if not t.startswith("sha256-")]
        tagged = registry.head_manifest("served/model", tag)
    assert again["image"] == made["image"]
    assert tagged
    assert tagged.digest == image.digest, "a tag leads to the index alone"
    for one, below in zip(named.images, under.images, strict=True):
        assert one.config["architecture"] == below.config["architecture"]
        assert one.layers[:-1] == below.layers
    assert len({one.layers[-1].blob.digest for one in named.images}) == 1, "the models"
    assert str(found(store, image)) == base
    with Places(store) as places:
        walked = trace(image, places)
    assert (walked.base, walked.artifact, walked.package) == (base, made["artifact"], PACKAGE)
    assert [model["name"] for model in walked.models] == ["fold_1", "fold_2"]
    folder = servable.parent / "fetched"
    folder.mkdir()
    with Registries() as registries:
        from package.fetch import fetch_model

        fetch_model(image, folder, registries)
    assert {p.name for p in folder.iterdir()} == {p.name for p in servable.iterdir()}


def test_an_index_in_the_store_is_packaged_there(
    run: Run, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLATELINE_STORE", str(store.root))
    under = small.index(store, base_image(store))
    made = run(function_image=f"localhost/function@{under.digest}", model_repo="localhost/model")
    image = Reference.parse(made["image"])
    assert kept(store)["localhost/model"].digest == image.digest
    for platform in (AMD64, ARM64):
        one = pull.stored(store, image.digest, platform)
        assert one.config["architecture"] == platform.architecture
        assert all(store.has(layer.blob) for layer in one.layers)


def test_a_docker_engine_is_not_asked_for_several_platforms(
    registry_host: str, run: Run, store: Store
) -> None:
    from common.errors import StageError

    with Registry(registry_host) as registry:
        under = small.index(store, base_image(store))
        base = small.push_index(store, under, f"{registry_host}/p", "function", registry)
    with pytest.raises(StageError, match="a Docker Engine builds for its own; use builder=regis"):
        run(function_image=base, model_repo=f"{registry_host}/served/model", builder="docker")


MODEL = Entry("models/a.onnx", "file", content=b"a")
FOLDER = Entry("models", "dir")


@pytest.mark.parametrize(
    ("entries", "change", "onto", "says"),
    [
        ([Entry("app", "dir"), Entry("app/function.py", "file", content=b"x")], None, 2,
         "its top layer has 'app'"),
        ([FOLDER, Entry("models/a", "symlink", target="/app/big")], None, 2, "has 'models/a'"),
        ([FOLDER, Entry("models/b", "dir"), Entry("models/b/c", "file", content=b"x")], None, 2,
         "has 'models/b'"),
        ([FOLDER, MODEL], None, 1, "it is not .* with one more layer"),
        ([FOLDER, MODEL], lambda c: c.update(Cmd=["sh"]), 2, "it starts otherwise than"),
        ([FOLDER, MODEL], lambda c: c.update(User="0"), 2, "it starts otherwise than"),
        ([FOLDER, MODEL], lambda c: c["Env"].append("PYTHONPATH=/models"), 2, "starts otherwise"),
        ([FOLDER, MODEL], lambda c: c.pop("Labels"), 2, "it names no function image"),
    ],
)  # fmt: skip
def test_what_adds_anything_else_has_no_base(
    base: Reference, store: Store, entries: list[Entry], change: Config | None, onto: int, says: str
) -> None:
    image = pushed(base, store, entries, change or (lambda _: None), onto=onto)
    with pytest.raises(PipelineError, match=says):
        found(store, image)


def test_an_image_is_deployed_only_where_it_and_its_base_keep_to_the_policy(
    base: Reference, registry_host: str, run: Run, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("PLATELINE_STORE", str(tmp_path / "home/store"))
    image = packaged(base, registry_host, run)
    key = key_pair(tmp_path)
    asked = tmp_path / "policy.toml"
    asked.write_text('[signatures]\nkeys = ["lab.pub"]\n[tests]\npassed = true\n')

    def put(wanted: Reference, target: str = "kubernetes") -> str:
        deploy(target, image=str(wanted), policy=str(asked), dry_run=True)
        return capsys.readouterr().out

    def descriptor(registry: Registry, of: Reference) -> oci.Descriptor:
        head = registry.head_manifest(of.repository, of.digest)
        assert head
        return head

    with pytest.raises(BuilderError) as caught:
        put(image)
    said = str(caught.value)
    assert f"model@{image.digest[:19]}, rule signatures: 1 of" in said.replace("function@", "")
    assert f"image function@{base.digest[:19]}, rule tests: nobody" in said
    assert f"model@{image.digest[:19]}, rule tests" not in said
    with Registry(registry_host) as registry:
        for each in (image, base):
            sign(registry, each.repository, descriptor(registry, each), key)
        result = passing({})
        state(registry, base.repository, descriptor(registry, base), key, TEST_RESULT, result)
    for target in ("kubernetes", "openfaas"):
        assert str(image) in put(image, target)
    deploy("kserve", image=str(image), modelcar=True, dry_run=True)
    mounted = capsys.readouterr().out
    assert f"image: {base}" in mounted
    assert f"oci+native://{image}" in mounted
    with pytest.raises(PipelineError, match="no image that the package stage made"):
        put(base)
