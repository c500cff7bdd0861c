"""Signed results: a key's word that an image is the result of an action key.

The word is SLSA provenance, which names the action key: a signature of the image alone would not
do, since whoever may push could put an older signed image under the key of newer sources.
Source: https://slsa.dev/spec/v1.0/provenance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from builder import oci
from builder.registry.cache import Signer
from builder.registry.client import Registry
from builder.signing.keys import PublicKey
from builder.signing.signatures import statements

PROVENANCE = "https://slsa.dev/provenance/v1"
# The member of the provenance's internal parameters that holds the action key.
ACTION_KEY = "actionKey"


def action_key(provenance: Mapping[str, Any]) -> str:
    """Return the action key that provenance names, or nothing."""
    found: Any = provenance
    for name in ("buildDefinition", "internalParameters", ACTION_KEY):
        found = found.get(name) if isinstance(found, dict) else None
    return found if isinstance(found, str) else ""


def result_signer(
    registry: Registry, keys: Sequence[PublicKey]
) -> Callable[[str, oci.Image, str], Signer | None]:
    """Return the `signer` of a RegistryCache that believes `keys`; raises BuilderError as they do.

    It takes a repository, an image and the action key that the image should be the result of.
    """

    def signer(repository: str, image: oci.Image, key: str) -> Signer | None:
        if not keys:
            return None
        for said in statements(registry, repository, image.digest, keys, PROVENANCE):
            if action_key(said.predicate) == key:
                return Signer(said.key.name, said.key.id)
        return None

    return signer
