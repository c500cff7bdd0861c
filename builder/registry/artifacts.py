"""OCI artifacts: one blob behind a manifest of its own, alone or referring to an image.

Sources: https://github.com/opencontainers/image-spec/blob/v1.1.0/manifest.md, its "Guidelines for
Artifact Usage", and https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md, its
"Referrers Tag Schema".
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from builder import oci
from builder.oci import canonical
from builder.registry.blobs import Blob, Moved, Transfer
from builder.registry.client import Registry


def put(
    registry: Registry,
    repository: str,
    kind: str,
    blob: oci.Descriptor,
    data: bytes,
    **members: Any,
) -> tuple[oci.Descriptor, int]:
    """Put `data`, which `blob` describes, into the repository as an artifact of the type `kind`.

    `members` are further ones of its manifest. Returns the manifest's descriptor, and the bytes
    sent: a blob that is there is not sent again. The same arguments make the same artifact. Raises
    RegistryError.
    """
    transfer, moved = Transfer(registry), Moved()
    config = oci.describe(oci.EMPTY, b"{}")
    for part, content in ((config, b"{}"), (blob, data)):
        moved += transfer.bring(repository, Blob(part, partial(io.BytesIO, content)))
    manifest = canonical.dumps(
        {
            "schemaVersion": 2,
            "mediaType": oci.MANIFEST,
            "artifactType": kind,
            "config": config.to_json(),
            "layers": [blob.to_json()],
            **members,
        }
    )
    described = oci.describe(oci.MANIFEST, manifest, artifact_type=kind)
    registry.put_manifest(repository, described.digest, manifest, oci.MANIFEST)
    return described, moved.uploaded + described.size


def fallback_tag(subject: str) -> str:
    """Return the tag whose index lists what refers to the digest `subject`."""
    return subject.replace(":", "-")


def attach(
    registry: Registry,
    repository: str,
    subject: oci.Descriptor,
    data: bytes,
    media_type: str,
    annotations: Mapping[str, str],
) -> tuple[oci.Descriptor, int]:
    """Put `data` into the repository as an artifact that refers to `subject`.

    `annotations` are of the artifact. Returns its descriptor, and the bytes sent. The same
    arguments make the same artifact, so that to attach it again changes nothing. The subject need
    not be there yet. Raises RegistryError.
    """
    referrer, sent = put(
        registry, repository, media_type, oci.describe(media_type, data), data,
        subject=subject.to_json(), annotations=dict(annotations),
    )  # fmt: skip
    referrer = replace(referrer, annotations=annotations)
    announce(registry, repository, subject.digest, referrer)
    return referrer, sent


def announce(registry: Registry, repository: str, subject: str, referrer: oci.Descriptor) -> None:
    """See to it that `registry.referrers(repository, subject)` lists `referrer`, which is there.

    A registry with the API has seen to it by itself. Two clients that announce at the same time may
    lose one of the two entries, as the specification has it. Raises RegistryError.
    """
    known = registry.referrers(repository, subject)
    if any(entry.digest == referrer.digest for entry in known):
        return
    index = {
        "schemaVersion": 2,
        "mediaType": oci.INDEX,
        "manifests": [entry.to_json() for entry in (*known, referrer)],
    }
    registry.put_manifest(repository, fallback_tag(subject), canonical.dumps(index), oci.INDEX)
