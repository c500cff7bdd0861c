"""A bill of materials as CycloneDX 1.6 JSON. Source: https://cyclonedx.org/docs/1.6/json/."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from builder.errors import BuilderError
from builder.inspect.bill.part import UNKNOWN, Part, cpe, package_url
from builder.oci import canonical, layer

# A property of a component for each pattern of its files that exclude.in left out.
_EXCLUDED = "plateline:excluded"


def render(name: str, made_of: Sequence[Part]) -> bytes:
    """Return the document of the image `name`; pure."""
    import datetime  # all of these cost time
    import uuid

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
        Property,
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
        properties=[Property(name=_EXCLUDED, value=pattern) for pattern in part.excluded],
    )


def _licences(part: Part) -> Any:
    from cyclonedx.model.license import DisjunctiveLicense, LicenseExpression

    if not part.licence:
        return ()
    if part.licence == UNKNOWN:  # no expression of SPDX, so a name
        return [DisjunctiveLicense(name=UNKNOWN)]
    return [LicenseExpression(part.licence)]


def read(document: Mapping[str, Any]) -> list[Part]:
    """Return the parts of a document in the form that `render` gives it.

    Raises BuilderError for a component of another form: none is left out without a word.
    """
    components = document.get("components", [])
    if not isinstance(components, list):
        raise BuilderError("its components are no list")
    try:
        return [_part(component) for component in components]
    except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
        raise BuilderError(f"a component of it is not of CycloneDX's form ({error!r})") from None


def _part(component: Mapping[str, Any]) -> Part:
    from packageurl import PackageURL

    name, version = str(component["name"]), str(component.get("version", ""))
    hashes = {entry["alg"]: str(entry["content"]) for entry in component.get("hashes", [])}
    said = [str(each["expression"]) if "expression" in each else _named(each["license"])
            for each in component.get("licenses", [])]  # fmt: skip
    if len(said) > 1:  # CycloneDX does not say whether all of several hold, or one
        raise ValueError(f"{name} has {len(said)} licences")
    licence = said[0] if said else ""
    kind = component["type"]
    qualifiers: tuple[tuple[str, str], ...] = ()
    if "purl" in component:
        url = PackageURL.from_string(component["purl"])
        kinds = {"deb": "deb", "pypi": "wheel", "oci": "image"}
        kind, version = kinds[url.type], url.version or ""
        assert isinstance(url.qualifiers, dict)
        qualifiers = tuple(url.qualifiers.items())
        name = url.name
    elif kind == "operating-system":
        kind = "system"
    elif kind == "file":
        # What ADD brought has a licence, if an unknown one; a recipe has none.
        links = {link["type"] for link in component.get("externalReferences", [])}
        kind = "source" if "vcs" in links else "file" if links else "recipe"
    else:
        raise ValueError(f"{name} is a {kind} without a package URL")
    stated = component.get("properties", [])
    excluded = tuple(str(each["value"]) for each in stated if each["name"] == _EXCLUDED)
    return Part(kind, name, version, hashes.get("SHA-256", ""), qualifiers, licence, excluded)


def _named(licence: Mapping[str, Any]) -> str:
    name = str(licence.get("id") or licence["name"])
    return name if "id" in licence else UNKNOWN
