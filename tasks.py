"""What a person types: each task parses, delegates and prints. `invoke --list` shows them all."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from invoke import Context, task

from builder.errors import BuilderError

ROOT = Path(__file__).resolve().parent


@contextmanager
def _errors() -> Iterator[None]:
    """Turn an error into one message and exit code 1, Ctrl-C into 130."""
    try:
        yield
    except BuilderError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("interrupted; nothing half-made was kept", file=sys.stderr)
        raise SystemExit(130) from None


def _progress() -> Callable[[Any], None]:
    def show(event: Any) -> None:
        if event.state == "done" and not event.what.startswith("sha256:"):
            print(f"  {event.target}: {event.what} ({event.seconds:.1f} s)", file=sys.stderr)

    return show


def _facts(facts: Mapping[str, Any], rows: list[tuple[str, ...]], as_json: bool) -> None:
    """Print facts as one JSON object, or as a table whose first row is its head."""
    if as_json:
        print(json.dumps(facts))
        return
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())


def _build(names: str, jobs: int) -> tuple[Any, Any]:
    from builder.build import build
    from builder.store import Store
    from builder.workspace import Workspace

    store = Store.open()
    chosen = [name for name in names.split(",") if name]
    built = build(Workspace.load(ROOT), store, chosen, jobs=jobs, progress=_progress())
    return store, built


JSON_HELP = "print the facts as one JSON object on stdout"
JOBS_HELP = "how many layers to make at the same time"


@task(help={"targets": "names separated by commas (all)", "jobs": JOBS_HELP, "json": JSON_HELP})
def build_images(_: Context, targets: str = "", jobs: int = 2, json: bool = False) -> None:
    """Build the images into the local store; what has not changed is not made again."""
    with _errors():
        started = time.monotonic()
        _, built = _build(targets, jobs)
        rows = [("image", "digest", "size", "")]
        rows += [
            (b.name, b.image.digest, f"{b.image.size / 1e6:.1f} MB", "cached" if b.cached else "")
            for b in built.values()
        ]
        facts = {
            name: {
                "digest": b.image.digest, "key": b.key, "size": b.image.size, "cached": b.cached,
            }
            for name, b in built.items()
        }  # fmt: skip
        _facts(facts, rows, json)
        print(f"{time.monotonic() - started:.2f} s", file=sys.stderr)


@task(
    help={
        "registry": "HOST/PREFIX, for example localhost:5000/plateline",
        "targets": "names separated by commas (all)",
        "insecure": "speak plain HTTP to a registry that is not on this machine",
        "jobs": JOBS_HELP,
        "json": JSON_HELP,
    }
)
def push_images(
    _: Context,
    registry: str,
    targets: str = "",
    insecure: bool = False,
    jobs: int = 4,
    json: bool = False,
) -> None:
    """Build the images and push what the registry lacks."""
    with _errors():
        from builder.push import push
        from builder.registry import Registry

        store, built = _build(targets, jobs)
        images = {name: (result.key, result.image) for name, result in built.items()}
        with Registry(registry.partition("/")[0], insecure=insecure) as client:
            pushed = push(store, images, registry.rstrip("/"), client, jobs=jobs)
        rows = [("image", "uploaded", "mounted", "")]
        rows += [
            (str(p.reference), f"{p.uploaded / 1e6:.3f} MB", str(p.mounted_blobs),
             "was there" if p.already else "")
            for p in pushed.values()
        ]  # fmt: skip
        facts = {
            name: {"reference": str(p.reference), "uploaded": p.uploaded, "already": p.already}
            for name, p in pushed.items()
        }
        _facts(facts, rows, json)


@task(help={"targets": "names separated by commas (all)", "upgrade": "take newer versions"})
def lock(_: Context, targets: str = "", upgrade: bool = False) -> None:
    """Resolve debian.in and requirements.in into the lock files, and print what changed."""
    with _errors():
        from builder.lock import lock as resolve
        from builder.workspace import Workspace

        names = [name for name in targets.split(",") if name]
        print("resolving with pip; this takes a minute or two", file=sys.stderr)
        changes = resolve(Workspace.load(ROOT), names, upgrade=upgrade)
        rows = [("target", "package", "old", "new")]
        rows += [(c.target, c.package, c.old or "-", c.new or "-") for c in changes]
        _facts({}, rows if changes else [("nothing changed",)], as_json=False)


@task(
    help={
        "stage": "a target that has a folder tests/",
        "pytest": "pytest's arguments, for example '-k name'",
        "engine": "auto, bubblewrap or docker",
    }
)
def test_stage(_: Context, stage: str, pytest: str = "", engine: str = "bubblewrap") -> None:
    """Run a stage's tests inside its image; what passed and has not changed is not run again."""
    with _errors():
        from builder.sandbox import choose
        from builder.stage_tests import run_tests
        from builder.store import Store
        from builder.workspace import Workspace

        store = Store.open()
        tested = run_tests(
            Workspace.load(ROOT), store, choose(engine, store), stage, pytest.split(), output=1
        )
        how = "cached" if tested.cached else "passed" if not tested.code else "failed"
        print(f"{stage}: {how} ({tested.seconds:.1f} s)", file=sys.stderr)
        raise SystemExit(tested.code)


@task(help={"slow": "run the tests marked slow as well", "pytest": "further pytest arguments"})
def test(_: Context, slow: bool = False, pytest: str = "") -> None:
    """Run the tests."""
    command = [sys.executable, "-m", "pytest", *([] if slow else ["-m", "not slow"])]
    raise SystemExit(subprocess.run([*command, *pytest.split()], cwd=ROOT, check=False).returncode)


@task
def lint(_: Context) -> None:
    """Run ruff and mypy."""
    for command in (["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]):
        done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, check=False)
        if done.returncode:
            raise SystemExit(done.returncode)
