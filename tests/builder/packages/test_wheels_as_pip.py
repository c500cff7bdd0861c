"""Wheels of odd kinds come out as pip itself installs them, to the byte, and answer the same."""

from __future__ import annotations

import base64
import csv
import hashlib
import importlib.metadata
import io
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from builder.packages import bytecode, wheel_layout
from builder.packages.python import DEFAULT

PLAIN = {"{}/__init__.py": b"x = 1\n"}
POINTS = b"""
[console_scripts]
run-{0} = {0}:main
gui.{0}= {0}:App.main [extra]
[gui_scripts]
win-{0} = {0}:main
[pytest11]
one two = {0}.plugin
"""
# What is in each wheel; {} is its name.
KINDS: dict[str, dict[str, bytes]] = {
    "namespace": {"shared/cloud/{}.py": b"", "shared/{}/a.py": b"", "{}-nspkg.pth": b"import sys"},
    "data": {
        **PLAIN, "{}-1.0.data/scripts/tool-{}": b"#!python -u\nx\n",
        "{}-1.0.data/scripts/bare-{}": b"#!python", "{}-1.0.data/scripts/crlf-{}": b"#!python\r\nx",
        "{}-1.0.data/scripts/win-{}": b"#!pythonw\nx",
        "{}-1.0.data/scripts/bin-{}": b"\x7fELF\0\xff",
        "{}-1.0.data/scripts/sh-{}": b"#!/bin/sh\n", "{}-1.0.data/headers/{}.h": b"h",
        "{}-1.0.data/data/share/{}/a b.txt": b"d", "{}-1.0.data/purelib/{}/pure.py": b"p",
        "{}-1.0.data/platlib/{}/plat.so": b"n",
    },
    "egg": {**PLAIN, "{}.egg-info/PKG-INFO": b"Name: egg\n", "{}.egg-info/top_level.txt": b"egg\n"},
    "vendored": {
        **PLAIN, "{}/_vendor/q.py": b"", "{}/_vendor/q-2.dist-info/METADATA": b"Name: q\n",
        "{}/_vendor/q-2.dist-info/RECORD": b"q.py,,\n",
    },
    "signed": {**PLAIN, "{}-1.0.dist-info/RECORD.jws": b"{}", "{}-1.0.dist-info/RECORD.p7s": b"s"},
    "unlisted": {**PLAIN, "{}/not in record.py": b"", "{}/licence": b"l"},
    "letters": {**PLAIN, "{}/\u00fcn\u00efcode \u4f60.py": b"", "{}/e\u0301.txt": b"1"},
    "signs": {**PLAIN, "{}/a,b.py": b"", '{}/q"uote\'s.txt': b"", "{}/#!$&;()[]*?~.txt": b""},
    "native": {"_{}.abi3.so": b"\x7fELF", "{}.libs/libz-1a2b.so.1": b"\x7fELF"},
    "two_words": {**PLAIN, "{}-1.0.data/headers/{}.h": b"h"},
    "single": {"{}.py": b"", "other_{}.py": b""},
    "points": {**PLAIN, "{}-1.0.dist-info/entry_points.txt": POINTS},
    "bytecode": {**PLAIN, "{}/__pycache__/__init__.cpython-313.pyc": b"x", "{}/old.pyc": b"y"},
    "tops": {"t_{}/__init__.py": b"", "{}-1.0.dist-info/top_level.txt": b"t_tops\n"},
    "licences": {**PLAIN, "{}-1.0.dist-info/licenses/a/LICENSE": b"MIT"},
}  # fmt: skip
MODES = {"p755": 0o755, "p640": 0o640, "p000": 0, "p4755": 0o4755, "p777": 0o777, "p111": 0o111}
# What pip adds of its own, or what is another on each host.
NOT_COMPARED = re.compile(
    r"/__pycache__/|\.dist-info/(INSTALLER|REQUESTED|direct_url\.json|RECORD)$"
)


def wheel(folder: Path, name: str, files: dict[str, bytes], modes: dict[str, int]) -> Path:
    path = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    about = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    named = {member.replace("{}", name): data.replace(b"{0}", name.encode())
             for member, data in files.items()}  # fmt: skip
    listed = io.StringIO()
    writer = csv.writer(listed, lineterminator="\n")
    for member, data in {**named, **about}.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
        if "RECORD." not in member and "not in record" not in member:
            writer.writerow([member, f"sha256={digest}", len(data)])
    record = listed.getvalue()
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in {**named, **about, f"{info}/RECORD": record.encode()}.items():
            entry = zipfile.ZipInfo(member)
            # A script without this bit, from Windows, gets it here alone.
            usual = 0o755 if "/scripts/" in member else 0o644
            entry.external_attr = (0o100000 | modes.get(member, usual)) << 16
            archive.writestr(entry, data)
    return path


Found = dict[str, tuple[bool, bytes]]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Install every wheel by pip into one prefix and by the builder into another one."""
    folder = tmp_path_factory.mktemp("wheels")
    found = [wheel(folder, name, files, {}) for name, files in KINDS.items()]
    members = {f"modes/{name}": mode for name, mode in MODES.items()}
    found.append(wheel(folder, "modes", dict.fromkeys(members, b"#!/x"), members))
    theirs, mine = folder / "theirs", folder / "ours"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", theirs], check=True)
    command = [sys.executable, "-m", "pip", "--python", theirs / "bin/python", "install"]
    options = ["--quiet", "--no-index", "--no-deps", "--no-compile", "--disable-pip-version-check"]
    subprocess.run([*command, *options, *found], check=True)
    nobody = bytecode.Interpreter(key="none", run=lambda _script, _records: b"")
    for path in found:
        for entry in wheel_layout.unpack([wheel_layout.installed(path, "opt/venv")], nobody):
            target = mine / entry.path.removeprefix("opt/venv/")
            target.parent.mkdir(parents=True, exist_ok=True)
            with entry.open() as stream:
                target.write_bytes(stream.read())
            target.chmod(entry.mode)
    return theirs, mine


def files(root: Path, python: str, version: str) -> Found:
    """Return the files below `root`, with this host's Python named as an image's."""
    found: Found = {}
    for path in root.rglob("*"):
        name = (
            path.relative_to(root)
            .as_posix()
            .replace(f"python{version}", f"python{DEFAULT.version}")
        )
        if path.is_file() and not NOT_COMPARED.search(f"/{name}"):
            data = path.read_bytes().replace(python.encode(), b"/opt/venv/bin/python3")
            if b"sys.exit(" in data:  # pip's template and installer's differ in how they are put
                data = b"\n".join(re.findall(rb"^#!.*|^from .*|sys\.exit\(.*", data, re.MULTILINE))
            found[name] = (bool(path.stat().st_mode & 0o100), data)
    return found


def answers(site: Path) -> dict[Any, Any]:
    """Return what importlib.metadata says of what is in `site`: of each file its hash and size."""
    found: dict[Any, Any] = {}
    own = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for one in importlib.metadata.distributions(path=[str(site)]):
        points = sorted((p.group, p.name, p.value) for p in one.entry_points)
        listed = {
            str(file).replace(own, f"python{DEFAULT.version}"): file for file in one.files or ()
        }
        rows = {
            name: None if name.startswith("../") else (file.hash and file.hash.value, file.size)
            for name, file in listed.items() if not NOT_COMPARED.search(f"/{name}")
        }  # fmt: skip
        found[one.name, one.version] = (points, rows, one.read_text("top_level.txt"))
    return found


def test_the_files_are_those_that_pip_writes(installed: tuple[Path, Path]) -> None:
    theirs, mine = installed
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    by_pip = files(theirs, str(theirs / "bin/python"), version)
    venv = re.compile(r"bin/(python|activate|Activate)|pyvenv\.cfg")
    assert files(mine, "/opt/venv/bin/python3", DEFAULT.version) == {
        name: found for name, found in by_pip.items() if not venv.match(name)
    }


def test_importlib_answers_as_it_does_after_pip(installed: tuple[Path, Path]) -> None:
    theirs, mine = installed
    (site,) = theirs.glob("lib/python3.*/site-packages")
    by_pip, found = answers(site), answers(mine / DEFAULT.site)
    assert by_pip.keys() == {*((name, "1.0") for name in (*KINDS, "modes")), ("egg", None)}
    for _, rows, _ in by_pip.values():
        for name in [name for name, row in rows.items() if row == (None, None)]:
            rows[name] = "what RECORD does not list pip lists without a hash"
    for name, (_, rows, _) in found.items():
        rows |= {file: row for file, row in by_pip[name][1].items() if isinstance(row, str)}
    assert found == by_pip
