"""Under which licences packages are, as SPDX expressions, by what the packages themselves say.

A wheel says it in its METADATA, a Debian package in /usr/share/doc/<name>/copyright. What is not
said in a form that leaves no doubt is `UNKNOWN`: a licence is never guessed from a text. Sources:
https://packaging.python.org/en/latest/specifications/core-metadata/ and
https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from builder.errors import BuilderError
from builder.inspect.bill.part import UNKNOWN
from builder.oci.entry import Entry
from builder.packages import debian

FORMAT = "licences-1"
_LARGEST = 4 << 20
# How wheels spell, in License or a classifier, what SPDX has one id for. "BSD License" and "Apache
# Software License" are several licences, so they are not here (PEP 639, "Mapping License
# Classifiers to SPDX Identifiers").
_SPELLINGS = {
    "3-clause bsd": "BSD-3-Clause",
    "apache 2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "apache-2.0 license": "Apache-2.0",
    "bsd 2-clause": "BSD-2-Clause",
    "bsd 3-clause": "BSD-3-Clause",
    "isc license (iscl)": "ISC",
    "mit license": "MIT",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "the unlicense (unlicense)": "Unlicense",
}
# The GNU licences of DEP-5: GPL-2+ is GPL-2.0-or-later. Its other short names are SPDX's own.
_GNU = re.compile(r"(AGPL|LGPL|GPL|GFDL)-(\d)(?:\.(\d))?(\+?)")
_DEP5 = {"expat": "MIT"}
_NOT_IN_REFS = re.compile(r"[^A-Za-z0-9.]+")


def of_wheel(path: Path) -> str:
    """Return the licence of a wheel; raises BuilderError for a file that is no wheel."""
    import zipfile  # costs time

    try:
        with zipfile.ZipFile(path) as archive:
            (name,) = [n for n in archive.namelist() if _is_metadata(n)]
            with archive.open(name) as stream:
                return of_metadata(stream.read(_LARGEST))
    except (zipfile.BadZipFile, ValueError, OSError, EOFError, NotImplementedError) as error:
        raise BuilderError(f"the licence of {path.name} cannot be read ({error})") from None


def _is_metadata(name: str) -> bool:
    return name.endswith(".dist-info/METADATA") and name.count("/") == 1


def of_metadata(data: bytes) -> str:
    """Return the licence that a METADATA file says; of its three fields the newest one counts."""
    import email  # costs time

    said = email.message_from_bytes(data)
    if expression := said["License-Expression"]:
        return _spdx(str(expression)) or UNKNOWN
    if found := _spelled(str(said["License"] or "")):
        return found
    classifiers = [str(c) for c in said.get_all("Classifier", [])]
    named = [c.rpartition(" :: ")[2] for c in classifiers
             if c.startswith("License :: ") and c != "License :: OSI Approved"]  # fmt: skip
    # Of several, nobody says whether one may choose among them or must keep to all.
    return (_spelled(named[0]) if len(named) == 1 else "") or UNKNOWN


def _spelled(text: str) -> str:
    text = " ".join(text.split())
    plain = text.lower().removeprefix("the ")
    return (
        _spdx(text) or _SPELLINGS.get(plain) or _SPELLINGS.get(plain.removesuffix(" license"), "")
    )


def _spdx(text: str) -> str:
    """Return an SPDX expression in its one spelling; empty for what is none."""
    from packaging.licenses import (  # costs time
        InvalidLicenseExpression,
        canonicalize_license_expression,
    )

    try:
        return str(canonicalize_license_expression(text))
    except InvalidLicenseExpression:
        return ""


def of_debs(packages: Sequence[debian.Package], paths: Sequence[Path]) -> dict[str, str]:
    """Return name -> licence of Debian packages, whose files are at `paths`.

    They are read together, for one may leave its licences to another's file. Raises BuilderError as
    `debian.overlaid` does.
    """
    entries = debian.overlaid(packages, paths)
    return {package.name: _of_deb(package.name, entries) for package in packages}


def _of_deb(name: str, entries: Mapping[str, Entry]) -> str:
    folder = f"usr/share/doc/{name}"
    link = entries.get(folder)
    if link and link.kind == "symlink" and "/" not in link.target:
        folder = f"usr/share/doc/{link.target}"  # libgcc-s1 -> gcc-14-base
    file = entries.get(f"{folder}/copyright")
    if file is None or file.kind != "file":
        return UNKNOWN
    with file.open() as stream:
        return of_copyright(stream.read(_LARGEST).decode("utf-8", "replace"))


def of_copyright(text: str) -> str:
    """Return all licences of a Debian copyright file together; UNKNOWN for one in plain words.

    The file is of the source package: what it says of files that are not in the binary package, as
    tests, counts too. A name that SPDX does not have becomes `LicenseRef-<name>`.
    """
    from debian.copyright import Copyright, MachineReadableFormatError, NotMachineReadableError

    logging.getLogger("debian.copyright").setLevel(logging.ERROR)  # it mends an http: to https:
    try:
        parsed = Copyright(text.splitlines(keepends=True), strict=False)
        licences: list[Any] = [files.license for files in parsed.all_files_paragraphs()]
    except (NotMachineReadableError, MachineReadableFormatError, ValueError, TypeError):
        return UNKNOWN
    names = [licence.synopsis.strip() if licence else "" for licence in licences]
    if not names or not all(names):
        return UNKNOWN
    return _together(part for name in names for part in _of_field(name))


def _together(expressions: Iterable[str]) -> str:
    """Return expressions that all hold, sorted, each once."""
    single = sorted(set(expressions))
    if len(single) == 1:
        return single[0]
    return " AND ".join(f"({one})" if " OR " in one else one for one in single)


def _of_field(text: str) -> list[str]:
    """Return expressions that all hold, for a License field; `and` binds tighter than `or`."""
    if "," in text or " with " in text:  # then it binds otherwise, or has an exception
        return [_reference(text)]
    either = [list(map(_short, one.split(" and "))) for one in text.split(" or ")]
    if len(either) == 1:
        return either[0]
    return [" OR ".join(dict.fromkeys(map(_together, either)))]


def _short(name: str) -> str:
    name = name.strip()
    if gnu := _GNU.fullmatch(name):
        family, major, minor, later = gnu.groups()
        name = f"{family}-{major}.{minor or 0}-{'or-later' if later else 'only'}"
    known = _DEP5.get(name.lower()) or (_spdx(name) if " " not in name else "")
    return known or _reference(name)


def _reference(name: str) -> str:
    name = name.replace("+", "-or-later")
    return f"LicenseRef-{_NOT_IN_REFS.sub('-', name).strip('-') or 'none'}"
