"""What keys say of a release is told: who signed it, and of which images the tests passed."""

from __future__ import annotations

from pathlib import Path

from builder.registry.client import Registry
from builder.signing.predicates import TEST_RESULT, passing
from builder.signing.signatures import state
from builder.store import Store
from pipeline.release.gate import QUALITY_GATE
from pipeline.release.publish import releases
from pipeline.release.standing import Standing, passed_gate, standing
from tests.key_pairs import key_pair
from tests.pipeline.release.parts import image, released

HOME = "p/pipeline"


def test_only_what_the_given_keys_say_counts(
    store: Store, registry_host: str, tmp_path: Path
) -> None:
    images = {name: image(store, name) for name in ("function", "train")}
    lab, stranger = key_pair(tmp_path), key_pair(tmp_path, "stranger")
    train, function = images["train"].manifest, images["function"].manifest
    with Registry(registry_host) as client:
        released(client, registry_host, store, images, lab)
        state(client, HOME, train, lab, TEST_RESULT, passing({"test_a.py": "0" * 64}))
        state(client, HOME, function, lab, TEST_RESULT, {"result": "FAILED"})
        state(client, HOME, function, stranger, QUALITY_GATE, passing({}))
        (found,) = releases(client, "p")
        assert standing(client, "p", found, [lab.public]) == Standing(("lab",), ("train",))
        assert standing(client, "p", found, [stranger.public]) == Standing((), ())
        assert standing(client, "p", found, []) == Standing((), ())
        assert passed_gate(client, HOME, function.digest, [stranger.public])
        assert not passed_gate(client, HOME, function.digest, [lab.public])
