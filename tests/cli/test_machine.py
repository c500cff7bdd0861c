"""`doctor` says what is missing and how to get it, asks before it acts, and ends no other."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from builder.errors import BuilderError
from cli import engine, machine, machine_parts
from cli.machine_parts import Check


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PLATELINE_STORE", str(tmp_path / "cache/store"))
    return tmp_path / "cache"


def test_nothing_is_run_where_the_answer_is_no(monkeypatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("shutil.which", lambda name, **_: f"/usr/bin/{name}")
    monkeypatch.setattr(machine_parts, "_apt", lambda _: pytest.fail("it ran"))
    said: list[str] = []
    machine_parts.fix([Check("skopeo", "", "tests", ("skopeo",))], said.append, lambda: False)
    assert said[:2] == [
        "to run as root: apt-get update -qq", "to run as root: apt-get install -y -qq skopeo",
    ]  # fmt: skip
    assert said[-1] == "nothing was changed"


def test_what_was_agreed_to_is_run(monkeypatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("shutil.which", lambda name, **_: f"/usr/bin/{name}")
    ran: list[list[str]] = []
    monkeypatch.setattr(machine_parts, "_apt", ran.append)
    machine_parts.fix([Check("skopeo", "", "tests", ("skopeo",))], lambda _: None)
    assert ran == [["update", "-qq"], ["install", "-y", "-qq", "skopeo"]]


def test_nobody_is_asked_in_ci_or_without_a_terminal(monkeypatch) -> None:
    monkeypatch.setattr("builtins.input", lambda _: pytest.fail("it asked"))
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setenv("CI", "1")
    assert machine._agreed()


def test_an_engine_that_refuses_is_not_called_missing_without_a_reason(monkeypatch) -> None:
    from builder.sandbox import engines

    rows = [("bubblewrap", "", "user namespaces are off; run X"), ("podman", "", "no socket"),
            ("docker", "", "you may not use its socket")]  # fmt: skip
    monkeypatch.setattr(engines, "lacking", lambda _: iter(rows))
    found = {check.name: check for check in machine_parts.checks()}
    assert found["bubblewrap"].required
    assert found["bubblewrap"].lacks == "user namespaces are off; run X"
    assert found["docker engine"].lacks == "you may not use its socket"


def test_a_gpu_is_looked_for_and_what_lacks_is_said(monkeypatch) -> None:
    from builder.sandbox import gpu

    def gpu_check() -> machine_parts.Check:
        return {check.name: check for check in machine_parts.checks()}["gpu"]

    monkeypatch.setattr(gpu, "nodes", lambda _: ["nvidia0"])
    assert "no /dev/nvidiactl and no /dev/nvidia-uvm" in gpu_check().lacks
    assert not gpu_check().required
    monkeypatch.setattr(gpu, "nodes", lambda _: [])
    assert (gpu_check().found, gpu_check().lacks) == ("", ""), "most machines have none"
    monkeypatch.setattr(gpu, "find", lambda: gpu.Gpus({"/dev/nvidia0": gpu.Path("x")}, {}, "580.1"))
    assert gpu_check().found == "1 with the driver 580.1"


def test_bubblewrap_is_not_required_where_another_engine_runs(monkeypatch) -> None:
    from builder.sandbox import engines

    rows = [("bubblewrap", "", "off"), ("podman", "", "no socket"), ("docker", "20.10", "")]
    monkeypatch.setattr(engines, "lacking", lambda _: iter(rows))
    assert not {c.name: c for c in machine_parts.checks()}["bubblewrap"].required


def record(pid: int, started: str, program: str) -> None:
    text = json.dumps({"pid": pid, "started": started, "program": program})
    (engine.folder() / "dockerd.json").write_text(text)


def test_only_the_very_process_that_was_started_is_ended() -> None:
    program = subprocess.run(["which", "sleep"], capture_output=True, check=True).stdout.decode()
    with subprocess.Popen(["sleep", "60"]) as other:
        record(other.pid, "1", program.strip())  # its number was another's when it was written
        assert not engine.stop()
        assert other.poll() is None
        record(other.pid, engine._started(other.pid), "/usr/sbin/dockerd")
        assert not engine.stop()
        assert other.poll() is None
        record(other.pid, engine._started(other.pid), program.strip())
        assert engine.stop()
        assert other.poll() == -15, "it was not waited for"
    assert not engine.stop()


def test_an_engine_that_does_not_end_is_named_and_can_be_told_again(monkeypatch) -> None:
    monkeypatch.setattr(engine, "_PATIENCE", 0.05)
    deaf = "import signal as s; s.signal(15, s.SIG_IGN); print(1, flush=True); s.pause()"
    with subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        record(other.pid, engine._started(other.pid), sys.executable)
        for _ in range(2):
            with pytest.raises(BuilderError, match=f"process {other.pid}, was told to end"):
                engine.stop()
        other.kill()


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"pid": "x"}', '{"pid": 4194305}'])
def test_a_record_that_names_no_process_ends_none(text: str) -> None:
    (engine.folder() / "dockerd.json").write_text(text)
    assert not engine.stop()


def test_a_folder_of_others_is_not_believed(home: Path, tmp_path: Path) -> None:
    engine.folder().chmod(0o777)
    with pytest.raises(BuilderError, match="not this user's alone"):
        engine.stop()
    (home / "engine").rmdir()
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (home / "engine").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BuilderError, match="not this user's alone"):
        engine.stop()
