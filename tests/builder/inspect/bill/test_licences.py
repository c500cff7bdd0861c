"""A licence is what the package says of itself in a form that leaves no doubt, or not known."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.licenses import canonicalize_license_expression

from builder.errors import BuilderError
from builder.inspect.bill import licences
from builder.inspect.bill.part import UNKNOWN
from builder.packages import debian
from tests.builder import packed

APACHE_CLASSIFIER = "License :: OSI Approved :: Apache Software License"
DEP5 = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\n"


def copyright_file(*names: str) -> str:
    paragraphs = (
        f"Files: {number}\nCopyright: x\nLicense: {n}\n" for number, n in enumerate(names)
    )
    return DEP5 + "\n".join(paragraphs)


@pytest.mark.parametrize(
    ("lines", "licence"),
    [
        (["License-Expression: mit or apache-2.0"], "MIT OR Apache-2.0"),
        (["License-Expression: MIT", "License: GPL-3.0-only"], "MIT"),
        (["License-Expression: My Own"], UNKNOWN),
        (["License: BSD-3-Clause", "Classifier: License :: OSI Approved :: BSD License"],
         "BSD-3-Clause"),
        (["License: 3-Clause BSD License"], "BSD-3-Clause"),
        (["License: The MIT License"], "MIT"),
        (["License: Apache License, Version 2.0"], "Apache-2.0"),
        (["License: MIT License", "Classifier: " + APACHE_CLASSIFIER,
          "Classifier: License :: OSI Approved :: MIT License"], "MIT"),
        (["Classifier: License :: OSI Approved",
          "Classifier: License :: OSI Approved :: MIT License"], "MIT"),
        (["Classifier: " + APACHE_CLASSIFIER], UNKNOWN),  # 1.0, 1.1 or 2.0
        (["License: BSD"], UNKNOWN),
        (["License: Copyright (c) 2001", "        All rights reserved."], UNKNOWN),
        (["Classifier: License :: OSI Approved :: MIT License",
          "Classifier: License :: OSI Approved :: ISC License (ISCL)"], UNKNOWN),  # and, or or?
        ([], UNKNOWN),
    ],
)  # fmt: skip
def test_a_wheels_licence(lines: list[str], licence: str, tmp_path: Path) -> None:
    name, data = packed.wheel("p", "1.0", "\n".join(lines) + "\n")
    (tmp_path / name).write_bytes(data)
    assert licences.of_wheel(tmp_path / name) == licence


def test_what_is_no_wheel_is_named(tmp_path: Path) -> None:
    (tmp_path / "p-1.0-py3-none-any.whl").write_bytes(b"PK\x03\x04 no more")
    with pytest.raises(BuilderError, match=r"the licence of p-1\.0-py3-none-any\.whl cannot be"):
        licences.of_wheel(tmp_path / "p-1.0-py3-none-any.whl")


@pytest.mark.parametrize(
    ("names", "licence"),
    [
        (["Expat"], "MIT"),
        (["zlib", "Zlib"], "Zlib"),
        (["GPL-2"], "GPL-2.0-only"),
        (["LGPL-2.1+", "GPL-3+"], "GPL-3.0-or-later AND LGPL-2.1-or-later"),
        (["BSD-3-clause or GPL-2", "Expat"], "(BSD-3-Clause OR GPL-2.0-only) AND MIT"),
        (["ISC and LGPL-2.1+ or Expat"], "ISC AND LGPL-2.1-or-later OR MIT"),
        (["Sleepycat and BSD-3-clause", "BSD-3-clause"], "BSD-3-Clause AND Sleepycat"),
        (["public-domain"], "LicenseRef-public-domain"),
        (["GPL-2+ with OpenSSL exception"], "LicenseRef-GPL-2-or-later-with-OpenSSL-exception"),
        (["GFDL-NIV-1.3", "GFDL-NIV-1.3+"],
         "LicenseRef-GFDL-NIV-1.3 AND LicenseRef-GFDL-NIV-1.3-or-later"),
    ],
)  # fmt: skip
def test_a_debian_packages_licence(names: list[str], licence: str) -> None:
    assert licences.of_copyright(copyright_file(*names)) == licence


def test_a_copyright_file_in_plain_words_is_not_guessed() -> None:
    assert licences.of_copyright("This is free software under the GPL, version 2.\n") == UNKNOWN
    assert licences.of_copyright(DEP5 + "Files: *\nCopyright: x\n") == UNKNOWN


@settings(deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=40), max_size=4), st.booleans())
def test_whatever_a_copyright_file_says_becomes_an_expression(
    names: list[str], headed: bool
) -> None:
    text = copyright_file(*names) if headed else "\n".join(names)
    found = licences.of_copyright(text)
    assert found == UNKNOWN or canonicalize_license_expression(found)


def test_a_package_may_leave_its_licence_to_another_ones_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As libgcc-s1 leaves it to gcc-14-base."""
    monkeypatch.setenv("PLATELINE_STORE", str(tmp_path / "home/store"))
    folder = tmp_path / "stages/a"
    folder.mkdir(parents=True)
    doc = "./usr/share/doc/"
    packed.lock_debs(
        folder,
        packed.deb("base", "1", {f"{doc}base/copyright": copyright_file("Expat")}),
        packed.deb("lib", "1", {f"{doc}lib": "-> base"}),
        packed.deb("lost", "1", {f"{doc}lost": "-> nowhere"}),
        packed.deb("mute", "1", {"./usr/lib/mute": "x"}),
    )
    locked = debian.read_lock(folder)
    paths = debian.fetch(locked, tmp_path / "home/downloads")
    assert licences.of_debs(locked, paths) == {
        "base": "MIT", "lib": "MIT", "lost": UNKNOWN, "mute": UNKNOWN
    }  # fmt: skip
