"""One component of an image, and the names that scanners know it by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

# An SPDX document says so of a licence that is not known: https://spdx.github.io/spdx-spec/v2.3/.
UNKNOWN = "NOASSERTION"


@dataclass(frozen=True, slots=True)
class Part:
    """One component of an image; `kind` is system, deb, wheel, file, source, recipe or image.

    `qualifiers` are those of its package URL. `licence` is an SPDX expression, `UNKNOWN`, or empty
    for what is no package. `excluded` are the patterns of the files that the image did not get.
    """

    kind: str
    name: str
    version: str = ""
    sha256: str = ""
    qualifiers: tuple[tuple[str, str], ...] = ()
    licence: str = ""
    excluded: tuple[str, ...] = ()

    @property
    def ref(self) -> str:
        """The name of the part within a document: no two parts have the same."""
        url = package_url(self)
        return str(url) if url else f"{self.kind}:{self.name}"


def package_url(part: Part) -> Any:
    """Return the PackageURL of a Debian package, a wheel or an image; None for another part.

    Source: https://github.com/package-url/purl-spec/blob/main/PURL-TYPES.rst.
    """
    from packageurl import PackageURL

    types = {"deb": ("deb", "debian"), "wheel": ("pypi", None), "image": ("oci", None)}
    if part.kind not in types:
        return None
    return PackageURL(*types[part.kind], part.name, part.version, dict(part.qualifiers))


def cpe(part: Part) -> str:
    """Return the CPE of the operating system; empty for other parts.

    The dictionary of CPEs has no rule for the vendor of a package, and a guess finds the holes of
    others: scanners go by the package URL. Source: https://nvd.nist.gov/products/cpe.
    """
    if part.kind != "system":
        return ""
    return f"cpe:2.3:o:debian:debian_linux:{part.version}:*:*:*:*:*:*:*"
