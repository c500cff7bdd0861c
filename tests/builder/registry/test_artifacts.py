"""What is attached to an image is found again, with the referrers API of a registry and without."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from builder import oci
from builder.registry.artifacts import attach, fallback_tag
from builder.registry.client import Registry
from tests.builder.registry_in_memory import with_referrers

SUBJECT = oci.describe(oci.MANIFEST, b"an image")
KIND = "application/vnd.example+json"


@pytest.fixture
def with_api() -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yield HOST:PORT of such a registry, and what it keeps by digest and by tag."""
    with with_referrers() as (address, kept, _):
        yield address, kept


def put(registry: Registry, data: bytes) -> int:
    return attach(registry, "p/x", SUBJECT, data, KIND, {"a": "b"})[1]


def contents(registry: Registry) -> list[bytes]:
    found = []
    for referrer in registry.referrers("p/x", SUBJECT.digest):
        assert referrer.artifact_type == KIND
        manifest = registry.get_manifest("p/x", referrer.digest)
        assert manifest
        (layer,) = json.loads(manifest[1])["layers"]
        found.append(registry.get_blob("p/x", oci.Descriptor.from_json(layer)))
    return sorted(found)


def test_a_registry_without_the_api_gets_the_fallback_tag(registry_host: str) -> None:
    with Registry(registry_host) as registry:
        assert contents(registry) == []
        first = put(registry, b"one")
        assert put(registry, b"two") < first, "the empty config is there already"
        assert put(registry, b"one") < first
        assert contents(registry) == [b"one", b"two"]
        assert registry.tags("p/x") == [fallback_tag(SUBJECT.digest)]


def test_a_registry_with_the_api_is_told_once(with_api: tuple[str, dict[str, bytes]]) -> None:
    host, kept = with_api
    with Registry(host) as registry:
        put(registry, b"one")
        put(registry, b"two")
        assert contents(registry) == [b"one", b"two"]
    assert fallback_tag(SUBJECT.digest) not in kept
