"""The tasks that check a compiled package and hand it to a cluster."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from invoke import Context, task

from .printing import JSON_HELP, errors, facts, say


@task(help={"file": "a compiled package, also one that others compiled", "json": JSON_HELP})
def lint(_: Context, file: str, json: bool = False) -> None:
    """Check a compiled package for what would fail, or silently go wrong, on a cluster."""
    with errors():
        from pipeline.lint import lint as check

        found = check(Path(file))
        rows = [("where", "rule", "what")] + [(f.where, f.rule, f.message) for f in found]
        if found or json:
            facts({"findings": [asdict(f) for f in found]}, rows, as_json=json)
        say(f"{file}: {len(found)} faults" if found else f"{file}: no fault found")
        raise SystemExit(bool(found))
