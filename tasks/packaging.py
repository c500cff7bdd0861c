"""The tasks about the packaged model: where it comes from, and putting it to work."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from invoke import Context, task

from .printing import JSON_HELP, ROOT, errors, facts


@task(
    help={
        "image": "the packaged image, HOST/REPOSITORY@sha256:…; localhost/… is the store",
        "package": "the compiled package, where it is neither released nor in the store",
        "insecure": "speak plain HTTP to a registry that is not on this machine",
        "json": JSON_HELP,
    }
)
def trace(
    _: Context, image: str, package: str = "", insecure: bool = False, json: bool = False
) -> None:
    """Walk back from a packaged image to its model, package, stage images, locks and commit."""
    with errors():
        from builder.reference import Reference
        from builder.store import Store
        from pipeline.trace import Places
        from pipeline.trace import trace as walk

        with Places(Store.open(), insecure=insecure) as places:
            file = Path(package) if package else None
            found = walk(Reference.parse(image), places, ROOT, file)
        facts(asdict(found), _walked(found), as_json=json)


def _walked(found: Any) -> list[tuple[str, str]]:
    rows = [("what", "name"), ("image", found.image), ("base", found.base)]
    rows.append(("artifact", found.artifact))
    rows += [
        (f"model {m.get('name', '')}", f"{m.get('sha256', '')} {m.get('variant', '')}".strip())
        for m in found.models
    ]
    rows.append(("package", found.package))
    rows += [
        (f"stage {name}", f"{entry['digest']} key {entry['key'][:12]}")
        for name, entry in found.stages.items()
    ]
    rows += [(f"lock {path}", digest) for path, digest in found.locks.items()]
    rows.append(("commit", found.commit + (" (dirty)" if found.dirty else "")))
    return [(what, name) for what, name in rows if name] + [("missing", m) for m in found.missing]
