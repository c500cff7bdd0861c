"""What is known of an image: who signed it, what it is made of, whether its tests passed.

It comes from this checkout, where that makes the very image, or from what trusted keys say in the
image's registry. What cannot be read is said; whoever judges takes that for a no.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from builder.build.make import Pinnable
from builder.build.workspace import Workspace
from builder.errors import BuilderError
from builder.inspect.bill import cyclonedx
from builder.inspect.bill.part import Part
from builder.inspect.inventory import sbom
from builder.oci.reference import Reference
from builder.platform import NATIVE
from builder.registry import pull
from builder.registry.client import Registries
from builder.registry.http import parse, shown
from builder.signing.keys import PublicKey
from builder.signing.predicates import BILL, TEST_RESULT, passed
from builder.signing.signatures import signers, statements
from builder.store import Store
from builder.testing import stage_tests


@dataclass(frozen=True, slots=True)
class Own:
    """What this checkout knows of an image that it makes; asked for only where it is needed."""

    bill: Callable[[], bytes]
    tested: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of an image; `parts` is None where that is not known.

    `problems` has for signatures, parts and tests why they could not be read.
    """

    image: str
    signers: tuple[PublicKey, ...] = ()
    parts: tuple[Part, ...] | None = None
    tested: bool = False
    problems: Mapping[str, str] = field(default_factory=dict)


def of_checkout(
    workspace: Workspace, store: Store, built: Mapping[str, Pinnable]
) -> dict[str, Own]:
    """Return by digest what this checkout knows of the images that it built.

    Tests are run in the image for NATIVE alone.
    """
    return {
        made.image.digest: Own(
            bill=partial(sbom, workspace, store, made.plan),
            tested=(
                partial(stage_tests.passed, workspace, store, name)
                if platform == NATIVE else _not_tested
            ),
        )
        for name, each in built.items() for platform, made in each.images.items()
    }  # fmt: skip


def _not_tested() -> bool:
    return False


def expand(images: Sequence[str], registries: Registries, store: Store) -> list[str]:
    """Return pinned images, each index replaced by the images that it names.

    An index is as good as these: its digest says which they are. What cannot be read stays, for
    `gather` to say so.
    """
    found = []
    for image in images:
        try:
            reference = Reference.parse(image)
            if reference.local:
                data = store.read(reference.digest)
            else:
                registry = registries.at(reference.host)
                there = registry.get_manifest(reference.repository, reference.digest)
                data = there[1] if there else b"{}"
            document = parse(data, image)
            entries = pull.listed(document, image) if "manifests" in document else []
        except BuilderError:
            entries = []
        name = image.partition("@")[0]
        found += [f"{name}@{entry.digest}" for entry in entries] or [image]
    return list(dict.fromkeys(found))


def gather(
    image: str,
    keys: Sequence[PublicKey],
    registries: Registries,
    own: Mapping[str, Own],
) -> Evidence:
    """Return what is known of `image`, pinned by its digest, with the word of `keys`.

    `own` has what this checkout knows, by digest. Never raises a BuilderError: an image of which
    nothing can be read has evidence of nothing.
    """
    problems: dict[str, str] = {}

    def read(what: str, ask: Callable[[], Any], otherwise: Any) -> Any:
        try:
            return ask()
        except BuilderError as error:
            problems[what] = shown(error, 200)
            return otherwise

    try:
        reference = Reference.parse(image)
    except BuilderError as error:
        return Evidence(image, problems=dict.fromkeys(("signatures", "parts", "tests"), str(error)))
    mine = own.get(reference.digest)
    asked = _Asked(reference, keys, registries)
    parts = read("parts", lambda: _parts(mine, asked), None)
    return Evidence(
        image=image,
        signers=tuple(read("signatures", asked.signers, ())),
        parts=parts,
        tested=read("tests", lambda: _tested(mine, asked), False),
        problems=problems,
    )


@dataclass(frozen=True, slots=True)
class _Asked:
    """The registry that an image lies in, and those whose word counts there."""

    image: Reference
    keys: Sequence[PublicKey]
    registries: Registries

    def signers(self) -> list[PublicKey]:
        self._check()
        registry = self.registries.at(self.image.host)
        return signers(registry, self.image.repository, self.image.digest, self.keys)

    def said(self, predicate_type: str) -> list[Mapping[str, Any]]:
        self._check()
        registry = self.registries.at(self.image.host)
        found = statements(
            registry, self.image.repository, self.image.digest, self.keys, predicate_type
        )
        return [each.predicate for each in found]

    def _check(self) -> None:
        if self.image.local:
            raise BuilderError("the image is only in this machine's store, where nothing is signed")
        if not self.image.digest:
            raise BuilderError("the image is not pinned by a digest")
        if not self.keys:
            raise BuilderError("the policy names no keys whose word would count")


def _parts(mine: Own | None, asked: _Asked) -> tuple[Part, ...] | None:
    if mine:
        return tuple(cyclonedx.read(json.loads(mine.bill())))
    said = asked.said(BILL)
    # Of several, all count: a package is not made good by a second bill that leaves it out.
    found = [part for bill in said for part in cyclonedx.read(bill)]
    return tuple(dict.fromkeys(found)) if said else None


def _tested(mine: Own | None, asked: _Asked) -> bool:
    if asked.keys and not asked.image.local and any(map(passed, asked.said(TEST_RESULT))):
        return True
    return mine.tested() if mine else any(map(passed, asked.said(TEST_RESULT)))
