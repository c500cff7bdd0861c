"""Sdists that are compiled: in a target that has a compiler, the same on every path."""

from __future__ import annotations

import io
import itertools
import shutil
import tarfile
from pathlib import Path

import pytest

from builder import oci
from builder.build import sdists
from builder.build.lock import lock
from builder.build.make import build
from builder.build.workspace import Workspace
from builder.errors import BuilderError
from builder.packages import sdist
from builder.packages.download import downloads_folder
from builder.sandbox import wheel_build
from builder.sandbox.interpreter import run_python
from builder.store import Store, default_root
from tests.builder.conftest import Make

ROOT = Path(__file__).parents[3]
NAME = "plateline-example-of-c"
SOURCE = {
    "pyproject.toml": '[build-system]\nrequires = ["setuptools"]\n'
    f'[project]\nname = "{NAME}"\nversion = "1"\n',
    "setup.py": "from setuptools import Extension, setup\n"
    'setup(ext_modules=[Extension("answer", ["answer.c"])], py_modules=[])\n',
    "answer.c": "#include <Python.h>\n#include <assert.h>\n"
    "static PyObject *get(PyObject *self, PyObject *none)\n"
    '{ assert(self); return Py_BuildValue("is", 42, __FILE__); }\n'
    'static PyMethodDef has[] = {{"get", get, METH_NOARGS, ""}, {0}};\n'
    'static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "answer", "", -1, has};\n'
    "PyMODINIT_FUNC PyInit_answer(void) { return PyModule_Create(&module); }\n",
}
USES = """import sys
sys.path.append("/opt/venv/lib/python3.13/site-packages")
import answer
print(*answer.get())"""
STAGE = "FROM base\nCOPY --from=wheels / /opt/venv/\n"
COMPILER = "FROM base\nCOPY --from=debian / /\n"


@pytest.fixture
def workspace(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    with tarfile.open(tmp_path / f"{NAME.replace('-', '_')}-1.tar.gz", "w:gz") as archive:
        for name, text in SOURCE.items():
            member = tarfile.TarInfo(f"{NAME}-1/{name}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    base = tmp_path / "workspace/stages/base"
    shutil.copytree(ROOT / "stages/base", base, symlinks=True)
    return make(
        STAGE,
        **{
            "stages/a/requirements.in": f"{NAME}\n",
            "stages/a/sdists.in": f"{NAME}==1\n",
            "stages/compiler/Dockerfile": COMPILER,
            "stages/compiler/debian.in": "gcc\nlibc6-dev\nlibpython3.13-dev\n",
        },
    )


@pytest.fixture
def unlike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose sdist makes another wheel each time."""
    monkeypatch.setenv("PLATELINE_STORE", str(tmp_path / "cache/store"))
    source = tmp_path / "p-1.tar.gz"
    source.write_bytes(b"source")
    numbers = itertools.count()

    def build_one(*_: object, **__: object) -> tuple[str, bytes]:
        return "p-1-py3-none-any.whl", b"wheel %d" % next(numbers)

    monkeypatch.setattr(sdist, "bring", lambda *_: source)
    monkeypatch.setattr(sdist, "build_system", lambda _: ("backend", []))
    monkeypatch.setattr(wheel_build, "build", build_one)
    (tmp_path / "sdists.in").write_text("p==1\n")
    return tmp_path


def no_image() -> tuple[Store, oci.Image]:
    raise AssertionError


def test_what_is_built_twice_and_differs_is_locked_only_where_a_line_allows_it(
    unlike: Path,
) -> None:
    def pin() -> list[sdist.Sdist]:
        return sdists.pin(unlike, lambda: (None, None), lambda _: ())  # type: ignore[arg-type,return-value]

    with pytest.raises(BuilderError, match=r"p 1 is not reproducible: .* write `allow p: REASON`"):
        pin()
    (unlike / "sdists.in").write_text("p==1\nallow p: it writes the time\n")
    (made,) = pin()
    assert made.allowed == "it writes the time"
    wheel = downloads_folder() / made.wheel_sha256 / made.wheel
    sdists.make([made], no_image)
    sdists.make([made], no_image, again=True)
    wheel.unlink()
    with pytest.raises(BuilderError, match=r"allowed to differ \(it writes the time\), .* --cache"):
        sdists.make([made], lambda: (None, None))  # type: ignore[arg-type,return-value]
    assert not wheel.exists()


@pytest.mark.slow
def test_an_extension_in_c_is_compiled_where_a_target_has_a_compiler(
    workspace: Workspace, tmp_path: Path
) -> None:
    store, folder = Store(default_root()), workspace.target("a").folder
    with pytest.raises(BuilderError, match=r"without network and compiler .*`image TARGET`"):
        lock(workspace, ["a"])
    lock(workspace, ["compiler"])
    (folder / "sdists.in").write_text(f"{NAME}==1\nimage compiler\n")
    lock(workspace, ["a"])
    (pinned,) = sdist.read_lock(folder)
    assert pinned.wheel == "plateline_example_of_c-1-cp313-cp313-linux_x86_64.whl"

    (downloads_folder() / pinned.wheel_sha256 / pinned.wheel).unlink()
    made = build(Workspace.load(workspace.root), store, ["a"])["a"].image
    said = run_python(store, made, USES, b"")
    assert said.decode().split() == ["42", "answer.c"]

    (workspace.root / "stages/compiler/Dockerfile").write_text("FROM scratch\nCOPY a /\n")
    with pytest.raises(BuilderError, match=r"`image compiler` does not stand on base"):
        lock(Workspace.load(workspace.root), ["a"])
