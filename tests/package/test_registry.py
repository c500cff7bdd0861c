"""builder=registry: against a real registry, what goes up, what is left alone, what comes back."""

from __future__ import annotations

import io
import json
import re
import subprocess
import tarfile
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder import oci
from builder.oci.reference import Reference
from builder.registry.client import Registry
from builder.store import Store
from builder.store.collection import collect
from builder.store.roots import kept
from tests import registries

from .conftest import PACKAGE, Run, base_image, push_base, write_servable


def image_of(reference: Reference) -> tuple[dict[str, object], oci.Image]:
    with Registry(reference.host) as registry:
        found = registry.get_manifest(reference.repository, reference.digest)
        assert found
        document = json.loads(found[1])
        config = oci.Descriptor.from_json(document["config"])
        return document, oci.parse(found[1], registry.get_blob(reference.repository, config))


def requests(log: Path, method: str, pattern: str) -> list[str]:
    """Return the paths below /v2/ that the registry was asked for, by its access log."""
    lines = re.findall(rf'"{method} (/v2/\S+) HTTP', log.read_text())
    return [path for path in lines if re.search(pattern, path)]


def test_the_models_are_one_layer_over_the_base_whose_blobs_are_mounted(
    base: Reference, registry_host: str, run: Run, servable: Path, tmp_path: Path
) -> None:
    log = tmp_path / "registry" / "registry.log"
    before = len(log.read_text())
    found = run(function_image=str(base), model_repo=f"{registry_host}/served/model")
    image = Reference.parse(found["image"])
    document, packaged = image_of(image)
    _, original = image_of(base)
    assert packaged.layers[:-1] == original.layers
    with Registry(registry_host) as registry:
        layer = registry.get_blob(image.repository, packaged.layers[-1].blob)
        assert registry.tags("served/model") == [f"kensert_CNN-{image.digest[7:19]}"]
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        assert {m.name: (oct(m.mode), m.uid, m.gid) for m in tar} == {
            "models": ("0o755", 0, 0),
            "models/fold_1.onnx": ("0o644", 0, 0),
            "models/fold_2.onnx": ("0o644", 0, 0),
            "models/manifest.json": ("0o644", 0, 0),
        }
        content = tar.extractfile("models/fold_1.onnx")
        assert content
        assert content.read() == (servable / "fold_1.onnx").read_bytes()
    names = {
        "org.opencontainers.image.base.name": f"{registry_host}/p/function",
        "org.opencontainers.image.base.digest": base.digest,
    }
    assert document["annotations"] == names
    assert packaged.config["config"]["Labels"] == {"who": "base", **names}
    same = {**original.config["config"], "Labels": {}}
    assert {**packaged.config["config"], "Labels": {}} == same
    log.write_text(log.read_text()[before:])
    for part in original.layers:
        assert not requests(log, "GET", f"{part.blob.digest}$"), "a base layer was downloaded"
        assert requests(log, "POST", f"mount={part.blob.digest.replace(':', '%3A')}")


def test_an_image_that_is_there_is_not_pushed_again(
    base: Reference, registry_host: str, run: Run, tmp_path: Path
) -> None:
    parameters = {
        "function_image": str(base),
        "model_repo": f"{registry_host}/served/model",
        "artifact_repo": f"{registry_host}/served/artifact",
        "package_digest": PACKAGE,
    }
    first = run(**parameters)
    log = tmp_path / "registry" / "registry.log"
    before = len(log.read_bytes())
    assert run(**parameters) == first
    again = tmp_path / "again.log"
    again.write_bytes(log.read_bytes()[before:])
    assert requests(again, "HEAD", "/blobs/")
    assert not requests(again, "(?:PUT|POST|PATCH)", ".")


def test_another_workspace_gives_the_same_image_another_tag(
    base: Reference, registry_host: str, run: Run
) -> None:
    there = {"function_image": str(base), "model_repo": f"{registry_host}/served/model:latest"}
    one = run(**there)
    assert run(**there, workspace_name="über mut/2") == one
    short = Reference.parse(one["image"]).digest[7:19]
    with Registry(registry_host) as registry:
        tags = registry.tags("served/model")
        assert tags == sorted(["latest", f"kensert_CNN-{short}", f"ber-mut-2-{short}"])
        assert {registry.head_manifest("served/model", tag).digest for tag in tags} == {  # type: ignore[union-attr]
            Reference.parse(one["image"]).digest
        }


def test_the_base_of_another_registry_is_copied(
    store: Store, registry_host: str, run: Run, tmp_path: Path
) -> None:
    with registries.serve(tmp_path / "other") as other:
        base = push_base(store, other)
        image = Reference.parse(
            run(function_image=str(base), model_repo=f"{registry_host}/served/model")["image"]
        )
        _, packaged = image_of(image)
        _, original = image_of(base)
    with Registry(registry_host) as registry:
        for part in packaged.layers:
            assert len(registry.get_blob("served/model", part.blob)) == part.blob.size
    assert packaged.layers[:-1] == original.layers


def test_the_image_refers_to_the_artifact_of_model_metrics_and_report(
    base: Reference, registry_host: str, run: Run, tmp_path: Path
) -> None:
    log = tmp_path / "registry" / "registry.log"
    found = run(
        function_image=str(base),
        model_repo=f"{registry_host}/served/model",
        artifact_repo=f"{registry_host}/served/artifact",
        package_digest=PACKAGE,
    )
    artifact = Reference.parse(found["artifact"])
    document, image = image_of(Reference.parse(found["image"]))
    with Registry(registry_host) as registry:
        descriptor, data = registry.get_manifest(artifact.repository, artifact.digest)  # type: ignore[misc]
        content = json.loads(data)
        assert document["subject"] == {
            "mediaType": oci.MANIFEST,
            "digest": artifact.digest,
            "size": descriptor.size,
            "artifactType": "application/vnd.plateline.model.v1",
        }
        assert content["artifactType"] == "application/vnd.plateline.model.v1"
        assert content["annotations"] == {"plateline.package": PACKAGE}
        assert image.config["config"]["Labels"]["plateline.artifact"] == str(artifact)
        assert image.config["config"]["Labels"]["plateline.package"] == PACKAGE
        titles = {
            e["annotations"]["org.opencontainers.image.title"]: oci.Descriptor.from_json(e)
            for e in content["layers"]
        }
        assert set(titles) == {"models.tar.gz", "manifest.json", "metrics.json", "report.html"}
        assert titles["models.tar.gz"].digest == image.layers[-1].blob.digest
        report = registry.get_blob(artifact.repository, titles["report.html"])
        assert report == (tmp_path / "report.html").read_bytes()
    uploads = requests(log, "PUT", f"digest={image.layers[-1].blob.digest.replace(':', '.*')}")
    assert len(uploads) == 1, "the models go up once and are mounted"


def test_who_asks_what_refers_to_the_artifact_finds_the_images(
    base: Reference, registry_host: str, run: Run
) -> None:
    there = {
        "function_image": str(base),
        "model_repo": f"{registry_host}/served/model",
        "artifact_repo": f"{registry_host}/served/model",
    }
    images = set()
    for _ in range(2):
        found = run(**there)
        images.add(Reference.parse(found["image"]).digest)
        with Registry(registry_host) as registry:
            artifact = Reference.parse(found["artifact"])
            known = registry.referrers(artifact.repository, artifact.digest)
            assert {entry.digest for entry in known} == images
            (told,) = known
            assert told.artifact_type == oci.CONFIG
            assert told.annotations["plateline.artifact"] == found["artifact"]


def test_a_registry_that_does_not_mount_gets_copies(
    base: Reference, registry_host: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Registry, "mount_blob", lambda *_: False)
    found = run(
        function_image=str(base),
        model_repo=f"{registry_host}/served/model",
        artifact_repo=f"{registry_host}/served/artifact",
    )
    _, packaged = image_of(Reference.parse(found["image"]))
    with Registry(registry_host) as registry:
        for part in packaged.layers:
            assert len(registry.get_blob("served/model", part.blob)) == part.blob.size


@given(st.text(max_size=150))
def test_any_workspace_gives_a_tag(workspace: str) -> None:
    from package.packaging import readable_tag

    tag = readable_tag(workspace, "sha256:" + "a" * 64)
    assert Reference.parse(f"host.example/a:{tag}").tag == tag
    assert tag.endswith("-aaaaaaaaaaaa")


@given(st.from_regex(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*", fullmatch=True))
def test_any_repository_gives_a_name_that_kubernetes_takes(repository: str) -> None:
    from package.stage import function_name

    name = function_name(Reference("host.example", f"p/{repository}"))
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", name)


def test_other_tools_read_image_and_artifact(
    base: Reference, registry_host: str, run: Run, tmp_path: Path
) -> None:
    found = run(
        function_image=str(base),
        model_repo=f"{registry_host}/served/model",
        artifact_repo=f"{registry_host}/served/artifact",
    )
    for name in ("image", "artifact"):
        subprocess.run(
            ["skopeo", "copy", "--quiet", "--src-tls-verify=false", f"docker://{found[name]}",
             f"dir:{tmp_path / name}"], check=True,
        )  # fmt: skip
        kept = json.loads((tmp_path / name / "manifest.json").read_text())
        assert len(list((tmp_path / name).iterdir())) == len(kept["layers"]) + 3


def test_the_store_takes_image_and_artifact_where_the_names_are_local(
    store: Store, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PLATELINE_STORE", str(store.root))
    image = base_image(store)
    found = run(
        function_image=f"localhost/function@{image.digest}",
        model_repo="localhost/served-model",
        artifact_repo="localhost/served-artifact",
        package_digest=PACKAGE,
    )
    packaged = store.image(Reference.parse(found["image"]).digest)
    assert packaged.layers[:-1] == image.layers
    for part in packaged.layers:
        store.verify(part.blob.digest)
    artifact = json.loads(store.read(Reference.parse(found["artifact"]).digest))
    for entry in artifact["layers"]:
        store.verify(entry["digest"])
    assert (tmp_path / "out" / "stack").read_text().count(
        found["image"]
    ) == 2  # what runs, and what it says of itself in a receipt
    digests = (tmp_path / "out" / "digests").read_text()
    for text in (found["image"], found["artifact"], image.digest, PACKAGE):
        assert text in digests


def test_the_store_keeps_the_last_image_of_a_name_and_all_it_reaches(
    store: Store, run: Run, monkeypatch: pytest.MonkeyPatch, servable: Path
) -> None:
    monkeypatch.setenv("PLATELINE_STORE", str(store.root))
    there = {
        "function_image": f"localhost/function@{base_image(store).digest}",
        "model_repo": "localhost/served/model",
        "artifact_repo": "localhost/served/artifact",
    }
    first = {name: Reference.parse(text).digest for name, text in run(**there).items()}
    write_servable(servable, {"fold_1": b"another"})
    second = {name: Reference.parse(text).digest for name, text in run(**there).items()}
    names = {"localhost/served/model": "image", "localhost/served/artifact": "artifact"}
    assert {name: kept(store)[name].digest for name in names} == {
        name: second[what] for name, what in names.items()
    }
    collect(store, keep_days=0, now=time.time() + 60)
    assert not any(store.path(digest).exists() for digest in first.values())
    for part in store.image(second["image"]).layers:
        store.verify(part.blob.digest)
    for entry in json.loads(store.read(second["artifact"]))["layers"]:
        store.verify(entry["digest"])


def test_store_and_registry_give_the_same_image_but_for_the_names_in_it(
    store: Store, base: Reference, registry_host: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLATELINE_STORE", str(store.root))
    there = run(function_image=str(base), model_repo=f"{registry_host}/served/model")
    here = run(function_image=str(base), model_repo="localhost/served")
    digests = {Reference.parse(found["image"]).digest for found in (there, here)}
    assert len(digests) == 1


def test_a_base_that_the_store_lacks_is_brought_from_its_registry(
    base: Reference, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PLATELINE_STORE", str(tmp_path / "empty"))
    found = run(function_image=str(base), model_repo="localhost/served")
    fresh = Store.open(tmp_path / "empty")
    for part in fresh.image(Reference.parse(found["image"]).digest).layers:
        fresh.verify(part.blob.digest)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"function_image": "localhost/function"}, "not pinned"),
        ({"model_repo": "localhost/a@sha256:" + "0" * 64}, "names a digest"),
        ({"artifact_repo": "127.0.0.1:9/a"}, "both be localhost"),
        ({"package_digest": "latest"}, "64 hex digits"),
        ({"builder": "podman"}, "none of registry, docker"),
        ({"builder": "docker"}, "needs a registry"),
        ({"model_repo": "127.0.0.1:9/a"}, "push-images"),
    ],
)
def test_what_cannot_be_packaged_is_refused_with_its_name(
    store: Store,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    parameters: dict[str, str],
    message: str,
) -> None:
    from common.errors import StageError

    monkeypatch.setenv("PLATELINE_STORE", str(store.root))
    base = f"localhost/function@{base_image(store).digest}"
    with pytest.raises(StageError, match=message):
        run(**{"function_image": base, "model_repo": "localhost/model", **parameters})


def test_a_model_that_is_not_what_its_manifest_names_is_refused(
    store: Store, run: Run, servable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from common.errors import StageError

    monkeypatch.setenv("PLATELINE_STORE", str(store.root))
    base = f"localhost/function@{base_image(store).digest}"
    data = bytearray((servable / "fold_2.onnx").read_bytes())
    data[100] ^= 1
    (servable / "fold_2.onnx").write_bytes(data)
    with pytest.raises(StageError, match=r"fold_2.onnx has sha256 .* wants .*; validate again"):
        run(function_image=base, model_repo="localhost/model")
    (servable / "fold_2.onnx").unlink()
    with pytest.raises(StageError, match="no such file"):
        run(function_image=base, model_repo="localhost/model")
