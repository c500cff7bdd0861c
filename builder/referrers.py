"""Tell a registry without the referrers API what refers to a manifest.

Source: https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md, its "Referrers Tag
Schema".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from builder import artifact, canonical, oci
from builder.registry import Registry


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
) -> int:
    """Put `data` into the repository as an artifact that refers to `subject`; return bytes sent.

    `annotations` are of the artifact. The same arguments make the same artifact, so that to attach
    it again changes nothing. The subject need not be there yet.
    """
    referrer, sent = artifact.put(
        registry, repository, media_type, oci.describe(media_type, data), data,
        subject=subject.to_json(), annotations=dict(annotations),
    )  # fmt: skip
    announce(registry, repository, subject.digest, replace(referrer, annotations=annotations))
    return sent


def announce(registry: Registry, repository: str, subject: str, referrer: oci.Descriptor) -> None:
    """See to it that `registry.referrers(repository, subject)` lists `referrer`, which is there.

    A registry with the API has seen to it by itself. Two clients that announce at the same time may
    lose one of the two entries, as the specification has it.
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
