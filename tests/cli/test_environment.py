"""`.venv` comes from two locks: what tasks need at once, what tests need when one is asked for."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pip
import pytest

from cli import environment
from cli.environment import DEVELOPMENT, TASKS

ROOT = Path(__file__).parents[2]
Install = Callable[..., subprocess.CompletedProcess[str]]


def wheel(folder: Path, name: str) -> str:
    """Write a wheel of one module into `folder` and return its lines of a lock."""
    path = folder / f"{name}-1-py3-none-any.whl"
    info = f"{name}-1.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", "")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return f"{name}==1 \\\n    --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Return a function that starts the installation of a lock; pip sees only wheels/."""
    (tmp_path / "wheels").mkdir()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    (site,) = tmp_path.glob("venv/lib/*/site-packages")
    for path in Path(pip.__file__).parents[1].glob("pip*"):
        (site / path.name).symlink_to(path)

    def run(lock: str = DEVELOPMENT, **variables: str) -> subprocess.Popen[str]:
        script = (
            "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path;"
            "from cli.environment import install;"
            "install(Path(sys.argv[2]), sys.argv[3], Path(sys.argv[4]))"
        )
        return subprocess.Popen(
            [sys.executable, "-c", script, ROOT, tmp_path / "venv", lock, tmp_path],
            stderr=subprocess.PIPE, text=True,
            env={"PATH": "/usr/bin:/bin", "PIP_NO_INDEX": "1", "HOME": str(tmp_path),
                 "PIP_FIND_LINKS": str(tmp_path / "wheels"), **variables},
        )  # fmt: skip

    return run


def installed(venv: Path) -> set[str]:
    return {path.name.partition("-")[0] for path in venv.glob("lib/*/site-packages/*.dist-info")}


def test_the_two_locks_agree_and_the_tasks_need_no_tool_of_tests() -> None:
    pins = [
        {line.split(" \\")[0] for line in (ROOT / lock).read_text().splitlines() if "==" in line}
        for lock in (TASKS, DEVELOPMENT)
    ]
    tasks, development = ({p.split(" ")[0] for p in found if p[0].isalnum()} for found in pins)
    versions = dict(pin.split("==") for pin in tasks)
    for name, version in (pin.split("==") for pin in development):
        assert versions.get(name, version) == version, name
    for name in ("pytest", "hypothesis", "mypy", "ruff", "numpy", "selenium"):
        assert name not in versions
        assert any(pin.startswith(f"{name}==") for pin in development)


def test_two_first_uses_at_once_install_it_once(start, tmp_path: Path) -> None:
    names = ("some", "other", "third")
    lock = "".join(wheel(tmp_path / "wheels", name) for name in names)
    (tmp_path / DEVELOPMENT).write_text(lock)
    both = [start(), start()]
    said = [process.communicate()[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert "".join(said).count(f"installing {DEVELOPMENT}") == 1
    assert {*names} <= installed(tmp_path / "venv")
    third = start()
    assert third.communicate()[1] == ""


@pytest.mark.slow
def test_the_first_task_makes_the_environment_with_the_pip_of_the_lock(start, tmp_path: Path):
    """By the pip in the wheel that comes with Python, which is not installed itself."""
    shutil.rmtree(tmp_path / "venv")
    (tmp_path / TASKS).write_text("".join(wheel(tmp_path / "wheels", n) for n in ("pip", "some")))
    made = start(TASKS)
    assert made.wait() == 0, made.communicate()
    assert installed(tmp_path / "venv") == {"pip", "some"}


def test_a_changed_lock_is_installed_and_a_failure_is_tried_again(start, tmp_path: Path) -> None:
    good = wheel(tmp_path / "wheels", "some")
    (tmp_path / DEVELOPMENT).write_text(good[:-3] + "00\n")
    failed = start()
    said = failed.communicate()[1]
    assert failed.returncode == 1
    assert "THESE PACKAGES DO NOT MATCH THE HASHES" in said
    assert f"pip could not install {DEVELOPMENT}: see its message above" in said
    assert "Traceback" not in said
    (tmp_path / DEVELOPMENT).write_text(good)
    assert start().wait() == 0
    (tmp_path / DEVELOPMENT).write_text(good + wheel(tmp_path / "wheels", "other"))
    assert start().wait() == 0
    assert {"some", "other"} <= installed(tmp_path / "venv")


def test_without_a_network_that_is_what_is_said(start, tmp_path: Path) -> None:
    (tmp_path / DEVELOPMENT).write_text(wheel(tmp_path / "wheels", "some"))
    failed = start(
        PIP_NO_INDEX="0", PIP_FIND_LINKS="", PIP_INDEX_URL="http://127.0.0.1:9/", PIP_RETRIES="1"
    )
    said = failed.communicate()[1]
    assert failed.returncode == 1
    assert "the package index was not reached" in said


def test_a_python_that_invoke_did_not_make_is_left_alone(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    environment.development_tools()
    assert list(tmp_path.iterdir()) == []
