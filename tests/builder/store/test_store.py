"""The store notices damage and never mistakes it for a result."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builder.errors import BuilderError
from builder.oci import canonical
from builder.store import Store


@given(data=st.binary(max_size=200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_kept_comes_back(store: Store, data: bytes) -> None:
    kept = store.add(data)
    assert store.read(kept.digest) == data
    # A time ahead of the clock would be younger than any number of days that `gc` is given.
    assert store.path(kept.digest).stat().st_mtime <= time.time()


@pytest.mark.parametrize("damage", [b"", b"hellO", b"hell", b"hello!"])
def test_a_damaged_blob_is_noticed_and_removed(store: Store, damage: bytes) -> None:
    blob = store.add(b"hello")
    store.path(blob.digest).write_bytes(damage)
    with pytest.raises(BuilderError, match="was damaged"):
        store.verify(blob.digest)
    assert not store.has(blob)


@given(
    data=st.binary(min_size=1, max_size=5000),
    sizes=st.lists(st.integers(1, 2000), min_size=1, max_size=5),
    jump=st.integers(0, 5000),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_a_bit_that_flipped_without_a_new_time_is_noticed_by_who_reads_to_the_end(
    store: Store, rot: Callable[[Store, str], None], data: bytes, sizes: list[int], jump: int
) -> None:
    def read(digest: str) -> bytes:
        found = b""
        with store.open_blob(digest) as stream:
            stream.seek(min(jump, len(data)))
            stream.seek(0)
            for size in sizes:
                found += stream.read(size)
            return found + stream.read()

    blob = store.add(data)
    assert read(blob.digest) == data
    rot(store, blob.digest)
    assert store.has(blob)
    with pytest.raises(BuilderError, match="was damaged"):
        read(blob.digest)
    assert not store.has(blob)
    with pytest.raises(BuilderError, match="has no blob"):
        store.open_blob(blob.digest)


def test_a_damaged_result_counts_as_none(store: Store) -> None:
    key = "0" * 64
    store.put_result(key, {"manifest": "x"})
    assert store.get_result(key) == {"manifest": "x"}
    path = store.root / "results" / f"{key}.json"
    path.write_bytes(path.read_bytes().replace(b'"x"', b'"y"'))
    assert store.get_result(key) is None


def test_a_digest_of_another_form_is_refused(store: Store) -> None:
    with pytest.raises(BuilderError, match="not a sha256 digest"):
        store.path("sha256:../../etc/passwd")


def test_canonical_json_does_not_depend_on_order() -> None:
    assert canonical.dumps({"a": 1, "b": [2]}) == canonical.dumps({"b": [2], "a": 1})
