"""No step writes to the store of the machine: what it publishes is checked, then imported."""

import json

import pytest

from builder import oci
from builder.oci import canonical, layer
from builder.oci.entry import Entry
from builder.store import Store, roots
from pipeline.errors import PipelineError
from pipeline.run.step.publication import Publication, pins
from tests.builder import small

TARGET = "localhost/t/model"


@pytest.fixture
def house(tmp_path):
    """Return a store of a machine, with a result that builds believe."""
    store = Store.open(tmp_path / "house")
    store.put_result("a" * 64, {"manifest": "sha256:" + "b" * 64})
    return store


@pytest.fixture
def publication(house, tmp_path):
    made = Publication.open(house, tmp_path / "own", {"repo": f"{TARGET}:v1"})
    made.renew()
    return made


def image_in(store, content=b"model"):
    """Publish an image of one small layer in a store as the package stage does."""
    with store.writing() as (stream, keep):
        made = layer.write_layer([Entry("models/m", "file", 0o644, content=content)], stream)
        keep(made.blob.digest)
    image, documents = oci.assemble({"architecture": "amd64", "os": "linux", "config": {}}, (made,))
    store.add_image(documents)
    roots.keep(store, TARGET, image.manifest)
    return image


def state(store):
    """Return all that a store holds, but for locks, times and what the sandbox unpacked."""
    return {
        path.relative_to(store.root).as_posix(): path.read_bytes()
        for path in sorted(store.root.rglob("*"))
        if path.is_file()
        and not path.name.endswith("lock")
        and not path.is_relative_to(store.root / "unpacked")
    }


def test_what_a_step_publishes_is_in_the_store_under_its_name(house, publication):
    image = image_in(Store(publication.folder))
    publication.take()
    assert roots.kept(house)[TARGET].digest == image.digest
    assert house.image(image.digest) == image
    assert house.has(image.layers[0].blob)
    assert not publication.folder.exists()


def test_a_pinned_image_is_lent_and_nothing_can_be_published_beside_it(house, tmp_path):
    image = image_in(house)
    given = {"model": f"{TARGET}@{image.digest}"}
    assert pins(given)
    assert not pins({"model": TARGET})
    assert not pins({"model": f"registry.test/model@{image.digest}"})
    made = Publication.open(house, tmp_path / "own", given)
    made.renew()
    assert image.digest in made.lent
    assert image.layers[0].blob.digest in made.lent
    before = state(house)
    image_in(Store(made.folder), b"another model")
    with pytest.raises(PipelineError, match="which none of its parameters names"):
        made.take()
    assert state(house) == before


def forged_result(own, house):
    own.put_result("a" * 64, {"manifest": "sha256:" + "c" * 64})


def forged_origin(own, house):
    (own.root / "origins").mkdir()
    (own.root / "origins" / ("d" * 64)).write_text("elsewhere.example/x")


def unnamed_blob(own, house):
    own.add(b"nobody asked for this")


@pytest.mark.parametrize("forge", [forged_result, forged_origin, unnamed_blob])
def test_nothing_but_named_images_comes_from_a_step(house, publication, forge):
    before = state(house)
    forge(Store(publication.folder), house)
    publication.take()
    assert state(house) == before


def test_publishing_the_same_again_works_and_changes_nothing(house, publication, tmp_path):
    image = image_in(Store(publication.folder))
    publication.take()
    before = state(house)
    again = Publication.open(house, tmp_path / "own", {"repo": TARGET})
    again.renew()
    assert image_in(Store(again.folder)) == image
    again.take()
    assert state(house) == before


def other_layer(own, image):
    own.path(image.layers[0].blob.digest).write_bytes(b"another")


def longer_layer(own, image):
    with own.path(image.layers[0].blob.digest).open("ab") as stream:
        stream.write(b"x")


def other_config(own, image):
    own.path(image.config_blob.digest).write_bytes(b"{}")


def other_manifest(own, image):
    own.path(image.digest).write_bytes(b"{}")


def no_layer(own, image):
    own.path(image.layers[0].blob.digest).unlink()


def link_to_a_layer(own, image):
    path = own.path(image.layers[0].blob.digest)
    aside = path.with_name("aside")
    path.rename(aside)
    path.symlink_to(aside)


def linked_folder(own, image):
    (own.root / "blobs").rename(own.root / "real")
    (own.root / "blobs").symlink_to("real")


def linked_index(own, image):
    (own.root / "index.json").rename(own.root / "real")
    (own.root / "index.json").symlink_to("real")


def huge_index(own, image):
    with (own.root / "index.json").open("r+b") as stream:
        stream.truncate(5 * 2**20)


def broken_index(own, image):
    (own.root / "index.json").write_bytes(b"[" * 100_000)


def another_name(own, image):
    roots.keep(own, "release plateline/pipeline:v1", image.manifest)


def another_repository(own, image):
    roots.keep(own, "localhost/t/other", image.manifest)


def more_layers(own, image):
    """A manifest with a layer more than its config says."""
    document = json.loads(own.read(image.digest))
    document["layers"] *= 2
    data = canonical.dumps(document)
    own.add(data)
    roots.keep(own, TARGET, oci.describe(oci.MANIFEST, data))


@pytest.mark.parametrize(
    "damage",
    [other_layer, longer_layer, other_config, other_manifest, no_layer, link_to_a_layer,
     linked_folder, linked_index, huge_index, broken_index, another_name, another_repository,
     more_layers],
)  # fmt: skip
def test_what_is_not_what_its_digest_says_or_has_another_name_is_refused(
    house, publication, damage
):
    kept = roots.kept(house)
    own = Store(publication.folder)
    damage(own, image_in(own))
    with pytest.raises((PipelineError, oci_error())):
        publication.take()
    assert roots.kept(house) == kept
    for path in (house.root / "blobs" / "sha256").iterdir():
        house.verify(f"sha256:{path.name}")
    assert list((house.root / "tmp").iterdir()) == []


def oci_error():
    from builder.errors import BuilderError

    return BuilderError


@pytest.mark.parametrize("engine", ["bubblewrap", "docker"])
def test_a_step_sees_its_base_read_only_and_no_other_part_of_the_store(
    run_written, store, image, engine, request
):
    if engine == "docker":
        import docker

        try:
            docker.from_env().ping()
        except docker.errors.DockerException:
            pytest.skip("no Docker Engine answers; start dockerd")
    before = state(store)
    base = image.partition("@")[2].removeprefix("sha256:")
    script = (
        f'cd "$PLATELINE_STORE"; cat blobs/sha256/{base} > /dev/null || exit 3; '
        f"echo x >> blobs/sha256/{base} && exit 4; echo x > lent/{base} && exit 5; "
        f"cat blobs/sha256/{base} > tmp/again && mv tmp/again blobs/sha256/{base} || exit 7; "
        f"rm -f lent/{base} && exit 8; "
        "echo {} > results/forged.json || exit 6; echo; ls results; test -e oci-layout"
    )
    step = {"script": script, "asked": {"p": "localhost/x", "base": image}}
    result = run_written({"c": step}, engine=engine)
    assert result.state == "succeeded", result.error
    assert state(store) == before
    assert not (result.folder / "steps" / "c" / "store").exists()


def test_a_name_that_nobody_agreed_to_is_refused(run_written):
    said = ["{{$.outputs.parameters['said'].output_file}}"]
    steps = {
        "a": {"script": 'echo -n localhost/made/up > "$0"', "parameters": ["said"], "words": said},
        "b": {"script": "exit 0", "takes": {"repo": ("a", "said")}},
    }
    assert "localhost/made/up" in run_written(steps, publish=frozenset({"localhost/x"})).error
    assert run_written(steps, publish=frozenset({"localhost/made/up"})).state == "succeeded"
    assert run_written(steps).state == "succeeded"


def test_an_index_is_lent_and_taken_with_the_images_that_it_names(house, publication, tmp_path):
    found = small.index(Store(publication.folder), image_in(Store(publication.folder)))
    roots.keep(Store(publication.folder), TARGET, found.manifest)
    publication.take()
    assert roots.kept(house)[TARGET].digest == found.digest
    for image in found.images:
        assert house.image(image.digest) == image
    given = {"model": f"{TARGET}@{found.digest}"}
    blobs = {image.digest for image in found.images} | {i.config_blob.digest for i in found.images}
    assert {found.digest, found.images[0].layers[0].blob.digest} | blobs == set(
        Publication.open(house, tmp_path / "next", given).lent
    )
    assert publication.holds({TARGET: found.digest})


def test_an_index_is_taken_whole_or_not_at_all(house, publication):
    own = Store(publication.folder)
    found = small.index(own, image_in(own))
    nested = canonical.dumps({"manifests": [found.manifest.to_json()], "mediaType": oci.INDEX})
    roots.keep(own, TARGET, own.add(nested, oci.INDEX))
    with pytest.raises(PipelineError, match="an index of something else"):
        publication.take()
    own.path(found.images[1].config_blob.digest).unlink()
    roots.keep(own, TARGET, found.manifest)
    with pytest.raises(PipelineError, match="without its blob"):
        publication.take()
    assert TARGET not in roots.kept(house)
