"""A layout in a tar gives what was put in, or a message; whatever happened to its bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder import oci
from builder.errors import BuilderError
from builder.mirror.graph import Document, Graph
from builder.mirror.layout import Layout, Part, write
from builder.oci import canonical
from builder.store import Store
from tests.builder import small

NOTE = "application/x.note"


def graph(store: Store, *contents: bytes) -> tuple[Graph, str]:
    """Return the graph of an image, with something that refers to it, and the image's digest."""
    made = small.image(store, *contents)
    data = store.read(made.digest)
    note = canonical.dumps({"artifactType": NOTE, "subject": made.manifest.to_json()})
    beside = oci.describe(oci.MANIFEST, note, artifact_type=NOTE)
    store.add(note)
    blobs = (made.config_blob, *(layer.blob for layer in made.layers))
    documents = {
        made.digest: Document(made.manifest, data),
        beside.digest: Document(beside, note, made.digest),
    }
    return Graph(documents, {blob.digest: blob for blob in blobs}, {}), made.digest


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Graph, str]:
    folder = tmp_path_factory.mktemp("layout")
    store = Store.open(folder / "store")
    made, digest = graph(store, b"content")
    file = folder / "one.tar"
    write(file, store, [Part(made, {"v1": digest})])
    return file, made, digest


def everything(file: Path, made: Graph) -> dict[str, bytes]:
    """Read all that the graph has out of a layout."""
    layout = Layout(file)
    try:
        return {digest: layout.read(digest, 1 << 20) for digest in [*made.documents, *made.blobs]}
    finally:
        layout.close()


def test_what_was_put_in_comes_out(written: tuple[Path, Graph, str]) -> None:
    file, made, digest = written
    layout = Layout(file)
    found = layout.get_manifest("any", "v1")
    assert found
    assert (found[0].digest, found[1]) == (digest, made.documents[digest].data)
    (beside,) = layout.referrers("any", digest)
    assert beside.artifact_type == NOTE
    assert beside.digest in made.documents
    assert layout.tags("any") == [digest.replace(":", "-"), "v1"]
    assert layout.get_manifest("any", "v2") is None


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_a_changed_byte_is_refused_or_changes_nothing(
    written: tuple[Path, Graph, str], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file, made, _ = written
    before, content = everything(file, made), bytearray(file.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    other = tmp_path_factory.getbasetemp() / "changed.tar"
    other.write_bytes(content)
    try:
        after = everything(other, made)
    except BuilderError as error:
        after, said = before, str(error)
        if str(other) not in said:
            raise
    assert after == before


@given(share=st.floats(0, 1, exclude_max=True))
@settings(max_examples=100, deadline=None)
def test_a_tar_that_was_cut_short_is_refused(
    written: tuple[Path, Graph, str], share: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file, made, _ = written
    content = file.read_bytes()[:-1024]
    other = tmp_path_factory.getbasetemp() / "cut.tar"
    other.write_bytes(content[: int(share * (len(content) - 512))])
    with pytest.raises(BuilderError, match=r"cut short|cannot be read as a tar"):
        everything(other, made)
