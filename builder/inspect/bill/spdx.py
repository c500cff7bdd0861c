"""A bill of materials as SPDX 2.3 JSON. Source: https://spdx.github.io/spdx-spec/v2.3/."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from builder.inspect.bill.part import UNKNOWN, Part, cpe, package_url
from builder.oci import canonical, layer

_PURPOSES = {"system": "OPERATING-SYSTEM", "deb": "LIBRARY", "wheel": "LIBRARY",
             "image": "CONTAINER", "source": "SOURCE"}  # fmt: skip
_IMAGE = "SPDXRef-image"
_REFERENCE = re.compile(r"LicenseRef-[A-Za-z0-9.-]+")


def render(name: str, made_of: Sequence[Part]) -> bytes:
    """Return the document of the image `name`; pure."""
    import datetime  # both cost time
    import uuid

    packages = [_package(number, part) for number, part in enumerate(made_of)]
    refs = sorted({ref for part in made_of for ref in _REFERENCE.findall(part.licence)})
    document = {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": name,
        # It must be unique, and need not lead anywhere; a random number would differ every time.
        "documentNamespace": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, repr((name, made_of)))}",
        "creationInfo": {
            "created": datetime.datetime.fromtimestamp(layer.EPOCH, datetime.UTC).strftime(
                "%Y-%m-%dT%H:%M:%SZ"
            ),
            "creators": ["Tool: plateline"],
        },
        "packages": [_image(name), *packages],
        "relationships": [
            _relation("SPDXRef-DOCUMENT", "DESCRIBES", _IMAGE),
            *(_relation(_IMAGE, "CONTAINS", package["SPDXID"]) for package in packages),
        ],
        "hasExtractedLicensingInfos": [
            {
                "licenseId": ref,
                "name": ref.removeprefix("LicenseRef-"),
                "extractedText": "The licence of this name in /usr/share/doc/*/copyright of the "
                "package in the image.",
            }
            for ref in refs
        ],
    }
    return canonical.dumps(document)


def _image(name: str) -> dict[str, Any]:
    return {
        "SPDXID": _IMAGE,
        "name": name,
        "downloadLocation": UNKNOWN,
        "filesAnalyzed": False,
        "primaryPackagePurpose": "CONTAINER",
    }


def _package(number: int, part: Part) -> dict[str, Any]:
    place = part.name if part.kind == "file" else UNKNOWN
    if part.kind == "source":
        place = f"git+{part.name}@{part.version}"
    found: dict[str, Any] = {
        "SPDXID": f"SPDXRef-{number}-{re.sub(r'[^A-Za-z0-9.-]+', '-', part.name)}",
        "name": part.name,
        "downloadLocation": place,
        "filesAnalyzed": False,
        "licenseConcluded": UNKNOWN,
        "licenseDeclared": part.licence or UNKNOWN,
        "copyrightText": UNKNOWN,
        "primaryPackagePurpose": _PURPOSES.get(part.kind, "FILE"),
    }
    if part.version:
        found["versionInfo"] = part.version
    if part.sha256:
        found["checksums"] = [{"algorithm": "SHA256", "checksumValue": part.sha256}]
    if part.excluded:
        found["comment"] = f"Without the files {', '.join(part.excluded)}"
    names = []
    if url := package_url(part):
        names.append(_named("PACKAGE-MANAGER", "purl", url.to_string()))
    if of_system := cpe(part):
        names.append(_named("SECURITY", "cpe23Type", of_system))
    if names:
        found["externalRefs"] = names
    return found


def _named(category: str, kind: str, locator: str) -> dict[str, str]:
    return {
        "referenceCategory": category,
        "referenceType": kind,
        "referenceLocator": locator,
    }


def _relation(one: str, kind: str, other: str) -> dict[str, str]:
    return {"spdxElementId": one, "relationshipType": kind, "relatedSpdxElement": other}
