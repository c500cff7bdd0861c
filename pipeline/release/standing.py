"""What keys say of a release: who signed it, and which of its images' tests passed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from builder.registry.client import Source
from builder.signing.keys import PublicKey
from builder.signing.signatures import signers, statements
from pipeline.release.publish import Release, repository

# https://github.com/in-toto/attestation/blob/main/spec/predicates/test-result.md (0.1).
_TESTS = "https://in-toto.io/attestation/test-result/v0.1"
_GATE = "urn:plateline:quality-gate:v1"


@dataclass(frozen=True, slots=True)
class Standing:
    """The names of the keys that signed a release, and its images whose tests passed."""

    signers: tuple[str, ...]
    tested: tuple[str, ...]


def standing(source: Source, path: str, release: Release, keys: Sequence[PublicKey]) -> Standing:
    """Return what `keys` say of a release, in `path`/pipeline; nothing without keys.

    Raises RegistryError.
    """
    if not keys:
        return Standing((), ())
    home = repository(path)
    made = signers(source, home, release.digest, keys)
    tested = [
        name
        for name, digest in sorted(release.images.items())
        if _passed(source, home, digest, keys, _TESTS)
    ]
    return Standing(tuple(key.name for key in made), tuple(tested))


def passed_gate(source: Source, where: str, digest: str, keys: Sequence[PublicKey]) -> bool:
    """Tell whether one of `keys` says that the models in a packaged image passed the gate."""
    return bool(keys) and _passed(source, where, digest, keys, _GATE)


def _passed(
    source: Source, where: str, digest: str, keys: Sequence[PublicKey], predicate_type: str
) -> bool:
    said = statements(source, where, digest, keys, predicate_type)
    return any(each.predicate.get("result") == "PASSED" for each in said)
