"""`invoke run` of a package of somebody else, and where a run is written."""

from __future__ import annotations

import os
import pty
import subprocess
from pathlib import Path

import pytest

from builder.store import Store
from tests.cli.conftest import Task, refused
from tests.task import TASK, environment

ROOT = Path(__file__).resolve().parents[2]
OTHER = """\
pipelineInfo: {name: other}
schemaVersion: 2.1.0
sdkVersion: kfp-2.17.0
components: {c: {executorLabel: e}}
deploymentSpec: {executors: {e: {container: {image: "localhost/no/such@sha256:%s", command: [x]}}}}
root: {dag: {tasks: {c: {componentRef: {name: c}, taskInfo: {name: c}}}}}
""" % ("0" * 64)


@pytest.fixture
def other(tmp_path: Path) -> Path:
    path = tmp_path / "other.yaml"
    path.write_text(OTHER)
    return path


def test_a_package_of_somebody_else_is_refused_with_what_it_would_get(
    invoke: Task, other: Path
) -> None:
    done = invoke("run", "--file", str(other))
    refused(done, "did not compile", "localhost/no/such@sha256:", "--trust")
    assert "neither in the store" not in done.stderr
    assert not (other.parent / "runs").exists()


def test_with_trust_it_goes_on(invoke: Task, other: Path) -> None:
    refused(invoke("run", "--file", str(other), "--trust"), "neither in the store")


@pytest.mark.parametrize(("reply", "words"), [(b"n\n", "was not run"), (b"y\n", "neither in the")])
def test_at_a_terminal_the_user_is_asked(
    other: Path, tmp_path: Path, reply: bytes, words: str
) -> None:
    mine, theirs = pty.openpty()
    env = environment()
    env.pop("CI", None)
    process = subprocess.Popen(
        [*TASK, "run", "--file", str(other)],
        stdin=theirs, stdout=theirs, stderr=theirs, cwd=tmp_path, env=env,
    )  # fmt: skip
    os.close(theirs)
    said = b""
    try:
        while b"[y/N]" not in said:
            said += os.read(mine, 4096)
        os.write(mine, reply)
        while True:
            said += os.read(mine, 4096)
    except OSError:  # the other side is closed
        pass
    finally:
        os.close(mine)
    assert process.wait(timeout=60) == 1
    shown = " ".join(said.decode().split())
    assert "it would get" in shown or "a run of it would get" in shown
    assert words in shown


def test_in_ci_nobody_is_asked_even_at_a_terminal(other: Path, tmp_path: Path) -> None:
    mine, theirs = pty.openpty()
    done = subprocess.run(
        [*TASK, "run", "--file", str(other)],
        stdin=theirs, capture_output=True, text=True, cwd=tmp_path, timeout=60, check=False,
        env=environment(CI="1"),
    )  # fmt: skip
    os.close(mine)
    os.close(theirs)
    refused(done, "--trust")


@pytest.mark.parametrize("how", ["option", "variable"])
def test_a_run_is_written_where_the_user_says(
    invoke: Task, other: Path, tmp_path: Path, how: str
) -> None:
    place = tmp_path / "elsewhere"
    words = ["--runs", str(place)] if how == "option" else []
    variables = {"PLATELINE_RUNS": str(place)} if how == "variable" else {}
    invoke("run", "--file", str(other), "--trust", *words, **variables)
    assert (place / "workspace").is_dir()
    assert place.stat().st_mode & 0o777 == 0o700
    assert not (tmp_path / "runs").exists()


def test_a_place_that_cannot_be_written_is_named_with_the_way_out(
    invoke: Task, other: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    done = invoke("run", "--file", str(other), "--trust", "--runs", str(tmp_path / "file" / "runs"))
    refused(done, str(tmp_path / "file" / "runs"))
    assert "make room" not in done.stderr


def test_the_store_is_untouched_by_a_refusal(invoke: Task, other: Path, tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    before = sorted(store.root.rglob("*"))
    invoke("run", "--file", str(other), PLATELINE_STORE=str(store.root))
    now = {path for path in store.root.rglob("*") if path.name != "lock"}
    assert now == {path for path in before if path.name != "lock"}
