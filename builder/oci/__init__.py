"""The documents and layers of OCI images as data: no network, no store.

`oci.Descriptor`, `oci.Image` and the media types are those of `documents`; layers are written by
`layer`, their entries are `entry`.
"""

from builder.oci.documents import (
    CONFIG,
    DOCKER_INDEX,
    DOCKER_LAYER,
    DOCKER_MANIFEST,
    EMPTY,
    INDEX,
    LAYER,
    MANIFEST,
    ZSTD_LAYER,
    Descriptor,
    Image,
    Index,
    Layer,
    assemble,
    describe,
    is_digest,
    parse,
)

__all__ = [
    "CONFIG",
    "DOCKER_INDEX",
    "DOCKER_LAYER",
    "DOCKER_MANIFEST",
    "EMPTY",
    "INDEX",
    "LAYER",
    "MANIFEST",
    "ZSTD_LAYER",
    "Descriptor",
    "Image",
    "Index",
    "Layer",
    "assemble",
    "describe",
    "is_digest",
    "parse",
]
