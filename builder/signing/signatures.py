"""Signatures in a registry, beside what they are of: put there, and read back.

A bundle is an artifact that refers to the image. Simple signatures are the layers of one manifest
under the tag `sha256-<hex>.sig`. No transparency log is asked, and nobody but the registry.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from builder import oci
from builder.errors import BuilderError
from builder.oci import canonical
from builder.registry.artifacts import attach
from builder.registry.blobs import Blob, Transfer
from builder.registry.client import Registry, Source
from builder.registry.http import parse
from builder.signing.keys import PublicKey, SigningKey
from builder.signing.statement import (
    BUNDLE,
    SIGNED,
    SIMPLE,
    Statement,
    encoded,
    read_bundle,
    read_simple,
    write_bundle,
    write_simple,
)

_SIGNATURE = "dev.cosignproject.cosign/signature"
_CONTENT = "dev.sigstore.bundle.content"
_PREDICATE = "dev.sigstore.bundle.predicateType"
# What strangers may have put there is read within bounds: so many signatures, of so many bytes.
_MOST = 64
_LARGEST_SIMPLE = 64 << 10
_LARGEST_BUNDLE = 4 << 20


@dataclass(frozen=True, slots=True)
class Found:
    """A signature in the form `bundle` or `tag`: whose it is, or why it counts for none."""

    form: str
    key: PublicKey | None = None
    problem: str = ""


def sign(registry: Registry, repository: str, image: oci.Descriptor, key: SigningKey) -> None:
    """Sign the manifest `image` of the repository in both forms; what is there already stays.

    Raises RegistryError, and BuilderError where the tag of its signatures holds something else.
    """
    state(registry, repository, image, key, SIGNED, {})
    _sign_simple(registry, repository, image.digest, key)


def state(
    registry: Registry,
    repository: str,
    image: oci.Descriptor,
    key: SigningKey,
    predicate_type: str,
    predicate: Mapping[str, Any],
) -> None:
    """Put a bundle into the repository in which `key` says `predicate` of `image`.

    The same arguments put the same bundle. Raises RegistryError.
    """
    data = write_bundle(image.digest, key, predicate_type, predicate)
    notes = {_CONTENT: "dsse-envelope", _PREDICATE: predicate_type}
    attach(registry, repository, image, data, BUNDLE, notes)


def carry(registry: Registry, source: str, repository: str, image: oci.Descriptor) -> None:
    """Put the bundles that refer to `image` in the repository `source` into another one as well.

    Whose they are does not matter: each says it by itself. Raises RegistryError, and BuilderError
    where one cannot be read.
    """
    for entry in registry.referrers(source, image.digest)[:_MOST]:
        if entry.artifact_type == BUNDLE:
            data = _only_layer(registry, source, entry.digest)
            attach(registry, repository, image, data, BUNDLE, entry.annotations)


def statements(
    registry: Source,
    repository: str,
    digest: str,
    keys: Sequence[PublicKey],
    predicate_type: str,
) -> list[Statement]:
    """Return what `keys` say of a manifest in predicates of one type; raises RegistryError."""
    found = _bundles(registry, repository, digest, keys, predicate_type)
    return [each for each in found if isinstance(each, Statement)]


def signatures(
    registry: Source, repository: str, digest: str, keys: Sequence[PublicKey]
) -> list[Found]:
    """Return every signature of a manifest, in both forms, with the one of `keys` that made it.

    Raises RegistryError where the registry does not say what is there.
    """
    bundles = (
        Found("bundle", problem=each) if isinstance(each, str) else Found("bundle", each.key)
        for each in _bundles(registry, repository, digest, keys, SIGNED)
    )
    return [*bundles, *_simple(registry, repository, digest, keys)]


def signers(
    registry: Source, repository: str, digest: str, keys: Sequence[PublicKey]
) -> list[PublicKey]:
    """Return those of `keys` that signed a manifest, in one form at least; raises RegistryError."""
    if not keys:
        return []
    made = {found.key for found in signatures(registry, repository, digest, keys)}
    return [key for key in keys if key in made]


def signature_tag(digest: str) -> str:
    """Return the tag that holds the simple signatures of a manifest."""
    return f"{digest.replace(':', '-')}.sig"


def _bundles(
    registry: Source,
    repository: str,
    digest: str,
    keys: Sequence[PublicKey],
    predicate_type: str,
) -> Iterator[Statement | str]:
    """Yield for each bundle of the type what it says, or why it counts for nothing."""
    there = [
        entry
        for entry in registry.referrers(repository, digest)
        if entry.artifact_type == BUNDLE
        and entry.annotations.get(_PREDICATE, predicate_type) == predicate_type
    ]
    if len(there) > _MOST:
        yield f"there are {len(there)} of them, and only the first {_MOST} were read"
    for entry in there[:_MOST]:
        try:
            data = _only_layer(registry, repository, entry.digest)
            said = read_bundle(data, digest, keys)
        except BuilderError as error:
            yield str(error)
            continue
        if said.predicate_type == predicate_type:
            yield said


def _only_layer(registry: Source, repository: str, digest: str) -> bytes:
    layers = _layers(registry, repository, digest)
    if layers is None:
        raise BuilderError("the registry lists it and does not have it")
    if len(layers) != 1:
        raise BuilderError(f"its manifest has {len(layers)} layers and not one")
    return registry.get_blob(repository, layers[0], _LARGEST_BUNDLE)


def _layers(registry: Source, repository: str, name: str) -> list[oci.Descriptor] | None:
    """Return the layers of a manifest by tag or digest, or None where it is not there."""
    found = registry.get_manifest(repository, name)
    if found is None:
        return None
    layers = parse(found[1], name).get("layers")
    if not isinstance(layers, list):
        raise BuilderError(f"{registry.host}/{repository}:{name} is no manifest with layers")
    return [oci.Descriptor.from_json(layer) for layer in layers]


def _simple(
    registry: Source, repository: str, digest: str, keys: Sequence[PublicKey]
) -> Iterator[Found]:
    try:
        layers = simple_layers(registry, repository, signature_tag(digest)) or []
    except BuilderError as error:
        yield Found("tag", problem=str(error))
        return
    if len(layers) > _MOST:
        only = f"there are {len(layers)} of them, and only the first {_MOST} were read"
        yield Found("tag", problem=only)
    for layer in layers[:_MOST]:
        try:
            payload = registry.get_blob(repository, layer, _LARGEST_SIMPLE)
            signature = layer.annotations.get(_SIGNATURE, "")
            yield Found("tag", read_simple(payload, signature, digest, keys))
        except BuilderError as error:
            yield Found("tag", problem=str(error))


def _sign_simple(registry: Registry, repository: str, digest: str, key: SigningKey) -> None:
    """Add a signature to those under the tag; the manifest goes up last."""
    tag, transfer = signature_tag(digest), Transfer(registry)
    payload = write_simple(digest, f"{registry.host}/{repository}")
    signature = encoded(key.sign(payload))
    mine = replace(oci.describe(SIMPLE, payload), annotations={_SIGNATURE: signature})
    there = simple_layers(registry, repository, tag) or []
    if not _holds(there, mine):
        transfer.bring(repository, Blob(mine, partial(io.BytesIO, payload)))
        add_simple(registry, repository, tag, there, [mine])


def simple_layers(source: Source, repository: str, tag: str) -> list[oci.Descriptor] | None:
    """Return the signatures under a tag; None without it.

    Raises RegistryError, and BuilderError where the tag holds something else.
    """
    return _layers(source, repository, tag)


def add_simple(
    registry: Registry,
    repository: str,
    tag: str,
    there: Sequence[oci.Descriptor],
    more: Sequence[oci.Descriptor],
) -> None:
    """Put the signatures `there` and those of `more` that are others under a tag.

    The repository has their payloads. Raises RegistryError.
    """
    layers = [*there, *(layer for layer in more if not _holds(there, layer))]
    config = canonical.dumps(
        {
            "architecture": "",
            "os": "",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in layers]},
        }
    )
    described = oci.describe(oci.CONFIG, config)
    Transfer(registry).bring(repository, Blob(described, partial(io.BytesIO, config)))
    manifest = canonical.dumps(
        {
            "schemaVersion": 2,
            "mediaType": oci.MANIFEST,
            "config": described.to_json(),
            "layers": [layer.to_json() for layer in layers],
        }
    )
    registry.put_manifest(repository, tag, manifest, oci.MANIFEST)


def _holds(layers: Sequence[oci.Descriptor], one: oci.Descriptor) -> bool:
    wanted = one.digest, one.annotations.get(_SIGNATURE)
    return wanted in [(layer.digest, layer.annotations.get(_SIGNATURE)) for layer in layers]
