"""A bill of materials as CycloneDX 1.6 JSON. Source: https://cyclonedx.org/docs/1.6/json/."""

from __future__ import annotations

import datetime
import json
import uuid
from collections.abc import Sequence
from typing import Any

from builder.inspect.bill.part import UNKNOWN, Part, cpe, package_url
from builder.oci import canonical, layer


def render(name: str, made_of: Sequence[Part]) -> bytes:
    """Return the document of the image `name`; pure."""
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output import make_outputter
    from cyclonedx.schema import OutputFormat, SchemaVersion

    image = Component(name=name, type=ComponentType.CONTAINER, bom_ref=f"image:{name}")
    components = [_component(part) for part in made_of]
    bom = Bom(
        components=components,
        # A random number would make every document another one.
        serial_number=uuid.uuid5(uuid.NAMESPACE_URL, repr((name, made_of))),
    )
    bom.metadata.component = image
    bom.metadata.timestamp = datetime.datetime.fromtimestamp(layer.EPOCH, datetime.UTC)
    bom.register_dependency(image, components)
    made = make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string()
    return canonical.dumps(json.loads(made))


def _component(part: Part) -> Any:
    from cyclonedx.model import (
        ExternalReference,
        ExternalReferenceType,
        HashAlgorithm,
        HashType,
        XsUri,
    )
    from cyclonedx.model.component import Component, ComponentType

    types = {"system": ComponentType.OPERATING_SYSTEM, "deb": ComponentType.LIBRARY,
             "wheel": ComponentType.LIBRARY, "image": ComponentType.CONTAINER}  # fmt: skip
    kind = {"source": ExternalReferenceType.VCS, "file": ExternalReferenceType.DISTRIBUTION}
    links = (
        [ExternalReference(type=kind[part.kind], url=XsUri(part.name))] if part.kind in kind else ()
    )
    return Component(
        name=part.name,
        version=part.version or None,
        type=types.get(part.kind, ComponentType.FILE),
        bom_ref=part.ref,
        purl=package_url(part),
        cpe=cpe(part) or None,
        licenses=_licences(part),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=part.sha256)] if part.sha256 else (),
        external_references=links,
    )


def _licences(part: Part) -> Any:
    from cyclonedx.model.license import DisjunctiveLicense, LicenseExpression

    if not part.licence:
        return ()
    if part.licence == UNKNOWN:  # no expression of SPDX, so a name
        return [DisjunctiveLicense(name=UNKNOWN)]
    return [LicenseExpression(part.licence)]
