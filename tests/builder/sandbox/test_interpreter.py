"""Byte-code is compiled without namespaces, and nothing of the host comes in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.build import planner
from builder.build.make import Builder, ignore
from builder.build.workspace import Workspace
from builder.errors import BuilderError
from builder.packages import bytecode, debian, lock_file, python
from builder.packages.download import downloads_folder
from builder.sandbox.interpreter import run_pinned
from builder.sandbox.process import Exit
from builder.sandbox.unpack import filled
from builder.store import Store
from tests.builder.conftest import Make
from tests.conftest import missing

ROOT = Path(__file__).parents[3]
WHAT_IT_SEES = """
import importlib.util, json, marshal, os, sys
with open("/proc/self/maps") as maps:
    files = {line.split(None, 5)[5].strip() for line in maps if "/" in line}
modules = [m.__file__ for m in sys.modules.values() if getattr(m, "__file__", None)]
print(json.dumps([os.getcwd(), sorted(files), sys.path, modules, dict(os.environ)]))
"""
SOURCE = (
    b'import os\nRATIO = 2 ** 0.5\nNAMES = {"b", "a"}\ndef f(x, *, y=("z", 1.5)):\n    return x\n'
)
RECORD = b"app/a.py\0%d\n" % len(SOURCE) + SOURCE


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the packages of the base image alone."""
    store = Store.open(tmp_path_factory.mktemp("beside") / "store")
    packages = debian.read_lock(ROOT / "stages/base")
    return filled(store, "0" * 64, lambda: debian.unpack(packages, downloads_folder()))


@pytest.fixture
def hostile(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put another standard library, modules and libraries wherever a host may have them."""
    (tmp_path / "importlib").mkdir()
    for name in ("importlib/__init__", "encodings", "sitecustomize", "marshal", "warnings"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the host got in')\n")
    for name in ("PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "LOCPATH", "PYTHONPLATLIBDIR"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("LD_PRELOAD", "libm.so.6")
    monkeypatch.setenv("PYTHONINTMAXSTRDIGITS", "0")
    monkeypatch.setenv("PYTHONOPTIMIZE", "2")
    monkeypatch.chdir(tmp_path)
    library = root.parent / f"lib/python{python.DEFAULT.version.replace('.', '')}.zip"
    library.parent.mkdir()
    with zipfile.ZipFile(library, "w") as archive:
        archive.writestr("encodings/__init__.py", "raise SystemExit('the host got in')\n")
    yield
    library.unlink()
    library.parent.rmdir()


@pytest.mark.usefixtures("hostile")
def test_nothing_of_the_host_is_loaded(root: Path) -> None:
    here, files, path, modules, environ = json.loads(run_pinned(root, WHAT_IT_SEES, b""))
    assert here == str(root)
    for file in files:
        assert Path(file).is_relative_to(root), file
    for file in (*path, *modules):
        assert (root / file).is_relative_to(root), file
    assert len(files) > 3
    assert len(modules) > 3
    assert set(environ) == {"GLIBC_TUNABLES", "LC_ALL", "PATH", "PYTHONHASHSEED", "PYTHONHOME"}


def test_the_byte_code_is_the_same_whatever_is_around(
    root: Path, request: pytest.FixtureRequest
) -> None:
    before = run_pinned(root, bytecode.SCRIPT, RECORD)
    assert before.startswith(b"app/a.py\0")
    request.getfixturevalue("hostile")
    assert run_pinned(root, bytecode.SCRIPT, RECORD) == before


def test_a_library_that_the_packages_lack_is_not_taken_from_the_host(
    root: Path, tmp_path: Path
) -> None:
    store = Store.open(tmp_path / "store")
    packages = [p for p in debian.read_lock(ROOT / "stages/base") if p.name != "zlib1g"]
    lacking = filled(store, "1" * 64, lambda: debian.unpack(packages, downloads_folder()))
    with pytest.raises(BuilderError, match=r"libz\.so\.1") as caught:
        run_pinned(lacking, bytecode.SCRIPT, RECORD)
    assert str(lacking) in str(caught.value)


def test_it_compiles_in_a_chroot_where_nothing_can_be_isolated(root: Path, tmp_path: Path) -> None:
    """No /proc, no /dev, no other files: what an image has on its own."""
    if os.geteuid():
        missing("the right to change the root", "run the tests as root")
    before = run_pinned(root, bytecode.SCRIPT, RECORD)
    inside = tmp_path / "inside"
    inside.mkdir()
    subprocess.run(["cp", "-al", root, inside / "python"], check=True)
    code = (
        "import os, sys; from pathlib import Path\n"
        "from builder.packages import bytecode\n"
        "from builder.sandbox.interpreter import run_pinned\n"
        "import subprocess, encodings.idna\n"
        "os.chroot(sys.argv[1]); os.chdir('/'); os.setgid(12345); os.setuid(12345)\n"
        "out = run_pinned(Path('/python'), bytecode.SCRIPT, sys.stdin.buffer.read())\n"
        "sys.stdout.buffer.write(out)\n"
    )
    inside.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", code, inside], input=RECORD, capture_output=True, check=False,
        cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout == before


def test_a_folder_where_nothing_may_be_executed_is_named(tmp_path: Path) -> None:
    loader = tmp_path / python.DEFAULT.loader
    loader.parent.mkdir(parents=True)
    loader.write_bytes(b"")
    with pytest.raises(BuilderError, match="point PLATELINE_STORE at another"):
        run_pinned(tmp_path, "", b"")


def test_the_lock_of_the_base_brings_that_python(root: Path) -> None:
    packages = [package.name for package in debian.read_lock(ROOT / "stages/base")]
    assert python.DEFAULT.package in packages
    for path in (python.DEFAULT.program, python.DEFAULT.loader, python.DEFAULT.libraries):
        assert (root / path).exists()
    settings = (ROOT / "stages/base/rootfs/opt/venv/pyvenv.cfg").read_text()
    assert f"version = {python.DEFAULT.version}\n" in settings
    found = run_pinned(root, "import sys; print(sys.implementation.cache_tag)", b"")
    assert found.decode().strip() == python.DEFAULT.cache_tag


DEBIAN = "FROM scratch\nCOPY --from=debian / /\n"
LOCK = f"{python.DEFAULT.package} 3.13.5 pool/p.deb 10 {'d' * 64}\n"


@pytest.fixture
def workspace(make: Make) -> Workspace:
    """Return a workspace whose base `a` has a pinned Python, and `b` has wheels."""
    made = make(
        DEBIAN,
        **{
            "stages/a/debian.in": "",
            "stages/a/debian.lock": LOCK,
            "stages/b/Dockerfile": "FROM a\nCOPY x /\n",
            "x": "1",
        },
    )
    folder = made.root / "stages/a"
    lines = f"# made from debian.in {lock_file.in_hash(folder, 'debian.in')}\n{LOCK}"
    (folder / "debian.lock").write_text(lines)
    return made


def test_the_key_of_the_interpreter_covers_the_packages_alone(
    workspace: Workspace, store: Store
) -> None:
    plans = Builder(workspace, store, 1, ignore, None, need_layers=True)
    found = plans.plans(())
    planned: planner.Planner = plans.planner
    keys = {name: planned.interpreter(plan).key for name, plan in found.items()}
    assert keys["a"] == keys["b"]


def test_a_python_of_somebody_else_is_refused_where_nothing_is_isolated(
    make: Make, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is a program of strangers: it runs in bubblewrap or not at all."""
    workspace = make("FROM scratch\nCOPY x /usr/bin/python3\n", x="1")

    def no_namespaces(*arguments: object) -> Exit:
        sink = arguments[2]
        sink.write(b"bwrap: No permissions to create new namespace\n")  # type: ignore[attr-defined]
        return Exit(code=1)

    monkeypatch.setattr("builder.sandbox.interpreter.run", no_namespaces)
    plans = Builder(workspace, store, 1, ignore, None, need_layers=True)
    interpreter = plans.planner.interpreter(plans.plans(())["a"])
    with pytest.raises(BuilderError, match=r"nothing can be isolated .*COPY --from=debian / /"):
        interpreter.run(bytecode.SCRIPT, RECORD)
