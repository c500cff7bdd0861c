"""The tasks that test: the stages in their images, the floors, the linters."""

from __future__ import annotations

import json as encoder
import subprocess
import sys

from invoke import Context, task

from .printing import JSON_HELP, ROOT, errors, say


@task(
    help={
        "stage": "a target that has a folder tests/",
        "pytest": "pytest's arguments, for example '-k name'",
        "engine": "auto, bubblewrap or docker",
        "json": JSON_HELP,
    }
)
def test_stage(
    _: Context, stage: str, pytest: str = "", engine: str = "bubblewrap", json: bool = False
) -> None:
    """Run a stage's tests inside its image; what passed and has not changed is not run again."""
    with errors():
        from builder.sandbox import choose
        from builder.stage_tests import run_tests
        from builder.store import Store
        from builder.workspace import Workspace

        store = Store.open()
        tested = run_tests(
            Workspace.load(ROOT), store, choose(engine, store), stage, pytest.split(),
            output=2 if json else 1,
        )  # fmt: skip
        how = "cached" if tested.cached else "passed" if not tested.code else "failed"
        if json:
            print(encoder.dumps({"stage": stage, "result": how, "seconds": tested.seconds}))
        say(f"{stage}: {how} ({tested.seconds:.1f} s)")
        raise SystemExit(tested.code)


@task(help={"slow": "run the tests marked slow as well", "pytest": "further pytest arguments"})
def test(_: Context, slow: bool = False, pytest: str = "") -> None:
    """Run the tests."""
    command = [sys.executable, "-m", "pytest", *([] if slow else ["-m", "not slow"])]
    raise SystemExit(subprocess.run([*command, *pytest.split()], cwd=ROOT, check=False).returncode)


@task
def lint_code(_: Context) -> None:
    """Run ruff and mypy."""
    for command in (["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]):
        done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, check=False)
        if done.returncode:
            raise SystemExit(done.returncode)
