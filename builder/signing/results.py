"""Signed results: a key's word that an image is the result of an action key.

The word is SLSA provenance, which names the action key: a signature of the image alone would not
do, since whoever may push could put an older signed image under the key of newer sources. It has a
time as well: of two images that were signed for one key, the older one is a replay for whoever saw
the newer. Source: https://slsa.dev/spec/v1.0/provenance.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from builder import oci
from builder.errors import BuilderError
from builder.registry.cache import Signer
from builder.registry.client import Source
from builder.signing import newest
from builder.signing.keys import PublicKey
from builder.signing.newest import Record
from builder.signing.signatures import statements
from builder.store import Store

PROVENANCE = "https://slsa.dev/provenance/v1"
# The member of the provenance's internal parameters that holds the action key.
ACTION_KEY = "actionKey"


# Clocks of two machines differ; a record of a later day would make all that follow it old.
_AHEAD = 86400


def action_key(provenance: Mapping[str, Any]) -> str:
    """Return the action key that provenance names, or nothing."""
    found = _member(provenance, "buildDefinition", "internalParameters", ACTION_KEY)
    return found if isinstance(found, str) else ""


def timed(provenance: Mapping[str, Any], now: float) -> dict[str, Any]:
    """Return provenance that says when it was signed: `now`, in seconds since 1970."""
    said = datetime.fromtimestamp(int(now), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    details = {**provenance["runDetails"], "metadata": {"finishedOn": said}}
    return {**provenance, "runDetails": details}


def signed_at(provenance: Mapping[str, Any]) -> int:
    """Return when provenance says that it was signed, in seconds since 1970; 0 without that."""
    found = _member(provenance, "runDetails", "metadata", "finishedOn")
    try:
        return max(0, int(datetime.fromisoformat(found).timestamp()))
    except (TypeError, ValueError, OverflowError):
        return 0


def _member(found: Any, *names: str) -> Any:
    for name in names:
        found = found.get(name) if isinstance(found, dict) else None
    return found


def result_signer(
    registry: Source,
    keys: Sequence[PublicKey],
    store: Store,
    clock: Callable[[], float] = time.time,
) -> Callable[[str, oci.Image, str], Signer | None]:
    """Return the `signer` of a RegistryCache that believes `keys`; raises BuilderError as they do.

    It takes a repository, an image and the action key that the image should be the result of. The
    newest record of each action key is kept in `store`; it raises BuilderError for an older one of
    another image, and for one of a day that has not begun by `clock`.
    """

    def signer(repository: str, image: oci.Image, key: str) -> Signer | None:
        if not keys:
            return None
        found = [
            (signed_at(said.predicate), said.key)
            for said in statements(registry, repository, image.digest, keys, PROVENANCE)
            if action_key(said.predicate) == key
        ]
        if not found:
            return None
        at, by = max(found, key=lambda each: each[0])
        _check(store, key, Record(image.digest, at, by.id), by, clock())
        return Signer(by.name, by.id)

    return signer


def _check(store: Store, key: str, record: Record, by: PublicKey, now: float) -> None:
    """Compare a record with the newest that was seen, and keep it where it is newer."""
    if record.time > now + _AHEAD:
        raise BuilderError(
            f"{by.name} signed it at {_shown(record.time)}, which has not come yet; set the clock "
            "of one of the two machines"
        )
    seen = newest.newest(store, key)
    if seen and seen.digest != record.digest and record.time <= seen.time:
        raise BuilderError(
            f"it is {record.digest}, signed by {by.name} at {_shown(record.time)}, and this "
            f"machine has seen {seen.digest} for the same sources, signed at {_shown(seen.time)}: "
            "somebody put an older record back; find out who may push there"
        )
    if seen is None or record.time > seen.time:
        newest.remember(store, key, record)


def _shown(seconds: int) -> str:
    if not seconds:
        return "an unknown time"
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
