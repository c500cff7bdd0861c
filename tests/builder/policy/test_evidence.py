"""What is known of an image comes from this checkout, or from what trusted keys say beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder import oci
from builder.inspect.bill import cyclonedx
from builder.inspect.bill.part import Part
from builder.policy.evidence import Own, expand, gather
from builder.registry.client import Registries, Registry
from builder.registry.push import push
from builder.signing.keys import SigningKey
from builder.signing.predicates import BILL, TEST_RESULT, passing
from builder.signing.signatures import sign, state
from builder.store import Store
from tests.builder import small
from tests.key_pairs import key_pair

JINJA, H11 = Part("wheel", "jinja2", "3", licence="MIT"), Part("wheel", "h11", "1", licence="MIT")


def bill(*parts: Part) -> bytes:
    return cyclonedx.render("x", parts)


def never() -> bytes:
    raise AssertionError("asked for")


@pytest.fixture
def in_memory() -> bool:
    return True


@pytest.fixture
def keys(tmp_path: Path) -> tuple[SigningKey, SigningKey]:
    return key_pair(tmp_path / "keys", "lab"), key_pair(tmp_path / "keys", "stranger")


@pytest.fixture
def registries() -> Iterator[Registries]:
    with Registries() as found:
        yield found


@pytest.fixture
def image(store: Store, registry_host: str, registries: Registries) -> oci.Image:
    made = small.image(store)
    push(store, {"x": ("1" * 64, made)}, f"{registry_host}/p", registries.at(registry_host))
    return made


def test_what_trusted_keys_say_counts_and_what_others_say_does_not(
    image: oci.Image, registry_host: str, registries: Registries,
    keys: tuple[SigningKey, SigningKey],
) -> None:  # fmt: skip
    lab, stranger = keys
    registry, name = registries.at(registry_host), f"{registry_host}/p/x@{image.digest}"

    def said_by(key: SigningKey) -> None:
        sign(registry, "p/x", image.manifest, key)
        state(registry, "p/x", image.manifest, key, BILL, json.loads(bill(JINJA)))
        state(registry, "p/x", image.manifest, key, TEST_RESULT, passing({"t.py": "a" * 64}))

    said_by(stranger)
    found = gather(name, [lab.public], registries, {})
    assert (found.signers, found.parts, found.tested) == ((), None, False)
    said_by(lab)
    found = gather(name, [lab.public], registries, {})
    assert (found.signers, found.parts, found.tested) == ((lab.public,), (JINJA,), True)
    # A second bill hides nothing of the first, whichever is the newer one.
    state(registry, "p/x", image.manifest, lab, BILL, json.loads(bill(H11)))
    parts = gather(name, [lab.public], registries, {}).parts
    assert parts is not None
    assert set(parts) == {JINJA, H11}


@pytest.mark.parametrize(
    "result",
    [{"result": "FAILED"}, {"result": "PASSED", "failedTests": ["t"]}, {}, {"result": ["PASSED"]}],
)
def test_a_result_that_is_no_pass_is_none(
    image: oci.Image, registry_host: str, registries: Registries,
    keys: tuple[SigningKey, SigningKey], result: dict[str, object],
) -> None:  # fmt: skip
    key = keys[0]
    state(registries.at(registry_host), "p/x", image.manifest, key, TEST_RESULT, result)
    name = f"{registry_host}/p/x@{image.digest}"
    assert not gather(name, [key.public], registries, {}).tested


@pytest.mark.parametrize(
    "components",
    [
        [{"type": "library", "name": "jinja2"}],
        [{"type": "library", "name": "x", "purl": "pkg:npm/x@1"}],
        [{"type": "library", "name": "x", "purl": "no purl"}],
        ["x"],
        "x",
    ],
)
def test_a_bill_of_another_form_is_no_bill(
    image: oci.Image, registry_host: str, registries: Registries,
    keys: tuple[SigningKey, SigningKey], components: object,
) -> None:  # fmt: skip
    key = keys[0]
    state(
        registries.at(registry_host), "p/x", image.manifest, key, BILL, {"components": components}
    )
    found = gather(f"{registry_host}/p/x@{image.digest}", [key.public], registries, {})
    assert found.parts is None
    assert "components" in found.problems["parts"] or "component" in found.problems["parts"]


def test_this_checkout_is_believed_of_what_it_makes_itself(
    image: oci.Image, registries: Registries
) -> None:
    own = {image.digest: Own(lambda: bill(JINJA), lambda: True)}
    found = gather(f"localhost/p/x@{image.digest}", [], registries, own)
    assert (found.signers, found.parts, found.tested) == ((), (JINJA,), True)
    assert "only in this machine's store" in found.problems["signatures"]
    other = {"sha256:" + "0" * 64: Own(never, lambda: True)}
    found = gather(f"localhost/p/x@{image.digest}", [], registries, other)
    assert (found.parts, found.tested) == (None, False)


@pytest.mark.parametrize("name", ["127.0.0.1:1/p/x", "127.0.0.1:1/p/x:v1", "no name", "x@sha256:1"])
def test_an_image_that_is_not_pinned_or_not_reached_has_evidence_of_nothing(
    name: str, registries: Registries, keys: tuple[SigningKey, SigningKey]
) -> None:
    found = gather(name, [keys[0].public], registries, {})
    assert (found.signers, found.parts, found.tested) == ((), None, False)
    assert set(found.problems) == {"signatures", "parts", "tests"}


def test_a_registry_that_does_not_answer_is_said(
    registry_host: str, keys: tuple[SigningKey, SigningKey]
) -> None:
    with Registry(registry_host) as registry:
        assert registry.head_manifest("p/x", "sha256:" + "0" * 64) is None
    with Registries() as registries:
        name = f"{registry_host}/p/x@sha256:{'0' * 64}"
        found = gather(name, [keys[0].public], registries, {})
    assert (found.signers, found.parts, found.tested) == ((), None, False)


def test_an_index_is_judged_by_each_image_that_it_names(
    store: Store, registry_host: str, registries: Registries
) -> None:
    found = small.index(store, small.image(store))
    prefix = f"{registry_host}/p"
    pin = small.push_index(store, found, prefix, "x", registries.at(registry_host))
    named = [f"{prefix}/x@{image.digest}" for image in found.images]
    assert expand([pin], registries, store) == named
    assert expand([*named, pin], registries, store) == named
    local = f"localhost/x@{found.digest}"
    assert expand([local], registries, store) == [
        f"localhost/x@{image.digest}" for image in found.images
    ]
    gone = f"{prefix}/x@sha256:{'0' * 64}"
    assert expand([gone, "nothing"], registries, store) == [gone, "nothing"]
