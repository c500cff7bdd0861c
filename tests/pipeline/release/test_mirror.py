"""A release moves whole: to a registry, into a tar and out of it, by digest, and goes on when cut.

regctl and oras copy it as well: `go install github.com/regclient/regclient/cmd/regctl@latest` and
`go install oras.land/oras/cmd/oras@latest`. These tests run where they are on the PATH.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder import oci
from builder.errors import BuilderError
from builder.mirror.layout import Layout
from builder.registry import pull
from builder.registry.blobs import BlobClient, push_scope
from builder.registry.client import Registry
from builder.registry.push import push
from builder.signing.keys import SigningKey
from builder.signing.results import PROVENANCE
from builder.signing.signatures import sign, signatures, state, statements
from builder.store import Store
from pipeline.definition.stages import TARGETS
from pipeline.errors import PipelineError
from pipeline.release import mirror
from pipeline.release.publish import Release, fetch, find, named_images, publish, releases
from pipeline.release.relocate import relocate
from pipeline.release.verify import verify
from pipeline.spec import provenance
from tests import registries
from tests.builder import small
from tests.builder.logins import HTPASSWD, log_in
from tests.conftest import missing
from tests.key_pairs import key_pair
from tests.pipeline.release.parts import bill, image, package, released

Images = dict[str, oci.Image]


# The release is published once; no test changes where it is.
@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def key(home: Path) -> SigningKey:
    return key_pair(home)


@pytest.fixture(scope="module")
def origin(home: Path) -> Store:
    return Store.open(home / "store")


@pytest.fixture(scope="module")
def images(origin: Store) -> Images:
    return {name: image(origin, name) for name in ("function", "train")}


@pytest.fixture(scope="module")
def client(home: Path) -> Iterator[Registry]:
    if not shutil.which(registries.PROGRAM):
        missing("docker-registry", "apt-get install docker-registry")
    with registries.serve(home / "registry", in_memory=True) as host, Registry(host) as found:
        yield found


@pytest.fixture
def near(registry_host: str) -> Iterator[Registry]:
    """Yield a registry for a test that changes where its release is."""
    with Registry(registry_host) as found:
        yield found


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Registry]:
    """Yield another registry, empty."""
    with registries.serve(tmp_path / "far", in_memory=True) as host, Registry(host) as found:
        yield found


@pytest.fixture(scope="module")
def made(client: Registry, origin: Store, images: Images, key: SigningKey) -> Release:
    """Publish a signed release of `images`, each with provenance where the package pulls it."""
    host = client.host
    released(client, host, origin, images)
    for name, each in images.items():
        sign(client, f"p/{name}", each.manifest, key)
        state(client, f"p/{name}", each.manifest, key, PROVENANCE, {"of": name})
    data = package(host, images)
    return publish(client, "p", origin, data, images, "v1", inventory=bill, key=key)


def whole(registry: Registry, path: str, made: Release, key: SigningKey) -> None:
    """Check that `path` has the release: every byte, signature, bill and provenance."""
    for which in ("v1", made.package, made.digest):
        for checked in verify(registry, path, which, [key.public]):
            assert checked.signers == (key.public,), checked
            assert checked.forms == ("bundle", "tag")
    assert [r.digest for r in releases(registry, path)] == [made.digest]
    for name, digest in made.images.items():
        for repository in (f"{path}/{name}", f"{path}/pipeline"):
            (said,) = statements(registry, repository, digest, [key.public], PROVENANCE)
            assert said.predicate == {"of": name}
            kinds = [entry.artifact_type for entry in registry.referrers(repository, digest)]
            assert "application/vnd.cyclonedx+json" in kinds or repository == f"{path}/{name}"
            found = registry.get_manifest(repository, digest)
            assert found
            manifest = json.loads(found[1])
            for blob in (manifest["config"], *manifest["layers"]):
                registry.read_blob(repository, oci.Descriptor.from_json(blob), lambda _: None)


def empty(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "empty")


def test_a_registry_gets_all_of_a_release_and_the_second_time_nothing(
    client: Registry, far: Registry, made: Release, key: SigningKey, tmp_path: Path
) -> None:
    cargo = mirror.survey(client, "p", "v1")
    moved = mirror.to_registry(cargo, empty(tmp_path), client, far, "q/r")
    assert moved.uploaded > 0
    whole(far, "q/r", made, key)
    assert fetch(far, "q/r", "v1") == fetch(client, "p", "v1")
    again = mirror.to_registry(cargo, empty(tmp_path), client, far, "q/r")
    assert (again.uploaded, again.uploads, again.mounts) == (0, 0, 0)


def test_a_registry_with_passwords_gets_it_with_the_password_alone(
    client: Registry, made: Release, key: SigningKey, tmp_path: Path
) -> None:
    (tmp_path / "htpasswd").write_text(HTPASSWD)
    auth = {"htpasswd": {"realm": "test", "path": str(tmp_path / "htpasswd")}}
    with registries.serve(tmp_path / "closed", auth=auth, in_memory=True) as host:
        cargo = mirror.survey(client, "p", "v1")
        with (
            Registry(host, docker_config=log_in(tmp_path / "out", host, "wrong")) as nobody,
            pytest.raises(BuilderError, match="401"),
        ):
            mirror.to_registry(cargo, empty(tmp_path), client, nobody, "q")
        with Registry(host, docker_config=log_in(tmp_path / "in", host)) as closed:
            mirror.to_registry(cargo, empty(tmp_path), client, closed, "q")
            whole(closed, "q", made, key)


def test_what_a_tar_took_along_arrives_in_a_registry_whole(
    client: Registry, far: Registry, made: Release, key: SigningKey, tmp_path: Path
) -> None:
    file = tmp_path / "release.tar"
    cargo = mirror.survey(client, "p", "v1")
    assert mirror.to_file(cargo, empty(tmp_path), client, file) == file.stat().st_size
    first = file.read_bytes()
    mirror.to_file(cargo, Store.open(tmp_path / "other"), client, file)
    assert file.read_bytes() == first
    with mirror.opened(file) as (layout, which):
        assert which == "v1"
        checked = verify(layout, "", which, [key.public])
        assert {each.signers for each in checked} == {(key.public,)}
        assert layout.check() > 20
        inside = mirror.survey(layout, "", which)
        mirror.to_registry(inside, Store.open(tmp_path / "third"), layout, far, "q")
    whole(far, "q", made, key)


def test_a_copy_that_was_cut_goes_on_and_has_no_name_before_it_is_whole(
    client: Registry, far: Registry, made: Release, key: SigningKey, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    sent: list[str] = []
    put = BlobClient.put_blob

    def counted(self: Registry, repository: str, blob: oci.Descriptor, *rest: object) -> None:
        if len(sent) == 5:
            sent.append("cut")
            raise KeyboardInterrupt
        sent.append(blob.digest)
        put(self, repository, blob, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(BlobClient, "put_blob", counted)
    cargo = mirror.survey(client, "p", "v1")
    with pytest.raises(KeyboardInterrupt):
        mirror.to_registry(cargo, empty(tmp_path), client, far, "q", jobs=1)
    assert releases(far, "q") == []
    sent[:] = [*sent, "on"]
    mirror.to_registry(cargo, empty(tmp_path), client, far, "q", jobs=1)
    before, after = sent[:5], sent[7:]
    assert not set(before) & set(after)
    whole(far, "q", made, key)


def test_a_tar_that_was_cut_leaves_nothing_and_goes_on_from_the_store(
    client: Registry, made: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, store = tmp_path / "out" / "release.tar", empty(tmp_path)
    file.parent.mkdir()
    cargo = mirror.survey(client, "p", "v1")
    opened = Store.open_blob

    def cut(self: Store, digest: str) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr(Store, "open_blob", cut)
    with pytest.raises(KeyboardInterrupt):
        mirror.to_file(cargo, store, client, file)
    assert list(file.parent.iterdir()) == []
    monkeypatch.setattr(Store, "open_blob", opened)
    monkeypatch.setattr(BlobClient, "read_blob", cut)  # all is in the store
    mirror.to_file(cargo, store, client, file)
    assert [found.name for found in file.parent.iterdir()] == ["release.tar"]
    assert cargo.digest == made.digest


def test_a_signature_that_the_other_side_added_stays(
    client: Registry, far: Registry, made: Release, images: Images, key: SigningKey, tmp_path: Path
) -> None:
    cargo = mirror.survey(client, "p", "v1")
    mirror.to_registry(cargo, empty(tmp_path), client, far, "q")
    theirs = key_pair(tmp_path, "clinic")
    train = images["train"].manifest
    sign(far, "q/train", train, theirs)
    mirror.to_registry(cargo, empty(tmp_path), client, far, "q")
    both = [key.public, theirs.public]
    found = signatures(far, "q/train", train.digest, both)
    assert sorted((f.form, f.key.name) for f in found if f.key) == [
        ("bundle", "clinic"), ("bundle", "lab"), ("tag", "clinic"), ("tag", "lab")
    ]  # fmt: skip


def test_what_is_listed_and_not_there_is_said(
    client: Registry, far: Registry, made: Release, images: Images, tmp_path: Path
) -> None:
    mirror.to_registry(mirror.survey(client, "p", "v1"), empty(tmp_path), client, far, "q")
    lost = far.referrers("q/train", images["train"].digest)[0].digest
    path = f"q/train/manifests/{lost}"
    far.request("DELETE", path, scope=push_scope("q/train"), expect=(202,))
    cargo = mirror.survey(far, "q", "v1")
    assert cargo.lacking == [f"{lost}, which refers to {images['train'].digest}"]


def loaded(file: Path, store: Store) -> tuple[bytes, str]:
    with mirror.opened(file) as (layout, which):
        return mirror.load(layout, which, store)


@pytest.fixture(scope="module")
def tar(client: Registry, made: Release, home: Path) -> Path:
    """Write the release into a tar."""
    found = home / "release.tar"
    mirror.to_file(mirror.survey(client, "p", "v1"), empty(home), client, found)
    return found


@pytest.fixture
def file(tar: Path, tmp_path: Path) -> Path:
    """Return a copy of the release's tar."""
    return Path(shutil.copy(tar, tmp_path))


def test_a_tar_brings_the_images_and_the_package_into_an_empty_store(
    file: Path, client: Registry, images: Images, made: Release, tmp_path: Path
) -> None:
    store = Store.open(tmp_path / "air-gapped")
    data, digest = loaded(file, store)
    assert data == fetch(client, "p", "v1")
    assert digest == made.digest
    for each in images.values():
        assert store.image(each.digest) == each
        assert all(store.has(layer.blob) for layer in each.layers)


def test_a_tar_with_another_byte_is_refused_with_the_digest(
    file: Path, images: Images, tmp_path: Path
) -> None:
    blob = images["train"].layers[0].blob
    with tarfile.open(file) as archive:
        member = archive.getmember(f"blobs/sha256/{blob.digest[7:]}")
    data = bytearray(file.read_bytes())
    data[member.offset_data + 20] ^= 1
    file.write_bytes(data)
    with pytest.raises(BuilderError, match=f"image train: .*{blob.digest} has other content"):
        loaded(file, Store.open(tmp_path / "air-gapped"))
    layout = Layout(file)
    with pytest.raises(BuilderError, match=blob.digest):
        layout.check()


def test_a_tar_that_was_cut_short_anywhere_is_refused(file: Path, tmp_path: Path) -> None:
    data = file.read_bytes()
    ends = len(data) - 1024  # two blocks of zeros
    for length in [0, 1, 511, 512, 700, *range(1024, ends, len(data) // 23), ends - 600]:
        file.write_bytes(data[:length])
        with pytest.raises(BuilderError, match=r"cut short|cannot be read as a tar|no OCI image"):
            loaded(file, Store.open(tmp_path / "air-gapped"))


def rewritten(file: Path, change) -> None:
    """Write the tar again with `change`(name -> content)."""
    with tarfile.open(file) as archive:
        members = {m.name: archive.extractfile(m).read() for m in archive}  # type: ignore[union-attr]
    change(members)
    with tarfile.open(file, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def test_a_tar_without_a_blob_is_refused_with_the_digest(
    file: Path, images: Images, tmp_path: Path
) -> None:
    blob = images["train"].layers[0].blob.digest
    rewritten(file, lambda members: members.pop(f"blobs/sha256/{blob[7:]}"))
    with pytest.raises(BuilderError, match=f"lacks the blob {blob}"):
        loaded(file, Store.open(tmp_path / "air-gapped"))


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "blobs/sha256/short", "more"])
def test_a_tar_with_what_no_layout_has_is_not_read(file: Path, name: str, tmp_path: Path) -> None:
    rewritten(file, lambda members: members.update({name: b"x"}))
    with pytest.raises(BuilderError, match="which no OCI image layout has"):
        loaded(file, Store.open(tmp_path / "air-gapped"))


def test_a_link_in_a_tar_is_not_followed(file: Path, tmp_path: Path) -> None:
    with tarfile.open(file, "a") as archive:
        info = tarfile.TarInfo(f"blobs/sha256/{'0' * 64}")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info)
    with pytest.raises(BuilderError, match="which no OCI image layout has"):
        Layout(file)


def test_a_package_that_moved_pulls_from_there_and_names_the_old_one(
    near: Registry, far: Registry, key: SigningKey, store: Store, tmp_path: Path
) -> None:
    images, client = {name: image(store, name) for name in TARGETS}, near
    made = released(client, client.host, store, images, key)
    store, clinic = empty(tmp_path), key_pair(tmp_path, "clinic")
    cargo = mirror.survey(client, "p", "v1")
    mirror.to_registry(cargo, store, client, far, "q")
    moved = relocate(far, "q", store, made.digest, [key.public], clinic)
    assert moved.digest != made.digest
    data = fetch(far, "q", moved.package)
    text = data.decode()
    assert client.host not in text
    for name, each in images.items():
        assert f"{far.host}/q/{name}@{each.digest}" in text
    said = provenance.read(data)
    assert said["relocated"] == {"package": made.package, "release": made.digest}
    assert said["commit"] == provenance.read(fetch(client, "p", "v1"))["commit"]
    for checked in verify(far, "q", moved.digest, [clinic.public]):
        assert checked.signers == (clinic.public,)
    _, entries = find(far, "q", moved.digest)
    assert named_images(entries) == dict(made.images)
    assert relocate(far, "q", store, made.digest, [key.public], clinic).digest == moved.digest


def test_nobody_signs_a_package_that_nobody_vouched_for(
    client: Registry, made: Release, tmp_path: Path
) -> None:
    stranger, own = key_pair(tmp_path, "stranger"), key_pair(tmp_path, "clinic")
    with pytest.raises(PipelineError, match="the release is not signed by stranger"):
        relocate(client, "p", empty(tmp_path), made.digest, [stranger.public], own)


def copied(program: str, *words: str, home: Path) -> None:
    if not shutil.which(program):
        module = {
            "regctl": "github.com/regclient/regclient/cmd/regctl",
            "oras": "oras.land/oras/cmd/oras",
        }
        missing(program, f"go install {module[program]}@latest")
    done = subprocess.run(
        [program, *words], env={"PATH": os.environ["PATH"], "HOME": str(home)},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def arrived(far: Registry, made: Release, key: SigningKey) -> None:
    """Check that the repository of releases alone brought everything, in the form of bundles."""
    for checked in verify(far, "q", "v1", [key.public]):
        assert checked.signers == (key.public,), checked
    for digest in made.images.values():
        assert statements(far, "q/pipeline", digest, [key.public], PROVENANCE)
    cargo = mirror.survey(far, "q", "v1")
    kinds = [d.descriptor.artifact_type for d in cargo.parts["pipeline"][1].documents.values()]
    assert kinds.count("application/vnd.cyclonedx+json") == len(made.images)


def test_regctl_copies_everything(
    client: Registry, far: Registry, made: Release, key: SigningKey, tmp_path: Path
) -> None:
    plain = [
        word for host in (client.host, far.host) for word in ("--host", f"reg={host},tls=disabled")
    ]
    copied("regctl", *plain, "image", "copy", "--referrers", "--digest-tags",
           f"{client.host}/p/pipeline:v1", f"{far.host}/q/pipeline:v1", home=tmp_path)  # fmt: skip
    arrived(far, made, key)


def test_oras_copies_everything(
    client: Registry, far: Registry, made: Release, key: SigningKey, tmp_path: Path
) -> None:
    copied("oras", "copy", "-r", "--from-plain-http", "--to-plain-http",
           f"{client.host}/p/pipeline:v1", f"{far.host}/q/pipeline:v1", home=tmp_path)  # fmt: skip
    arrived(far, made, key)


def test_oras_reads_the_tar(file: Path, far: Registry, made: Release, tmp_path: Path) -> None:
    copied("oras", "copy", "-r", "--from-oci-layout", "--to-plain-http", f"{file}:v1",
           f"{far.host}/q/pipeline:v1", home=tmp_path)  # fmt: skip
    assert find(far, "q", "v1")[0] == made.digest
    assert fetch(far, "q", "v1")


def test_a_release_of_indexes_goes_with_the_image_for_every_platform(
    near: Registry, far: Registry, key: SigningKey, tmp_path: Path
) -> None:
    store, other = Store.open(tmp_path / "one"), Store.open(tmp_path / "other")
    single = {name: image(store, name) for name in TARGETS}
    push(store, {name: (f"{i:064x}", each) for i, (name, each) in enumerate(single.items())},
         f"{near.host}/p", near)  # fmt: skip
    indexes = {name: small.index(store, single[name]) for name in ("function", "train")}
    for name, each in indexes.items():
        small.push_index(store, each, f"{near.host}/p", name, near)
    images = single | indexes
    data = package(near.host, images)
    made = publish(near, "p", store, data, images, "v1", inventory=bill, key=key)
    assert made.images == {name: each.digest for name, each in images.items()}
    cargo = mirror.survey(near, "p", "v1")
    mirror.to_registry(cargo, store, near, far, "q")
    moved = relocate(far, "q", store, made.digest, [key.public], key)
    assert moved.images == made.images
    for which in (made.digest, moved.digest):
        checked = verify(far, "q", which, [key.public])
        assert [c.signers for c in checked] == [(key.public,)] * (1 + len(images))
    for name, each in images.items():
        there = pull.named(other, far, f"q/{name}", each.digest)
        assert there is not None
        assert there.images == each.images
        for one in each.images:
            assert all(far.has_blob(f"q/{name}", layer.blob.digest) for layer in one.layers)
            (by,) = {s.key for s in signatures(far, "q/pipeline", one.digest, [key.public])}
            assert by == key.public, "an image of an index is signed for itself too"
    file = tmp_path / "release.tar"
    mirror.to_file(cargo, store, near, file)
    empty = Store.open(tmp_path / "empty")
    with mirror.opened(file) as (layout, which):
        assert mirror.load(layout, which, empty) == (data, made.digest)
    for each in images.values():
        assert pull.stored(empty, each.digest) == each.images[0], "what runs on this machine"
