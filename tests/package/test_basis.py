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
from builder.registry.client import Registries, Registry
from builder.registry.push import push
from builder.signing.predicates import TEST_RESULT, passing
from builder.signing.signatures import sign, state
from builder.store import Store
from cli.deployment import deploy
from pipeline.errors import PipelineError
from pipeline.release.basis import base_of
from pipeline.release.trace import BASE_DIGEST, BASE_NAME
from tests.key_pairs import key_pair

from .conftest import Run

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
