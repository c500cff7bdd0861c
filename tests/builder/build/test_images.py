"""The project's own base image, as built from Debian's packages, in both sandboxes."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from builder.build.make import build
from builder.build.workspace import Workspace
from builder.errors import BuilderError
from builder.sandbox.engines import choose
from builder.sandbox.process import Exit, Mount, Process, Sandbox, run
from builder.store import Store
from tests.conftest import missing

ROOT = Path(__file__).parents[3]


@pytest.fixture(params=["bubblewrap", "docker"])
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    try:
        return choose(request.param, Store.open())
    except BuilderError as error:
        missing(str(error), "apt-get install docker.io, then start dockerd")
        raise


def python(sandbox: Sandbox, script: str, **members: object) -> tuple[Exit, str]:
    image = build(Workspace.load(ROOT), Store.open(), ["base"])["base"].image
    process = Process(image=image, command=("python3", "-c", script), **members)  # type: ignore[arg-type]
    with tempfile.TemporaryFile() as output:
        ended = run(sandbox, process, output)
        output.seek(0)
        return ended, output.read().decode()


def test_python_has_its_libraries_and_byte_code(sandbox: Sandbox) -> None:
    ended, text = python(
        sandbox,
        "import ssl, sqlite3, ctypes, zoneinfo, json, sys, os\n"
        "zoneinfo.ZoneInfo('Europe/Stockholm')\n"
        "assert len(ssl.create_default_context().get_ca_certs()) > 50\n"
        "assert os.path.exists(json.__cached__), json.__cached__\n"
        "print(sys.version_info[:2], os.getuid(), sys.prefix)",
    )
    assert ended.code == 0, text
    assert text.startswith("(3, 13)")
    assert text.split()[2:] == ["65532", "/opt/venv"]


def test_the_root_is_read_only_and_tmp_is_not(sandbox: Sandbox) -> None:
    ended, text = python(sandbox, "open('/tmp/a','w').close(); open('/app/a','w')")
    assert ended.code == 1
    assert "Read-only file system" in text


def test_there_is_no_network_unless_asked(sandbox: Sandbox) -> None:
    ended, text = python(
        sandbox, "import socket; socket.create_connection(('203.0.113.1', 80), timeout=3)"
    )
    assert ended.code == 1
    assert "unreachable" in text


def test_a_mount_is_written_only_where_it_may_be(sandbox: Sandbox, tmp_path: Path) -> None:
    for name in ("in", "out"):
        (tmp_path / name).mkdir()
    mounts = (Mount(tmp_path / "in", "/mnt/in"), Mount(tmp_path / "out", "/mnt/out", writable=True))
    ended, text = python(
        sandbox, "open('/mnt/out/a','w').write('x'); open('/mnt/in/b','w')", mounts=mounts
    )
    assert ended.code == 1, text
    assert "Read-only" in text
    assert (tmp_path / "out" / "a").read_text() == "x"


def test_exit_codes_signals_and_time_limits_are_told_apart(sandbox: Sandbox) -> None:
    assert python(sandbox, "raise SystemExit(7)")[0].code == 7
    killed, _ = python(sandbox, "import os, signal; signal.raise_signal(signal.SIGSEGV)")
    assert killed.signal == 11
    late, _ = python(sandbox, "import time; time.sleep(60)", timeout=2)
    assert late.timed_out
    assert late.seconds < 30


@pytest.mark.slow
def test_a_build_from_an_empty_store_gives_the_same_digests(tmp_path: Path) -> None:
    workspace = Workspace.load(ROOT)
    names = ["base", "prepare", "package"]
    known = build(workspace, Store.open(), names)
    again = build(workspace, Store.open(tmp_path / "empty"), names, jobs=1)
    assert {n: b.image.digest for n, b in again.items()} == {
        n: b.image.digest for n, b in known.items()
    }
    assert not any(b.cached for n, b in again.items() if n != "base")
