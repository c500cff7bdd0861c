"""FROM and COPY --from an image of a registry, by digest; its layers move only when needed."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from builder import oci
from builder.build.make import build, plans
from builder.build.workspace import Workspace
from builder.errors import BuilderError
from builder.oci import canonical
from builder.oci.entry import Entry
from builder.oci.layer import write_layer
from builder.platform import AMD64, ARM64, Platform
from builder.registry.client import Registry
from builder.registry.pull import bring, pull
from builder.registry.push import push
from builder.sandbox.bubblewrap import Bubblewrap
from builder.sandbox.process import Process, run
from builder.sandbox.unpack import image_entries
from builder.store import Store, origins
from builder.testing.stage_tests import pytest as pytest_in
from builder.testing.stage_tests import with_testing
from tests.builder import packed
from tests.builder.conftest import Make

ROOT = Path(__file__).parents[3]
BASE = """
FROM scratch
ENV PATH=/opt/bin A=1
LABEL from=base
COPY src/ /app/
USER 7:8
WORKDIR /app
"""
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
OTHER = {"own": "mine"}


@pytest.fixture
def base(make: Make, tmp_path: Path, registry_host: str) -> oci.Image:
    """An image in the registry as p/base, made in a store of its own."""
    store = Store.open(tmp_path / "first")
    built = build(make(BASE, "first-workspace", **{"src/run": "x", "src/sub/data": "y"}), store)
    with Registry(registry_host) as registry:
        push(store, {"base": (built["a"].key, built["a"].image)}, f"{registry_host}/p", registry)
    return built["a"].image


def put(host: str, document: Mapping[str, Any]) -> str:
    """Upload a manifest or index to p/base and return its digest."""
    data = canonical.dumps(document)
    with Registry(host) as registry:
        return registry.put_manifest(
            "p/base", canonical.sha256(data), data, str(document["mediaType"])
        )


def as_docker(host: str, image: oci.Image) -> str:
    """Upload the manifest that Docker would have written for `image`."""
    layers = [{**layer.blob.to_json(), "mediaType": oci.DOCKER_LAYER} for layer in image.layers]
    config = {**image.config_blob.to_json(), "mediaType": DOCKER_CONFIG}
    return put(
        host,
        {"schemaVersion": 2, "mediaType": oci.DOCKER_MANIFEST, "config": config, "layers": layers},
    )


def as_index(host: str, image: oci.Image, media_type: str = oci.INDEX) -> str:
    """Upload an index of two platforms and an attestation, of which one entry is `image`."""
    platforms = [
        {"os": "linux", "architecture": "arm64"},
        {"os": "unknown", "architecture": "unknown"},
        {"os": "linux", "architecture": "amd64"},
    ]
    other = json.loads(canonical.dumps(image.config)) | {"architecture": "arm64"}
    with Registry(host) as registry:
        document = canonical.dumps(other)
        config = oci.describe(oci.CONFIG, document)
        registry.put_blob("p/base", config, lambda: io.BytesIO(document))
    manifest = {"schemaVersion": 2, "mediaType": oci.MANIFEST, "config": config.to_json(),
                "layers": [layer.blob.to_json() for layer in image.layers]}  # fmt: skip
    digest = put(host, manifest)
    wrong = oci.describe(oci.MANIFEST, canonical.dumps(manifest))
    assert wrong.digest == digest
    entries = [
        {**(image.manifest if p["architecture"] == "amd64" else wrong).to_json(), "platform": p}
        for p in platforms
    ]
    return put(host, {"schemaVersion": 2, "mediaType": media_type, "manifests": entries})


def handmade(host: str, layers: list[list[Entry]]) -> str:
    """Upload an image of `layers` as some other tool might have made it."""
    made = []
    with Registry(host) as registry:
        for entries in layers:
            sink = io.BytesIO()
            made.append(write_layer(entries, sink))
            data = sink.getvalue()
            registry.put_blob("p/base", made[-1].blob, partial(io.BytesIO, data))
        config = {"architecture": "amd64", "os": "linux", "config": {"Env": None}}
        image, documents = oci.assemble(config, tuple(made))
        document = documents[image.config_blob.digest]
        registry.put_blob("p/base", image.config_blob, lambda: io.BytesIO(document))
        manifest = documents[image.digest]
        return registry.put_manifest("p/base", image.digest, manifest, oci.MANIFEST)


def test_an_image_by_digest_is_built_on_without_a_layer_being_fetched(
    make: Make, store: Store, registry_host: str, base: oci.Image
) -> None:
    workspace = make(f"FROM {registry_host}/p/base@{base.digest}\nENV B=2\n", **OTHER)
    image = build(workspace, store)["a"].image
    assert [layer.diff_id for layer in image.layers] == [layer.diff_id for layer in base.layers]
    assert not any(store.has(layer.blob) for layer in image.layers), "a layer was downloaded"
    config = image.config["config"]
    assert config["Env"] == ["PATH=/opt/bin", "A=1", "B=2"]
    assert (config["User"], config["WorkingDir"]) == ("7:8", "/app")
    assert config["Labels"] == {"from": "base"}
    assert build(workspace, store)["a"].cached


def test_the_base_is_asked_for_once_and_never_again(
    make: Make, store: Store, registry_host: str, base: oci.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = as_index(registry_host, base)
    workspace = make(f"FROM {registry_host}/p/base@{digest}\n", **OTHER)
    first = build(workspace, store)["a"].image

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the registry was asked")

    monkeypatch.setattr("builder.registry.pull._registries", refuse)
    assert build(workspace, store)["a"].image == first


@pytest.mark.parametrize(
    "kind",
    [
        lambda _host, image: image.digest,
        as_docker,
        as_index,
        lambda host, image: as_index(host, image, oci.DOCKER_INDEX),
    ],
    ids=["OCI manifest", "Docker manifest", "OCI index", "Docker list"],
)
def test_every_way_an_image_is_written_gives_the_same_layers(
    make: Make,
    store: Store,
    registry_host: str,
    base: oci.Image,
    kind: Callable[[str, oci.Image], str],
) -> None:
    digest = kind(registry_host, base)
    recipe = f"FROM scratch\nCOPY --from={registry_host}/p/base@{digest} /app/sub /copied/\n"
    image = build(make(recipe, **OTHER), store)["a"].image
    entries = {e.path: e for e in image_entries(store, image)}
    assert sorted(entries) == ["copied", "copied/data"]
    assert entries["copied/data"].open().read() == b"y"

    recipe = f"FROM {registry_host}/p/base@{digest}\nCOPY own /app/\n"
    image = build(make(recipe, **OTHER), store)["a"].image
    assert image.layers[0].diff_id == base.layers[0].diff_id
    assert {layer.blob.media_type for layer in image.layers} == {oci.LAYER}
    found = {e.path for e in image_entries(store, image)}
    assert {"app/run", "app/own", "app/sub/data"} <= found


def test_the_key_of_a_base_is_its_image_whatever_index_or_registry_names_it(
    make: Make, store: Store, registry_host: str, base: oci.Image
) -> None:
    index = as_index(registry_host, base)
    port = registry_host.partition(":")[2]
    names = [
        f"{registry_host}/p/base@{base.digest}",
        f"localhost:{port}/p/base@{base.digest}",
        f"localhost:{port}/p/base@{index}",
    ]
    keys = {build(make(f"FROM {name}\nENV B=2\n", **OTHER), store)["a"].key for name in names}
    assert len(keys) == 1


def test_pushing_mounts_the_base_layers_or_fetches_them_for_another_registry(
    make: Make, store: Store, registry_host: str, base: oci.Image, tmp_path: Path
) -> None:
    recipe = f"FROM {registry_host}/p/base@{base.digest}\nCOPY --link own /own\n"
    built = build(make(recipe, **OTHER), store)["a"]
    images = {"a": (built.key, built.image)}
    with Registry(registry_host) as registry:
        pushed = push(store, images, f"{registry_host}/q", registry)["a"]
    assert pushed.mounted_blobs == len(base.layers)
    assert not any(store.has(layer.blob) for layer in base.layers), "a layer was downloaded"
    host = "localhost:" + registry_host.partition(":")[2]  # another name: no mount is tried
    with Registry(host) as registry:
        for_other = push(store, images, f"{host}/r", registry)["a"]
        fresh = Store.open(tmp_path / "fresh")
        assert pull(fresh, registry, for_other.reference) == built.image
    assert for_other.uploaded > sum(layer.blob.size for layer in base.layers)


def test_a_copy_keeps_the_folders_and_follows_the_links_of_a_pulled_image(
    make: Make, store: Store, registry_host: str
) -> None:
    image = handmade(
        registry_host,
        [
            [
                Entry("usr/lib", "dir", 0o755),
                Entry("lib", "symlink", 0o777, target="usr/lib"),
                Entry("tmp", "dir", 0o1777),
                Entry("srv", "dir", 0o750, 7, 8),
            ]
        ],
    )
    recipe = (
        f"FROM {registry_host}/p/base@{image}\nCOPY own /lib/x/\nCOPY own /tmp/\nWORKDIR /srv\n"
    )
    entries = image_entries(store, build(make(recipe, **OTHER), store)["a"].image)
    found = {e.path: (e.kind, e.mode, e.uid, e.gid) for e in entries}
    assert found["lib"][0] == "symlink"
    assert found["usr/lib/x/own"] == ("file", 0o644, 0, 0)
    assert found["tmp"] == ("dir", 0o1777, 0, 0)
    assert found["srv"] == ("dir", 0o750, 7, 8)


def test_what_a_pulled_image_deletes_is_gone(make: Make, store: Store, registry_host: str) -> None:
    image = handmade(
        registry_host,
        [
            [
                Entry("d/gone", "file", content=b"1"),
                Entry("d/kept", "file", content=b"2"),
                Entry("e/all", "file", content=b"3"),
                Entry("f/x", "file", content=b"4"),
                Entry("l", "symlink", 0o777, target="/d"),
                Entry("d/same", "hardlink", target="d/gone"),
            ],
            [
                Entry("d/.wh.gone", "file", content=b""),
                Entry("e/.wh..wh..opq", "file", content=b""),
                Entry("e/new", "file", content=b"5"),
                Entry(".wh.f", "file", content=b""),
                Entry(".wh.l", "file", content=b""),
            ],
        ],
    )
    recipe = f"FROM scratch\nCOPY --from={registry_host}/p/base@{image} / /\n"
    entries = image_entries(store, build(make(recipe, **OTHER), store)["a"].image)
    assert [e.path for e in entries] == ["d", "d/kept", "d/same", "e", "e/new"]
    recipe = f"FROM {registry_host}/p/base@{image}\nCOPY own /l/\nCOPY own /f\n"
    entries = image_entries(store, build(make(recipe, **OTHER), store)["a"].image)
    assert [e.path for e in entries] == ["d", "d/kept", "d/same", "e", "e/new", "f", "l", "l/own"]


def test_an_image_that_deletes_files_runs_without_them() -> None:
    """The project's base image, with a layer on top as other tools make them."""
    store = Store.open()
    base = build(Workspace.load(ROOT), store, ["base"])["base"].image
    entries = [
        Entry("etc/.wh.os-release", "file", content=b""),
        Entry("etc/new", "file", content=b"new"),
        Entry("etc/same", "hardlink", target="etc/new"),
    ]
    with store.writing() as (stream, keep):
        top = write_layer(entries, stream)
        keep(top.blob.digest)
    image, _ = oci.assemble(base.config, (*base.layers, top))
    script = "import os; print(os.path.lexists('/etc/os-release'), open('/etc/same').read())"
    with tempfile.TemporaryFile() as output:
        process = Process(image=image, command=("python3", "-c", script))
        assert run(Bubblewrap(store), process, output).code == 0
        output.seek(0)
        assert output.read().decode().split() == ["False", "new"]


def test_a_base_layer_that_was_lost_is_fetched_again(
    make: Make, store: Store, registry_host: str, base: oci.Image
) -> None:
    recipe = f"FROM {registry_host}/p/base@{base.digest}\nCOPY own /own\n"
    image = build(make(recipe, **OTHER), store)["a"].image
    assert image_entries(store, image)
    store.path(base.layers[0].blob.digest).unlink()
    assert origins.at_hand(store, image)
    assert bring(store, base.layers[0].blob)
    store.verify(base.layers[0].blob.digest)


@pytest.mark.parametrize("platform", [AMD64, ARM64])
def test_each_platform_stands_on_its_own_image_of_an_index(
    make: Make, store: Store, registry_host: str, base: oci.Image, platform: Platform
) -> None:
    name = f"{registry_host}/p/base@{as_index(registry_host, base)}"
    recipe = f"FROM {name}\nENV B=2\nCOPY --from={name} /app/run /b\n"
    image = build(make(recipe, **OTHER), store, platform=platform)["a"].image
    assert image.config["architecture"] == platform.architecture
    assert [layer.diff_id for layer in image.layers[:-1]] == [x.diff_id for x in base.layers]
    with pytest.raises(BuilderError, match=r"is for linux/amd64; pin .* for linux/arm64, or of"):
        build(make(f"FROM {registry_host}/p/base@{base.digest}\n", **OTHER), store, platform=ARM64)


def test_byte_code_for_another_platform_is_compiled_by_the_image_of_the_same_index(
    make: Make,
    store: Store,
    registry_host: str,
    base: oci.Image,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PLATELINE_STORE", str(store.root))

    def compiled_by(image: str, platform: Platform) -> str:
        name = f"{registry_host}/p/base@{image}"
        workspace = make(f"FROM {name}\nCOPY --from=wheels / /v/\n", **OTHER)
        for each in (AMD64, ARM64):
            packed.lock_wheels(
                workspace.root / "stages/a", ("plain-1-py3-none-any.whl", b"x"), platform=each
            )
        (step,) = plans(workspace, store, ["a"], platform)["a"].layers
        return str(step.plan.inputs["bytecode"])

    index = as_index(registry_host, base)
    assert compiled_by(index, ARM64) == compiled_by(index, AMD64)
    arm = altered(registry_host, base, architecture="arm64")
    with pytest.raises(BuilderError, match="cannot be run here to compile; pin the digest of an i"):
        compiled_by(arm, ARM64)


def test_tests_are_laid_over_a_base_of_others_and_nothing_of_our_own_base_is(
    make: Make, store: Store, registry_host: str, base: oci.Image
) -> None:
    """What brings pytest is a layer of the target `testing`, or of one for another Python."""
    recipe = f"FROM {registry_host}/p/base@{base.digest}\nCOPY own /own\n"
    others = {
        "stages/base/Dockerfile": "FROM scratch\nCOPY own /debian\n",
        "stages/testing/Dockerfile": "FROM base\nCOPY own /opt/testing/pytest\n",
        **OTHER,
    }
    image = with_testing(make(recipe, **others), store, "a")
    assert [layer.created_by for layer in image.layers[len(base.layers) :]] == [
        "COPY own /own", "COPY own /opt/testing/pytest",
    ]  # fmt: skip
    assert "/opt/testing/lib/python3.13/" in pytest_in(image, store.root, ()).env["PYTHONPATH"]
    older = recipe + "ENV PYTHON_VERSION=3.11.7\n"
    with pytest.raises(BuilderError, match=r"a has Python 3\.11, .* Make the target testing_a .*"):
        with_testing(make(older, **others), store, "a")
    path = "/app:/opt/testing/lib/python3.11/site-packages"
    own = f"FROM a\nCOPY own /opt/testing/pytest\nENV PYTHONPATH={path}\n"
    workspace = make(older, **others, **{"stages/testing_a/Dockerfile": own})
    image = with_testing(workspace, store, "a")
    assert image == build(workspace, store)["testing_a"].image
    assert pytest_in(image, store.root, ()).env["PYTHONPATH"] == f"{path}:/inside"
    own = own.replace("FROM a", "FROM base")
    with pytest.raises(BuilderError, match="does not stand on the stage; begin it with `FROM a`"):
        with_testing(make(older, **others, **{"stages/testing_a/Dockerfile": own}), store, "a")


def altered(host: str, image: oci.Image, **changes: object) -> str:
    """Upload `image` with another config and return the manifest's digest."""
    document = canonical.dumps({**image.config, **changes})
    config = oci.describe(oci.CONFIG, document)
    with Registry(host) as registry:
        registry.put_blob("p/base", config, lambda: io.BytesIO(document))
    return put(host, {"schemaVersion": 2, "mediaType": oci.MANIFEST, "config": config.to_json(),
                      "layers": [layer.blob.to_json() for layer in image.layers]})  # fmt: skip


def test_what_cannot_be_built_on_is_refused_with_line_and_way_out(
    make: Make, store: Store, registry_host: str, base: oci.Image
) -> None:
    name = f"{registry_host}/p/base"
    arm = altered(registry_host, base, architecture="arm64")
    triggers = altered(registry_host, base, config={"OnBuild": ["RUN true"]})
    xz = put(
        registry_host,
        {
            "schemaVersion": 2,
            "mediaType": oci.MANIFEST,
            "config": base.config_blob.to_json(),
            "layers": [
                {**layer.blob.to_json(), "mediaType": "application/vnd.oci.image.layer.v1.tar+xz"}
                for layer in base.layers
            ],
        },
    )
    windows = put(
        registry_host,
        {
            "schemaVersion": 2,
            "mediaType": oci.INDEX,
            "manifests": [
                {
                    **base.manifest.to_json(),
                    "platform": {"os": "windows", "architecture": "amd64"},
                }
            ],
        },
    )
    at = r"^stages/a/Dockerfile:2: "
    for image, says in {
        f"{name}:latest": rf"can be another image tomorrow; pin it: {name}@sha256:…",
        f"{name}@sha256:12": r"not sha256: and 64 hexadecimal digits",
        f"{name}@sha256:{'0' * 64}": r"is not in the registry; push it there or mend the digest",
        "python@sha256:" + "0" * 64: r"does not name its registry; write HOST/REPOSITORY",
        f"{name}@{arm}": r"is for linux/arm64; pin the digest of its image for linux/amd64",
        f"{name}@{triggers}": r"has ONBUILD triggers",
        f"{name}@{xz}": r"tar\+xz; only tars compressed by gzip or zstd .*skopeo copy",
        f"{name}@{windows}": r"has no image for linux/amd64, only for windows/amd64",
        "python:3.13": r"'python:3.13' is no target .* host/repository@sha256:…",
    }.items():
        for recipe in (f"# base\nFROM {image}\n", f"FROM scratch\nCOPY --from={image} /app /app\n"):
            with pytest.raises(BuilderError, match=at + ".*" + says):
                build(make(recipe, **OTHER), store)
