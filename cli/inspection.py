"""The tasks that answer questions about images and change nothing."""

from __future__ import annotations

import json as encoder
import sys
import time
from dataclasses import asdict
from pathlib import Path

from cli.command import command
from cli.output import JOBS_HELP, JSON_HELP, PLATFORM_HELP, ROOT, TARGETS_HELP, facts, say, table

ONE_HELP = "linux/amd64 or linux/arm64 (linux/amd64)"


@command(
    help={
        "format": "text, mermaid or svg",
        "changed_since": "mark the targets that a git range touches, from this revision to now",
        "json": JSON_HELP,
    }
)
def graph(format: str = "text", changed_since: str = "", json: bool = False) -> None:  # noqa: A002
    """Print the targets and what stands on each of them."""
    from builder.build.workspace import Workspace
    from builder.errors import BuilderError
    from builder.inspect import graph as drawing
    from builder.inspect.affected import changed_since as compare
    from builder.store import Store

    draw = {"text": drawing.text, "mermaid": drawing.mermaid, "svg": drawing.svg}
    if format not in draw:
        raise BuilderError(f"there is no format {format!r}; there are {', '.join(draw)}")
    workspace = Workspace.load(ROOT)
    needs = drawing.needs(workspace)
    for name, error in drawing.unread(workspace).items():
        say(f"what {name} stands on is not known: {error}")
    marked = compare(workspace, Store.open(), changed_since) if changed_since else {}
    touched = [name for name, differs in marked.items() if differs]
    if json:
        found = {"needs": {name: sorted(below) for name, below in needs.items()},
                 "dependents": drawing.dependents(needs), "changed": touched}  # fmt: skip
        print(encoder.dumps(found))
    else:
        print(draw[format](needs, touched), end="")


@command(help={"stage": "a target", "platform": ONE_HELP, "json": JSON_HELP})
def explain(stage: str, platform: str = "", json: bool = False) -> None:
    """Say why a target would or would not be rebuilt, against its last build in this checkout."""
    from builder.build.workspace import Workspace
    from builder.inspect.explain import explain as compare
    from builder.platform import parse_one
    from builder.store import Store

    found = compare(Workspace.load(ROOT), Store.open(), stage, parse_one(platform))
    if json:
        print(encoder.dumps({"sentence": found.sentence(), **asdict(found)}))
        return
    print(found.sentence())
    if found.changes:
        rows = [("what", "name", "was", "is", "where")]
        rows += [(c.kind, c.name, c.old or "-", c.new or "-", c.where) for c in found.changes]
        table(rows)
    for layer in found.making:
        print(f"would make the layer: {layer}")


@command(
    positional=["targets"],
    help={
        "targets": TARGETS_HELP,
        "rounds": "how many times to build again",
        "platform": PLATFORM_HELP,
        "jobs": JOBS_HELP,
        "json": JSON_HELP,
    },
)
def verify_images(
    targets: str = "", rounds: int = 1, platform: str = "", jobs: int = 2, json: bool = False
) -> None:
    """Build again from nothing, all surroundings changed, and compare the digests."""
    from builder.build.workspace import Workspace
    from builder.inspect.verify import verify
    from builder.platform import parse
    from builder.store import Store

    started = time.monotonic()
    workspace = Workspace.load(ROOT)
    names = [name for name in targets.split(",") if name] or list(workspace.targets)
    found = []
    for each in parse(platform):
        found += verify(
            workspace, Store.open(), names, rounds=rounds, jobs=jobs, platform=each, progress=say
        )
    if json:
        print(encoder.dumps({"images": names, "rounds": rounds,
                             "differences": [asdict(d) for d in found]}))  # fmt: skip
    for different in found:
        print(different.sentence(), file=sys.stderr)
    seconds = time.monotonic() - started
    times = "once" if rounds == 1 else f"{rounds} times"
    how = f"{len(found)} digests differ" if found else "all digests match"
    say(f"rebuilt {len(names)} images {times}: {how} ({seconds:.1f} s)")
    raise SystemExit(1 if found else 0)


@command(
    help={
        "stage": "a target",
        "format": "cyclonedx (1.6) or spdx (2.3), both JSON",
        "platform": ONE_HELP,
        "output": "the file to write (standard output)",
    }
)
def sbom(
    stage: str,
    format: str = "cyclonedx",  # noqa: A002
    platform: str = "",
    output: str = "",
) -> None:
    """Print what is in an image and under which licences, as a bill of materials."""
    from builder.build.make import plans
    from builder.build.workspace import Workspace
    from builder.inspect.inventory import sbom as bill
    from builder.platform import parse_one
    from builder.store import Store

    workspace, store = Workspace.load(ROOT), Store.open()
    plan = plans(workspace, store, [stage], parse_one(platform))[stage]
    data = bill(workspace, store, plan, format)
    if output:
        _write(Path(output), data)
    else:
        print(data.decode())


@command(
    positional=["targets"],
    help={
        "targets": TARGETS_HELP,
        "unknown": "only what says no licence in a form that leaves no doubt",
        "platform": ONE_HELP,
        "json": JSON_HELP,
    },
)
def licenses(
    targets: str = "", unknown: bool = False, platform: str = "", json: bool = False
) -> None:
    """Print the licence of each package in the images, as the packages themselves say it."""
    from builder.build.make import plans
    from builder.build.workspace import Workspace
    from builder.inspect.bill.part import UNKNOWN
    from builder.inspect.inventory import licensed
    from builder.platform import parse_one
    from builder.store import Store

    workspace, store = Workspace.load(ROOT), Store.open()
    names = [name for name in targets.split(",") if name]
    made = plans(workspace, store, names, parse_one(platform))
    found: dict[tuple[str, str, str, str], list[str]] = {}
    for name in names or made:
        for part in licensed(workspace, store, made[name]):
            if part.licence and (part.licence == UNKNOWN or not unknown):
                key = (part.kind, part.name, part.version, part.licence)
                found.setdefault(key, []).append(name)
    listed = [
        {"kind": kind, "name": name, "version": version, "licence": licence, "targets": of}
        for (kind, name, version, licence), of in sorted(found.items())
    ]
    rows = [("package", "version", "licence", "targets")]
    rows += [(key[1], key[2], key[3], " ".join(of)) for key, of in sorted(found.items())]
    facts({"packages": listed}, rows, as_json=json)


@command(
    positional=["targets"],
    help={
        "targets": TARGETS_HELP,
        "output": "the file to write",
        "jobs": JOBS_HELP,
    },
)
def bake(targets: str = "", output: str = "dist/docker-bake.json", jobs: int = 2) -> None:
    """Write a bake file, so that BuildKit builds the same recipes: docker buildx bake -f FILE."""
    from builder.build.workspace import Workspace
    from builder.inspect.bake import bake as prepare
    from builder.store import Store

    names = [name for name in targets.split(",") if name]
    _write(Path(output), prepare(Workspace.load(ROOT), Store.open(), names, jobs))
    say(f"wrote {output}; in the repository's root: docker buildx bake -f {output}")


def _write(path: Path, data: bytes) -> None:
    from builder.errors import BuilderError

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise BuilderError(f"writing {path} failed ({error.strerror})") from None
