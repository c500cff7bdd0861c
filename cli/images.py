"""The tasks about images: build, push, lock."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from cli import inputs
from cli.command import command
from cli.output import (
    CHANGED_HELP,
    COMPRESSION_HELP,
    INSECURE_HELP,
    JOBS_HELP,
    JSON_HELP,
    PLATFORM_HELP,
    ROOT,
    TARGETS_HELP,
    facts,
    say,
    told,
)
from cli.progress import building, pushing
from cli.signing import SIGN_HELP, signing_key


def build(
    names: str,
    jobs: int,
    changed_since: str = "",
    cache: Any = None,
    *,
    need_layers: bool = True,
    trusted: bool = False,
    platform: Any = None,
    compression: str = "gzip",
) -> tuple[Any, Any, Any]:
    """Build the targets `names` (separated by commas; all without one) into the store.

    Returns the workspace, the store and what the builder's `build` returns, which `cache` (a
    RemoteCache), `need_layers`, `trusted`, `platform` (a Platform) and `compression` are for.
    With `changed_since` only those are built that a git range touches, from that revision to now.
    """
    from builder.build.make import build as build_targets
    from builder.build.workspace import Workspace
    from builder.platform import NATIVE
    from builder.store import Store

    store = Store.open()
    workspace = Workspace.load(ROOT)
    chosen = [name for name in names.split(",") if name]
    if changed_since:
        from builder.inspect.affected import changed_since as compare  # subprocess costs time

        touched = compare(workspace, store, changed_since)
        chosen = [n for n, differs in touched.items() if differs and n in (chosen or touched)]
        if not chosen:
            say(f"no image has changed since {changed_since}")
            return workspace, store, {}
    built = build_targets(
        workspace, store, chosen, jobs=jobs, progress=building(), cache=cache,
        need_layers=need_layers, trusted=trusted, platform=platform or NATIVE,
        compression=compression,
    )  # fmt: skip
    return workspace, store, built


def named_registry(registry: str) -> str:
    """Return HOST/PREFIX as it was given or as $PLATELINE_REGISTRY has it; raises BuilderError."""
    from builder.errors import BuilderError

    registry = (registry or os.environ.get("PLATELINE_REGISTRY", "")).rstrip("/")
    if not registry:
        raise BuilderError("no registry was named; give --registry HOST/PREFIX")
    return registry


@contextmanager
def opened(prefix: str, *, insecure: bool = False) -> Iterator[tuple[Any, str]]:
    """Yield the Registry of HOST/PREFIX, and PREFIX; what is waited for is printed."""
    from builder.registry.client import Registry

    host, _, path = prefix.rstrip("/").partition("/")
    with Registry(host, insecure=insecure, notice=say) as client:
        yield client, path


@contextmanager
def in_registry(prefix: str, *, insecure: bool = False) -> Iterator[Any]:
    """Yield the RemoteCache of the images under HOST/PREFIX."""
    from builder.registry.cache import RegistryCache, sample_share
    from builder.signing import named
    from builder.store import Store

    store = Store.open()
    with opened(prefix, insecure=insecure) as (client, path):
        signed: dict[str, Any] = {}
        if named.files(ROOT):
            from builder.signing.keys import trusted  # cryptography costs time
            from builder.signing.results import result_signer

            signed = {"signer": result_signer(client, trusted(ROOT), store), "only_signed": True}
        yield RegistryCache(store, client, path, share=sample_share(), note=say, **signed)


def source(built: Any) -> str:
    """Return in words where an image came from, and who signed it there."""
    if built.source:
        by = f"signed by {built.signer}" if built.signer else "not signed by a trusted key"
        return f"cache {built.source}, {by}"
    return "local store" if built.cached else "made now"


@command(
    positional=["targets"],
    help={
        "targets": TARGETS_HELP,
        "changed_since": CHANGED_HELP,
        "cache": "HOST/PREFIX of a registry whose images are taken where they are the same",
        "platform": PLATFORM_HELP,
        "compression": COMPRESSION_HELP,
        "jobs": JOBS_HELP,
        "json": JSON_HELP,
    },
)
def build_images(
    targets: str = "",
    changed_since: str = "",
    cache: str = "",
    platform: str = "",
    compression: str = "gzip",
    jobs: int = 2,
    json: bool = False,
) -> None:
    """Build the images into the local store; what has not changed is not made again."""
    from builder.platform import parse

    started = time.monotonic()
    platforms = parse(platform)
    with in_registry(cache) if cache else nullcontext() as results:
        if len(platforms) > 1:
            _, _, indexed = build_indexed(
                targets, platforms, jobs, changed_since, results, compression=compression
            )
            _show_indexed(indexed, as_json=json)
            say(f"{time.monotonic() - started:.2f} s")
            return
        workspace, store, built = build(
            targets, jobs, changed_since, results, platform=platforms[0], compression=compression
        )
    rows = [("image", "digest", "size", "from")]
    rows += [
        (b.name, b.image.digest, f"{b.image.size / 1e6:.1f} MB", source(b)) for b in built.values()
    ]
    found = {
        name: {
            "digest": b.image.digest, "key": b.key, "size": b.image.size, "cached": b.cached,
            "source": b.source, "signer": b.signer,
        }
        for name, b in built.items()
    }  # fmt: skip
    text = told(found, rows, as_json=json)
    print(text)
    say(f"{time.monotonic() - started:.2f} s")
    if not cache and not changed_since and all(b.cached for b in built.values()):
        inputs.keep(text, workspace, store)


def build_indexed(
    names: str,
    platforms: Sequence[Any],
    jobs: int,
    changed_since: str = "",
    cache: Any = None,
    **more: Any,
) -> tuple[Any, Any, Any]:
    """Build targets for several platforms; return the workspace, the store, and their indexes."""
    from builder.build.index import build_each, index
    from builder.build.workspace import Workspace
    from builder.store import Store

    def one(platform: Any) -> Any:
        return build(names, jobs, changed_since, cache, platform=platform, **more)[2]

    store = Store.open()
    return Workspace.load(ROOT), store, index(store, build_each(platforms, one), ROOT)


def _show_indexed(indexed: Any, *, as_json: bool) -> None:
    rows = [("image", "platform", "digest", "size", "from")]
    for name, one in indexed.items():
        rows.append((name, "index", one.index.digest, f"{one.index.size} B", ""))
        rows += [
            ("", p.name, b.image.digest, f"{b.image.size / 1e6:.1f} MB", source(b))
            for p, b in one.images.items()
        ]
    found = {
        name: {
            "digest": one.index.digest, "key": one.key,
            "platforms": {
                p.name: {"digest": b.image.digest, "key": b.key, "size": b.image.size,
                         "cached": b.cached, "source": b.source, "signer": b.signer}
                for p, b in one.images.items()
            },
        }
        for name, one in indexed.items()
    }  # fmt: skip
    facts(found, rows, as_json=as_json)


@command(
    positional=["targets"],
    help={
        "registry": "HOST/PREFIX, for example localhost:5000/plateline ($PLATELINE_REGISTRY)",
        "targets": TARGETS_HELP,
        "cache": "take what this registry has for the same sources instead of building it",
        "sign": SIGN_HELP,
        "platform": PLATFORM_HELP,
        "compression": COMPRESSION_HELP,
        "insecure": INSECURE_HELP,
        "jobs": JOBS_HELP,
        "json": JSON_HELP,
    },
)
def push_images(
    registry: str = "",
    targets: str = "",
    cache: bool = False,
    sign: str = "",
    platform: str = "",
    compression: str = "gzip",
    insecure: bool = False,
    jobs: int = 4,
    json: bool = False,
) -> None:
    """Build the images and push what the registry lacks, each with its bill of materials."""
    from builder.platform import parse

    prefix, key, platforms = named_registry(registry), signing_key(sign), parse(platform)
    with in_registry(prefix, insecure=insecure) as results:
        parts = {
            p: _push(results, p, targets, key, compression, cache=cache, jobs=jobs)
            for p in platforms
        }
        indexed = _push_indexes(results, parts, key) if len(platforms) > 1 else {}
    rows = [("image", "uploaded", "mounted", "inventory", "")]
    rows += [
        (str(p.reference), f"{p.uploaded / 1e6:.3f} MB", str(p.mounted_blobs),
         f"{p.attached / 1e3:.1f} kB", "was there" if p.already else "")
        for part in parts.values() for p in part.pushed.values()
    ]  # fmt: skip
    rows += [(f"{prefix}/{n}@{i.index.digest}", "index", "", "", "") for n, i in indexed.items()]
    found = {
        each.name: {
            name: {
                "reference": str(p.reference),
                "uploaded": p.uploaded,
                "already": p.already,
                "inventory": p.attached,
            }
            for name, p in part.pushed.items()
        }
        for each, part in parts.items()
    }
    if failures := [part.failed for part in parts.values() if part.failed]:
        for each, part in parts.items():
            which = f" for {each.name}" if len(parts) > 1 else ""
            say(f"pushed to {prefix}{which}: {', '.join(part.pushed)}")
        raise failures[0]
    if len(platforms) == 1:
        facts(found[platforms[0].name], rows, as_json=json)
        return
    references = {name: f"{prefix}/{name}@{i.index.digest}" for name, i in indexed.items()}
    facts({"indexes": references, "images": found}, rows, as_json=json)


@dataclass(frozen=True)
class _Part:
    """What was built and pushed for one platform, and the error where that is not all."""

    built: Mapping[str, Any]
    pushed: Mapping[str, Any]
    failed: Exception | None


def _push(
    results: Any, platform: Any, targets: str, key: Any, compression: str, *, cache: bool, jobs: int
) -> _Part:
    """Build the targets for a platform, push them, and sign them where there is a `key`."""
    from builder.build.make import PartError
    from builder.build.workspace import Workspace
    from builder.inspect.inventory import sbom
    from builder.registry.push import push
    from builder.store import Store

    failed = None
    results.found.clear()  # it has names alone, and every platform has the same
    try:
        # What is signed was made here, or came signed by a key that this workspace trusts.
        workspace, store, built = build(
            targets, jobs, cache=results if cache else None, trusted=key is not None,
            platform=platform, compression=compression,
        )  # fmt: skip
    except PartError as error:
        failed, built = error, error.built
        workspace, store = Workspace.load(ROOT), Store.open()
    images = {name: (result.key, result.image) for name, result in built.items()}
    pushed = push(
        store, images, results.where, results.registry, jobs=jobs, there=results.found,
        progress=pushing(), inventory=lambda name: sbom(workspace, store, built[name].plan),
    )  # fmt: skip
    if key:
        from builder.inspect.provenance import sign_results  # cryptography costs time
        from pipeline.release.materials import state

        commit, dirty = state(ROOT)
        sign_results(
            results.registry, results.path, workspace, built, key, commit, dirty=dirty,
            store=store, now=time.time(), jobs=jobs,
            bill=lambda name: sbom(workspace, store, built[name].plan),
        )  # fmt: skip
        say(f"signed {len(built)} images for {platform.name} with {key.public}")
    return _Part(built, pushed, failed)


def _push_indexes(results: Any, parts: Mapping[Any, _Part], key: Any) -> Mapping[str, Any]:
    """Push the indexes over what was pushed for every platform, and sign them with a `key`."""
    from builder.build.index import index, publish
    from builder.signing.signatures import sign

    built = {platform: part.built for platform, part in parts.items()}
    indexed = index(results.store, built, ROOT)
    for name, one in indexed.items():
        publish(results.store, results.registry, results.path, one)
        if key:
            sign(results.registry, f"{results.path}/{name}", one.index, key)
    return indexed


def _agree(moves: Sequence[Any]) -> bool:
    """Ask on a terminal whether stages that were not named may change; elsewhere they may not."""
    if not moves or not sys.stdin.isatty():
        return not moves
    say("other stages would change too:")
    for move in moves:
        say(f"  {move.target}: {move.package} {move.old or 'none'} -> {move.new or 'none'}")
    return input("change them? [y/N] ").strip().lower() in ("y", "yes")


@command(
    positional=["targets"],
    help={
        "targets": TARGETS_HELP,
        "upgrade": "take newer versions",
        "expired": "take a Debian index whose Valid-Until is over, as archives of the past have it",
        "platform": "linux/amd64, linux/arm64 or both (linux/amd64, and what has a lock already)",
        "json": JSON_HELP,
    },
)
def lock(
    targets: str = "",
    upgrade: bool = False,
    expired: bool = False,
    platform: str = "",
    json: bool = False,
) -> None:
    """Resolve debian.in and requirements.in into the lock files, and print what changed."""
    from builder.build.lock import lock as resolve
    from builder.build.lock import refuse_moves
    from builder.build.workspace import Workspace
    from builder.platform import parse

    names = [name for name in targets.split(",") if name]
    platforms = parse(platform) if platform else ()
    say("resolving with pip; this takes a minute or two")
    changes = resolve(
        Workspace.load(ROOT),
        names,
        upgrade=upgrade,
        expired=expired,
        platforms=platforms,
        agree=refuse_moves if json else _agree,
        say=say,
    )
    found = [
        {"target": c.target, "package": c.package, "old": c.old, "new": c.new,
         "platform": c.platform}
        for c in changes
    ]  # fmt: skip
    rows = [("target", "package", "old", "new", "platform")]
    rows += [(c.target, c.package, c.old or "-", c.new or "-", c.platform) for c in changes]
    facts({"changes": found}, rows if changes else [("nothing changed",)], as_json=json)


@command(help={"name": "small letters, digits and _; the name of its folder, image and module"})
def new_stage(name: str) -> None:
    """Write the files of a new stage, with a test that passes, and say what comes next."""
    from cli.scaffold import new_stage as write

    for path in write(ROOT, name):
        print(path.relative_to(ROOT))
    say(
        f"next: ./invoke lock {name}; ./invoke test-stage {name}; then its row in "
        "pipeline/definition/stages.py and its place in plate_to_model.py: see docs/stages.md"
    )
