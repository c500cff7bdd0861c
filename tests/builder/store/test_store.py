"""The store notices damage and never mistakes it for a result."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builder.errors import BuilderError
from builder.oci import canonical
from builder.store import Store


@given(data=st.binary(max_size=200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_kept_comes_back(store: Store, data: bytes) -> None:
    assert store.read(store.add(data).digest) == data


@pytest.mark.parametrize("damage", [b"", b"hellO", b"hell", b"hello!"])
def test_a_damaged_blob_is_noticed_and_removed(store: Store, damage: bytes) -> None:
    blob = store.add(b"hello")
    store.path(blob.digest).write_bytes(damage)
    with pytest.raises(BuilderError, match="was damaged"):
        store.verify(blob.digest)
    assert not store.has(blob)


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
