"""What no release reaches may leave the shared cache; everything else stays."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from builder import oci
from builder.oci import canonical
from builder.registry.cache import key_tag
from builder.registry.client import Registry
from builder.registry.push import push
from builder.signing.signatures import sign, signature_tag
from builder.store import Store
from pipeline.errors import PipelineError
from pipeline.release.retention import Stale, delete, stale
from tests.builder.answers import Asked, Reply, answering
from tests.key_pairs import key_pair
from tests.pipeline.release.parts import image, released


def pushed(client: Registry, store: Store, content: str, key: str, *tags: str) -> oci.Image:
    made = image(store, content)
    push(store, {"train": (key, made)}, f"{client.host}/p", client, tags=tags)
    return made


def test_only_what_no_release_and_no_other_tag_reaches_goes(
    store: Store, registry_host: str, tmp_path: Path
) -> None:
    images = {name: image(store, name) for name in ("function", "train")}
    old, tagged, mine = "a" * 64, "b" * 64, "c" * 64
    with Registry(registry_host) as client:
        released(client, registry_host, store, images)
        gone = pushed(client, store, "old", old)
        pushed(client, store, "tagged", tagged, "latest")
        pushed(client, store, "mine", mine)
        sign(client, "p/train", gone.manifest, key_pair(tmp_path))
        (found,) = stale(client, "p", ["base"], [mine])
        assert found == Stale("p/train", gone.digest, (key_tag(old),))
        before = set(client.tags("p/train"))
        delete(client, found)
        assert before - set(client.tags("p/train")) == {
            key_tag(old), signature_tag(gone.digest), gone.digest.replace(":", "-")
        }  # fmt: skip
        assert client.head_manifest("p/train", gone.digest) is None
        assert client.head_manifest("p/train", images["train"].digest)
        assert stale(client, "p", ["base"], [mine]) == []


def test_what_an_index_names_stays_with_it(store: Store, registry_host: str) -> None:
    with Registry(registry_host) as client:
        one, other = (pushed(client, store, name, name * 64) for name in "de")
        document = {"schemaVersion": 2, "mediaType": oci.INDEX,
                    "manifests": [one.manifest.to_json(), other.manifest.to_json()]}  # fmt: skip
        put = functools.partial(client.put_manifest, "p/train", media_type=oci.INDEX)
        put(key_tag("f" * 64), canonical.dumps(document))
        gone = {each.digest for each in stale(client, "p", ["train"])}
        assert gone > {one.digest, other.digest}
        assert stale(client, "p", ["train"], ["f" * 64]) == []
        put("v1", canonical.dumps(document))
        assert stale(client, "p", ["train"]) == []


def test_a_registry_that_refuses_is_named() -> None:
    def answer(asked: Asked) -> Reply:
        return Reply(405 if asked.method == "DELETE" else 404)

    with answering(answer) as server, Registry(server.host) as client:
        one = Stale("p/train", "sha256:" + "0" * 64, ("key-1",))
        with pytest.raises(PipelineError, match=f"{server.host} refuses to delete p/train@sha256"):
            delete(client, one)
