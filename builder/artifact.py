"""What is no image but lies in a registry all the same: one blob behind a manifest.

Source: https://github.com/opencontainers/image-spec/blob/v1.1.0/manifest.md, its "Guidelines for
Artifact Usage".
"""

from __future__ import annotations

import io
from functools import partial
from typing import Any

from builder import canonical, oci
from builder.registry import Registry


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
    sent: a blob that is there is not sent again. The same arguments make the same artifact.
    """
    sent = 0
    config = oci.describe(oci.EMPTY, b"{}")
    for part, content in ((config, b"{}"), (blob, data)):
        if not registry.has_blob(repository, part.digest):
            registry.put_blob(repository, part, partial(io.BytesIO, content))
            sent += part.size
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
    return described, sent + described.size
