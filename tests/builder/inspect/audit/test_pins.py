"""What the locks pin, as advisories name it, and the age of its files."""

from __future__ import annotations

import datetime
import zipfile
from pathlib import Path

import pytest

from builder.build.workspace import Workspace
from builder.errors import BuilderError
from builder.inspect.audit.pins import Excluded, Pin, excluded, made, pins
from tests.builder import locks

_RECIPE = "FROM scratch\n"


def workspace(root: Path) -> Workspace:
    for name in ("a", "b"):
        (root / "stages" / name).mkdir(parents=True)
        (root / "stages" / name / "Dockerfile").write_text(_RECIPE)
    return Workspace.load(root)


def test_pins_have_the_names_of_their_ecosystems(tmp_path: Path) -> None:
    """PEP 503 on PyPI; at Debian the source package, from the pool, and its own version."""
    found = workspace(tmp_path)
    locks.wheels(tmp_path, "Zope.Interface_x==1.0")
    line = f"libexpat1 2.7.1-2+b1 pool/main/e/expat/libexpat1_2.7.1-2+b1_amd64.deb 9 {'d' * 64}\n"
    locks.lock(tmp_path / "stages/a", "debian.in", "debian.lock", line)
    (tmp_path / "requirements.lock").write_text(
        f"# a comment\nzope-interface-x==1.0 ; os_name == 'nt' \\\n    --hash=sha256:{'0' * 64}\n"
    )
    assert [(p.ecosystem, p.package, p.name, p.version, p.targets) for p in pins(found)] == [
        ("Debian:13", "libexpat1", "expat", "2.7.1-2", ("a",)),
        ("PyPI", "zope-interface-x", "zope-interface-x", "1.0", ("the tasks",)),
        ("PyPI", "zope-interface-x", "zope-interface-x", "1.0", ("b",)),
    ]


def test_files_that_are_left_out_are_told_by_target(tmp_path: Path) -> None:
    found = workspace(tmp_path)
    locks.wheels(tmp_path, "Zope.Interface_x==1.0")
    assert excluded(found) == []
    (tmp_path / "stages/b/exclude.in").write_text("zope-interface.x zope/tests/*  # why\n")
    assert excluded(found) == [Excluded("b", "zope-interface-x", "zope/tests/*")]
    (tmp_path / "stages/a/exclude.in").write_text("nothing x\n")
    with pytest.raises(BuilderError, match=r"a/exclude\.in:1: nothing is not among the wheels"):
        excluded(found)


def test_a_suite_that_no_advisory_names_is_refused(tmp_path: Path) -> None:
    found = workspace(tmp_path)
    (tmp_path / "stages/a/debian.in").write_text("suite sid\nx\n")
    with pytest.raises(BuilderError, match=r"stages/a/debian\.in: the suite sid has no release"):
        pins(found)


@pytest.mark.parametrize(
    ("time", "expected"),
    [((2026, 4, 5, 10, 20, 30), datetime.date(2026, 4, 5)), ((1980, 1, 1, 0, 0, 0), None),
     ((2020, 2, 2, 0, 0, 0), None)],
)  # fmt: skip
def test_a_constant_is_no_date(tmp_path: Path, time: tuple[int, ...], expected: object) -> None:
    (tmp_path / ("a" * 64)).mkdir()
    with zipfile.ZipFile(tmp_path / ("a" * 64) / "p-1-py3-none-any.whl", "w") as archive:
        archive.writestr(zipfile.ZipInfo("p.py", time), b"")
    assert made(Pin("PyPI", "p", "p", "1", "a" * 64), tmp_path) == expected
    assert made(Pin("PyPI", "p", "p", "1", "b" * 64), tmp_path) is None
