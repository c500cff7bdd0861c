"""The tasks that look after the store: how large it is, and what may go."""

from __future__ import annotations

import sys
import time

from cli.command import command
from cli.images import named_registry, opened
from cli.output import INSECURE_HELP, JSON_HELP, REGISTRY_HELP, ROOT, facts, say


@command(help={"json": JSON_HELP})
def store(json: bool = False) -> None:
    """Show what the store and the caches beside it hold, and the names that are kept for good."""
    from builder.store import Store
    from builder.store.collection import survey, usage
    from builder.store.roots import kept

    opened = Store.open()
    held, names = usage(survey(opened, time.time())), kept(opened)
    count, size = (sum(numbers) for numbers in zip(*held.values(), strict=True)) if held else (0, 0)
    rows = [("what", "number", "size")]
    rows += [(kind, str(n), _size(s)) for kind, (n, s) in [*held.items(), ("all", (count, size))]]
    rows += [(f"kept as {name}", "", entry.digest) for name, entry in names.items()]
    found = {
        "root": str(opened.root), "bytes": size,
        "kinds": {kind: {"number": n, "bytes": s} for kind, (n, s) in held.items()},
        "kept": {name: entry.digest for name, entry in names.items()},
    }  # fmt: skip
    say(str(opened.root))
    facts(found, rows, as_json=json)


@command(
    help={
        "keep_days": "keep what was made or used in so many days",
        "forget": "let go of a name that is kept for good, as `invoke store` shows them",
        "dry_run": "only say what would go",
        "json": JSON_HELP,
    }
)
def gc(
    keep_days: float = 30.0, forget: str = "", dry_run: bool = False, json: bool = False
) -> None:
    """Remove what no kept image, release or recent use reaches from the store and its caches."""
    from builder.store import Store
    from builder.store.collection import collect, usage
    from builder.store.roots import forget as let_go

    opened = Store.open()
    if forget:
        let_go(opened, forget)
    done = collect(opened, keep_days=float(keep_days), now=time.time(), dry_run=dry_run)
    gone, left = usage(done.gone), usage(done.left)
    rows = [("what", "would go" if dry_run else "gone", "", "left", "")]
    for kind in {**gone, **left}:
        one, other = gone.get(kind, (0, 0)), left.get(kind, (0, 0))
        rows.append((kind, str(one[0]), _size(one[1]), str(other[0]), _size(other[1])))
    found = {
        name: {kind: {"number": n, "bytes": s} for kind, (n, s) in used.items()}
        for name, used in (("gone", gone), ("left", left))
    }
    facts({**found, "dry_run": dry_run}, rows, as_json=json)


@command(
    help={
        "registry": REGISTRY_HELP,
        "delete": "delete it, once you agreed; without this, it is only listed",
        "yes": "agree beforehand",
        "insecure": INSECURE_HELP,
        "json": JSON_HELP,
    }
)
def gc_registry(
    registry: str = "",
    delete: bool = False,
    yes: bool = False,
    insecure: bool = False,
    json: bool = False,
) -> None:
    """List the images of a registry's shared cache that no release reaches; --delete removes them.

    What this checkout would build now is kept. A package that was compiled and submitted without
    a release loses its images.
    """
    from builder.build.index import index_key
    from builder.build.make import plannable
    from builder.build.plan import in_zstd
    from builder.build.workspace import Workspace
    from builder.platform import KNOWN
    from builder.store import Store
    from pipeline.errors import PipelineError
    from pipeline.release import retention

    workspace, store = Workspace.load(ROOT), Store.open()
    names = list(workspace.every)
    plans = {each: plannable(workspace, store, each, names) for each in KNOWN.values()}
    zstd = {p: {n: in_zstd(plan) for n, plan in named.items()} for p, named in plans.items()}
    keys = []
    for by in (plans, zstd):
        keys += [plan.key for named in by.values() for plan in named.values()]
        for name in names:
            of_all = {platform: named[name].key for platform, named in by.items() if name in named}
            keys.append(index_key(of_all))
    with opened(named_registry(registry), insecure=insecure) as (client, path):
        found = retention.stale(client, path, names, keys)
        rows = [("repository", "digest", "tags", "")]
        rows += [
            (each.repository, each.digest, str(len(each.tags)),
             "deleted" if delete else "would be deleted")
            for each in found
        ]  # fmt: skip
        if delete and found and not yes:
            if not sys.stdin.isatty():
                raise PipelineError(
                    f"{len(found)} images would be deleted from {client.host}, and nobody is there "
                    "to agree; look at the list without --delete, and give --yes as well"
                )
            question = f"delete {len(found)} images from {client.host}/{path}? [y/N] "
            if input(question).strip().lower() not in ("y", "yes"):
                raise PipelineError("nothing was deleted")
        for each in found if delete else ():
            retention.delete(client, each)
    listed = [
        {"repository": each.repository, "digest": each.digest, "tags": each.tags} for each in found
    ]
    facts({"stale": listed, "deleted": delete}, rows if found else [("nothing",)], as_json=json)


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
