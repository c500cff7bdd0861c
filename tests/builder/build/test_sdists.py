"""Sdists that are compiled: in a target that has a compiler, the same on every path."""

from __future__ import annotations

import io
import shutil
import tarfile
from pathlib import Path

import pytest

from builder.build.lock import lock
from builder.build.make import build
from builder.build.workspace import Workspace
from builder.errors import BuilderError
from builder.packages import sdist
from builder.packages.download import downloads_folder
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
