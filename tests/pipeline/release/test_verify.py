"""Who signed a release and each image it reaches is said, and what is not signed is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from builder import oci
from builder.errors import BuilderError
from builder.oci import canonical
from builder.registry.artifacts import fallback_tag
from builder.registry.client import Registry
from builder.signing.keys import SigningKey
from builder.signing.results import PROVENANCE
from builder.signing.signatures import sign, signature_tag, statements
from builder.store import Store
from pipeline.errors import PipelineError
from pipeline.release.publish import PACKAGE, RELEASE, fetch, find, publish, releases, tag_of
from pipeline.release.verify import verify
from tests.key_pairs import key_pair
from tests.pipeline.release.parts import image, package, released

HOME = "p/pipeline"
Images = dict[str, oci.Image]


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    return key_pair(tmp_path)


@pytest.fixture
def images(store: Store) -> Images:
    return {name: image(store, name) for name in ("function", "train")}


def unsigned(client: Registry, which: str, *keys: SigningKey) -> list[str]:
    found = verify(client, "p", which, [key.public for key in keys])
    return [each.name for each in found if not each.signers]


def names(images: Images) -> list[str]:
    return [f"image {name}" for name in sorted(images)]


def test_the_release_and_each_image_are_signed_in_both_forms(
    store: Store, images: Images, registry_host: str, key: SigningKey
) -> None:
    with Registry(registry_host) as client:
        made = released(client, registry_host, store, images, key)
        for which in (made.digest, made.package, "v1"):
            found = verify(client, "p", which, [key.public])
            assert [each.name for each in found] == ["release", *names(images)]
            assert found[0].digest == made.digest
            assert {each.forms for each in found} == {("bundle", "tag")}
            assert {each.signers for each in found} == {(key.public,)}
            assert not any(each.problems for each in found)


def test_a_signature_does_not_change_the_release_and_signing_again_adds_nothing(
    store: Store, images: Images, registry_host: str, key: SigningKey
) -> None:
    with Registry(registry_host) as client:
        plain = released(client, registry_host, store, images)
        assert released(client, registry_host, store, images, key) == plain
        before = {tag: client.get_manifest(HOME, tag) for tag in client.tags(HOME)}
        assert released(client, registry_host, store, images, key) == plain
        assert {tag: client.get_manifest(HOME, tag) for tag in client.tags(HOME)} == before
        assert [release.digest for release in releases(client, "p")] == [plain.digest]


def test_the_package_comes_with_signed_provenance(
    store: Store, images: Images, registry_host: str, key: SigningKey
) -> None:
    with Registry(registry_host) as client:
        released(client, registry_host, store, images, key)
        _, entries = find(client, "p", "v1")
        (entry,) = [entry for entry in entries if entry.artifact_type == PACKAGE]
        (said,) = statements(client, HOME, entry.digest, [key.public], PROVENANCE)
    materials = said.predicate["buildDefinition"]["resolvedDependencies"]
    assert {"name": "source", "digest": {"gitCommit": "c" * 40}} in materials
    train = images["train"].digest.removeprefix("sha256:")
    assert {"name": "image train", "digest": {"sha256": train}} in materials


def test_what_another_key_signed_is_not_signed(
    store: Store, images: Images, registry_host: str, key: SigningKey, tmp_path: Path
) -> None:
    other = key_pair(tmp_path, "other")
    with Registry(registry_host) as client:
        released(client, registry_host, store, images, other)
        assert unsigned(client, "v1", key) == ["release", *names(images)]
        assert unsigned(client, "v1", key, other) == []
        found = verify(client, "p", "v1", [key.public])
    assert "bundle: none of the keys asked for made it" in found[0].problems[0]


def test_the_one_image_without_a_signature_is_named(
    store: Store, images: Images, registry_host: str, key: SigningKey
) -> None:
    with Registry(registry_host) as client:
        made = released(client, registry_host, store, images)
        for digest in [made.digest, *[i.digest for n, i in images.items() if n != "train"]]:
            found = client.get_manifest(HOME, digest)
            assert found
            sign(client, HOME, found[0], key)
        assert unsigned(client, "v1", key) == ["image train"]


def test_one_form_is_enough_and_the_loss_of_the_other_is_said(
    store: Store, images: Images, registry_host: str, key: SigningKey
) -> None:
    with Registry(registry_host) as client:
        made = released(client, registry_host, store, images, key)
        moved = client.get_manifest(HOME, signature_tag(images["train"].digest))
        assert moved
        client.put_manifest(HOME, signature_tag(made.digest), moved[1], oci.MANIFEST)
        first = verify(client, "p", "v1", [key.public])[0]
    assert (first.forms, first.signers) == (("bundle",), (key.public,))
    assert "tag: it is of another digest" in first.problems[0]


def test_another_release_under_the_tag_is_not_signed_though_its_images_are(
    store: Store, images: Images, registry_host: str, key: SigningKey
) -> None:
    with Registry(registry_host) as client:
        released(client, registry_host, store, images, key)
        mine = {**images, "train": image(store, "evil")}
        released(client, registry_host, store, mine)
        assert unsigned(client, "v1", key) == ["release", "image train"]


def test_a_release_that_hides_an_image_is_another_release(
    store: Store, images: Images, registry_host: str, key: SigningKey
) -> None:
    with Registry(registry_host) as client:
        made = released(client, registry_host, store, images, key)
        found = client.get_manifest(HOME, made.digest)
        assert found
        index = json.loads(found[1])
        index["manifests"] = [
            e for e in index["manifests"] if e["digest"] != images["train"].digest
        ]
        client.put_manifest(HOME, "v1", canonical.dumps(index), oci.INDEX)
        assert unsigned(client, "v1", key) == ["release"]


def test_a_digest_is_never_answered_with_another_package(
    store: Store, images: Images, registry_host: str
) -> None:
    """Whoever may push moves the tag that has the digest of a package in its name."""
    with Registry(registry_host) as client:
        made = released(client, registry_host, store, images)
        other = package(registry_host, {**images, "train": image(store, "evil")})
        publish(client, "p", store, other, images)
        evil = client.get_manifest(HOME, tag_of(canonical.sha256(other)))
        assert evil
        client.put_manifest(HOME, tag_of(made.package), evil[1], oci.INDEX)
        with pytest.raises(
            PipelineError, match=f"another package under the name of {made.package}"
        ):
            fetch(client, "p", made.package)
        assert fetch(client, "p", made.digest) == package(registry_host, images)


def test_a_release_is_found_by_its_digest_where_a_tag_of_that_name_lists_signatures(
    store: Store, images: Images, registry_host: str, key: SigningKey
) -> None:
    with Registry(registry_host) as client:
        made = released(client, registry_host, store, images, key)
        assert fallback_tag(made.digest) == tag_of(made.digest)
        assert client.get_manifest(HOME, tag_of(made.digest))
        assert find(client, "p", made.digest)[0] == made.digest


def test_what_is_no_release_is_not_verified(
    store: Store, images: Images, registry_host: str, key: SigningKey
) -> None:
    with Registry(registry_host) as client:
        with pytest.raises(PipelineError, match="has no release v9"):
            verify(client, "p", "v9", [key.public])
        index = {"schemaVersion": 2, "mediaType": oci.INDEX, "artifactType": RELEASE}
        client.put_manifest(HOME, "v8", canonical.dumps({**index, "manifests": []}), oci.INDEX)
        assert unsigned(client, "v8", key) == ["release"]


@pytest.mark.parametrize("fails_at", [0, 1, 6])
def test_a_release_gets_its_name_only_once_all_of_it_is_signed(
    store: Store, images: Images, registry_host: str, key: SigningKey,
    monkeypatch: pytest.MonkeyPatch, fails_at: int,
) -> None:  # fmt: skip
    """The registry refuses one of the manifests that signing puts there."""
    put, seen = Registry.put_manifest, []

    def refuse(self: Registry, repository: str, reference: str, *rest: object) -> str:
        if reference.endswith(".sig") or b"sigstore" in rest[0]:  # type: ignore[operator]
            seen.append(reference)
            if len(seen) == fails_at + 1:
                raise BuilderError("the disk of the registry is full")
        return put(self, repository, reference, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Registry, "put_manifest", refuse)
    with Registry(registry_host) as client:
        with pytest.raises(BuilderError, match="the disk of the registry is full") as raised:
            released(client, registry_host, store, images, key)
        assert "v1" not in client.tags(HOME)
        assert releases(client, "p") == []
        assert "the release got no name" in str(raised.value)
        assert "release; run the same command again" in str(raised.value)
        released(client, registry_host, store, images, key)
        assert unsigned(client, "v1", key) == []
