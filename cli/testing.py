"""The tasks that test: the stages in their images, the floors, the linters."""

from __future__ import annotations

import json as encoder
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from cli import environment
from cli.command import command
from cli.images import named_registry, opened
from cli.output import (
    CHANGED_HELP,
    ENGINE_HELP,
    INSECURE_HELP,
    JSON_HELP,
    REGISTRY_HELP,
    ROOT,
    say,
)
from cli.progress import building
from cli.signing import SIGN_HELP, signing_key


@command(
    help={
        "stage": "a target that has a folder tests/, or all",
        "pytest": "pytest's arguments, for example '-k name'; or write them after --",
        "changed_since": CHANGED_HELP,
        "jobs": "how many files of a stage's tests run at a time, or how many stages of all, whose "
        "output is shown when they end (0: as many as cores)",
        "engine": ENGINE_HELP,
        "sign": f"say beside the image in the registry that its tests passed: {SIGN_HELP}",
        "registry": f"for --sign: {REGISTRY_HELP}",
        "insecure": INSECURE_HELP,
        "json": JSON_HELP,
    },
)
def test_stage(
    stage: str,
    pytest: str = "",
    changed_since: str = "",
    jobs: int = 0,
    engine: str = "auto",
    sign: str = "",
    registry: str = "",
    insecure: bool = False,
    json: bool = False,
    remainder: str = "",
) -> None:
    """Run a stage's tests inside its image; what passed and has not changed is not run again."""
    from builder.build.workspace import Workspace
    from builder.errors import BuilderError
    from builder.inspect.affected import changed_since as compare
    from builder.inspect.affected import with_changed_tests
    from builder.sandbox.engines import choose
    from builder.store import Store
    from builder.testing.stage_tests import Tested, run_at_once, run_tests, with_tests

    store, workspace = Store.open(), Workspace.load(ROOT)
    key = signing_key(sign) if sign else None  # the variable alone asks for no signature here
    if key and (pytest or remainder):
        raise BuilderError("only a pass of all tests is signed; leave pytest's arguments out")
    prefix = named_registry(registry) if key else ""
    tested = with_tests(workspace)
    names = tested if stage == "all" else [stage]
    if changed_since:
        touched = {n for n, differs in compare(workspace, store, changed_since).items() if differs}
        touched |= set(tested) if "testing" in touched else set()
        touched |= with_changed_tests(workspace, changed_since)
        names = [name for name in names if name in touched]
    found: dict[str, dict[str, object]] = {}
    passed = {}
    codes = []
    if not names:
        say(f"no stage with tests has changed since {changed_since}")
        if json:
            print("{}")
        return
    words = shlex.split(f"{pytest} {remainder}")

    def ended(name: str, one: Tested | BuilderError, printed: BinaryIO | None = None) -> None:
        if printed:
            stream = sys.stderr if json else sys.stdout
            shutil.copyfileobj(printed, stream.buffer)
            stream.flush()
        if isinstance(one, BuilderError):
            found[name] = {"result": "not tested", "reason": str(one), "code": 1}
            codes.append(1)
            say(f"{name}: not tested: {one}")
            return
        how = "cached" if one.cached else "passed" if not one.code else "failed"
        found[name] = {"result": how, "seconds": one.seconds, "code": one.code}
        codes.append(one.code)
        if not one.code:
            passed[name] = one
        say(f"{name}: {how} ({one.seconds:.1f} s)")

    sandbox = choose(engine, store)
    jobs = jobs or len(os.sched_getaffinity(0))
    if stage == "all":
        say(f"testing {', '.join(names)}, {jobs} at a time")
        run_at_once(workspace, store, sandbox, names, words, jobs, ended)
    else:
        for name in names:
            output = 2 if json else 1
            ended(name, run_tests(workspace, store, sandbox, name, words, jobs=jobs, output=output))
    if key and passed:
        _sign(workspace, store, passed, key, prefix, insecure=insecure)
    if json:
        print(encoder.dumps(found))
    raise SystemExit(max(codes, default=0))


def _sign(
    workspace: Any,
    store: Any,
    passed: Mapping[str, Any],
    key: Any,
    prefix: str,
    *,
    insecure: bool,
) -> None:
    """Say in the registry that the tests of the images there passed; raises BuilderError."""
    from builder.build.make import build
    from builder.errors import BuilderError
    from builder.inspect.provenance import sign_tests

    built = build(workspace, store, list(passed))
    with opened(prefix, insecure=insecure) as (client, path):
        for name, tested in passed.items():
            image = built[name].image.manifest
            if not client.head_manifest(f"{path}/{name}", image.digest):
                raise BuilderError(
                    f"{prefix}/{name} has no {image.digest}, whose tests passed; run "
                    f"`invoke push-images --targets {name}` first"
                )
            sign_tests(client, f"{path}/{name}", image, key, tested)
    say(f"signed with {key.public} that the tests passed: {', '.join(passed)}")


@command(
    positional=["stage"],
    help={
        "stage": "a target that has a folder tests/",
        "pytest": "pytest's arguments, for example '-k name'; or write them after --",
        "run": "after tests that passed, run the stage's step of the last run again",
        "engine": ENGINE_HELP,
    },
)
def watch(
    stage: str, pytest: str = "", run: bool = False, engine: str = "auto", remainder: str = ""
) -> None:
    """Run a stage's tests in its image again after each save, until Ctrl-C.

    The image is built again first; a save ends what still runs of the one before. What passed
    already as it is now is not run. With --run the step of the last run of that stage follows, in
    the new image and with the inputs that it had; a claim that it may write it writes.
    """
    import watchfiles  # only this task waits for files

    from builder.errors import BuilderError
    from builder.sandbox.engines import choose
    from builder.store import Store
    from builder.testing.ahead import Ahead
    from builder.testing.stage_tests import Tested
    from builder.testing.watch import folders
    from builder.testing.watch import watch as run_again

    def ended(found: Tested | BuilderError) -> None:
        if isinstance(found, BuilderError):
            say(f"{stage}: not tested: {found}")
        else:
            how = "cached" if found.cached else "failed" if found.code else "passed"
            say(f"{stage}: {how} ({found.seconds:.1f} s); waiting for a save, Ctrl-C ends it")

    store, places = Store.open(), folders(ROOT, stage)
    # What comes within 20 ms of a save is part of it, as when an editor renames.
    saves = watchfiles.watch(*places, step=20, raise_interrupt=True)
    then = _step_again(stage, store) if run else None
    sandbox = choose(engine, store)
    ahead = Ahead(sandbox, store) if sandbox.name == "bubblewrap" else None
    try:
        run_again(
            ROOT, store, ahead or sandbox, stage, shlex.split(f"{pytest} {remainder}"), saves,
            ended, 1, then,
        )  # fmt: skip
    finally:
        if ahead:
            ahead.close()


def _step_again(stage: str, store: Any) -> Any:
    """Return what runs the step of the last run of a stage again; PipelineError without one."""
    from builder.build.make import build
    from builder.errors import BuilderError
    from cli.pipeline import runs_folder
    from pipeline.errors import PipelineError
    from pipeline.run import again

    kept = again.last(runs_folder("").absolute(), stage)
    say(f"{stage}: the step is {kept.task.name} of {kept.run}")

    def then(workspace: Any, sandbox: Any) -> Any:
        try:
            image = build(workspace, store, [stage])[stage].image
            with store.in_use():
                step, home = again.run(kept, image, store, sandbox)
        except (BuilderError, PipelineError, OSError) as error:
            why = str(error)
            return lambda: say(f"{stage}: the step was not run: {why}")

        def tell() -> None:
            print((home / "log.txt").read_text(encoding="utf-8", errors="replace"), end="")
            print(end="", flush=True)
            said = step.error or f"{step.state} ({step.seconds:.1f} s); outputs in {home / 'out'}"
            say(f"{stage}: {said}; waiting for a save")

        return tell

    return then


@command(
    help={
        "stage": "a target with a Python",
        "engine": ENGINE_HELP,
        "network": "let it use the network",
        "timeout": "seconds after which it is stopped (0: never)",
    },
)
def shell(stage: str, engine: str = "auto", network: bool = False, timeout: float = 0) -> None:
    """Open a Python prompt in a stage's image, or run what comes in by a pipe."""
    from builder.build.make import build
    from builder.build.workspace import Workspace
    from builder.sandbox.engines import choose
    from builder.sandbox.process import Process
    from builder.store import Store

    store = Store.open()
    image = build(Workspace.load(ROOT), store, [stage], progress=building())[stage].image
    process = Process(
        image=image, command=("python3",), env={"TERM": os.environ.get("TERM", "dumb")},
        network=network, timeout=timeout or None,
    )  # fmt: skip
    with store.in_use():
        ended = choose(engine, store).attach(process)
    if ended.timed_out:
        say(str(ended))
    raise SystemExit(ended.code)


@command(
    help={
        "slow": "run the tests marked slow as well",
        "jobs": "how many files of tests run at the same time (0: two more than there are cores, "
        "for tests wait for engines and disks)",
        "pytest": "further pytest arguments",
    }
)
def test(slow: bool = False, jobs: int = 0, pytest: str = "") -> None:
    """Run the tests."""
    environment.development_tools()
    jobs = jobs or len(os.sched_getaffinity(0)) + 2
    command = [sys.executable, "-m", "pytest", *([] if slow else ["-m", "not slow"])]
    # A file's tests stay together, for they share what was made for the first of them. The order of
    # the files is that of tests/conftest.py.
    beside = ["-n", str(jobs), "--dist", "loadfile", "--no-loadscope-reorder"]
    command += beside if jobs > 1 else []
    command += shlex.split(pytest)
    raise SystemExit(subprocess.run(command, cwd=ROOT, check=False).returncode)


@command()
def lint_code() -> None:
    """Run ruff, mypy, and the check that imports go down the floors only."""
    environment.development_tools()
    for words in ("ruff check .", "ruff format --check .", "mypy", "lint-imports"):
        program, *arguments = words.split()
        command = [str(Path(sys.executable).with_name(program)), *arguments]
        done = subprocess.run(command, cwd=ROOT, check=False)
        if done.returncode:
            raise SystemExit(done.returncode)


@command(
    help={
        "compare": "a revision of git to compare with, for example main~5",
        "rounds": "how often each task runs, here and there in turns",
        "instructions": "count instructions by valgrind instead of processor time; takes minutes",
        "output": "the file to write",
    }
)
def bench(
    compare: str, rounds: int = 7, instructions: bool = False, output: str = "dist/bench.json"
) -> None:
    """Show which tasks got slower since a revision; writes medians and spread into one file."""
    command = [sys.executable, "-m", "benchmarks.compare", "--compare", compare]
    command += ["--rounds", str(rounds), "--output", output]
    command += ["--instructions"] if instructions else []
    raise SystemExit(subprocess.run(command, cwd=ROOT, check=False).returncode)
