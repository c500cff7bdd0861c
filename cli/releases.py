"""The tasks about releases: publish one, list them, get one back, say what changed."""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any, BinaryIO

from cli import policy as policies
from cli.command import command
from cli.deployment import GATEWAY_HELP, gateway_at
from cli.images import build, build_indexed, named_registry, opened
from cli.output import (
    COMPRESSION_HELP,
    ENGINE_HELP,
    INSECURE_HELP,
    JSON_HELP,
    PLATFORM_HELP,
    REGISTRY_HELP,
    ROOT,
    facts,
    say,
)
from cli.pipeline import (
    GPUS_HELP,
    PACKAGE,
    Pinned,
    hold,
    make_package,
    pipeline_targets,
    refuse_docker,
)
from cli.policy import POLICY_HELP
from cli.progress import pushing
from cli.signing import SIGN_HELP, signing_key


@command(
    help={
        "registry": REGISTRY_HELP,
        "tag": "a further name for the release, for example v1.2",
        "allow-dirty": "release although the tree has changes that no commit holds",
        "no-test": "do not run the stages' tests",
        "sign": SIGN_HELP,
        "policy": POLICY_HELP,
        "engine": ENGINE_HELP,
        "output": "where to write the package as well",
        "gpus": GPUS_HELP,
        "builder": "who builds the servable image: registry or docker",
        "platform": f"{PLATFORM_HELP}; of both, the release has an index of each image",
        "compression": COMPRESSION_HELP,
        "insecure": INSECURE_HELP,
        "jobs": "how many things to do at the same time",
        "json": JSON_HELP,
    }
)
def release(
    registry: str = "",
    tag: str = "",
    allow_dirty: bool = False,
    no_test: bool = False,
    sign: str = "",
    policy: str = "",
    engine: str = "auto",
    output: str = PACKAGE,
    gpus: int = 0,
    builder: str = "registry",
    platform: str = "",
    compression: str = "gzip",
    insecure: bool = False,
    jobs: int = 2,
    json: bool = False,
) -> None:
    """Build, test, push, compile, and publish the package with its images behind one digest."""
    from builder.build.index import publish as publish_index
    from builder.build.make import pins
    from builder.inspect.inventory import differing, sbom
    from builder.platform import NATIVE, parse
    from pipeline.errors import PipelineError
    from pipeline.release import publish as publishing
    from pipeline.release.materials import commit_date, state

    prefix, platforms = named_registry(registry), parse(platform)
    refuse_docker(builder, platforms)
    key, asked = signing_key(sign), policies.read(policy)  # before the work, which takes minutes
    commit, dirty = state(ROOT)
    if not allow_dirty and not commit:
        raise PipelineError(
            f"{ROOT} has no commit that git knows, so the release could not name its source; "
            "install git and release from a clone, or give --allow-dirty"
        )
    if not allow_dirty and dirty:
        raise PipelineError(
            "the tree has changes that no commit holds, so nobody could make this release "
            "again; commit them, or give --allow-dirty"
        )
    tested = {} if no_test else _test(engine)
    wanted = pipeline_targets(gpus=gpus)
    how: dict[str, Any] = {"trusted": True, "compression": compression}
    if len(platforms) > 1:
        workspace, store, built = build_indexed(wanted, platforms, jobs, **how)
    else:
        workspace, store, built = build(wanted, jobs, platform=platforms[0], **how)
    plans = {each.image.digest: each.plan for b in built.values() for each in b.images.values()}
    differ = {w.name: w for plan in plans.values() for w in differing(workspace, plan)}
    for wheel in differ.values():
        say(f"{wheel.name} {wheel.version} need not come out the same again: {wheel.allowed}")
    with opened(prefix, insecure=insecure) as (client, path):
        for each in platforms:
            one = {name: made.images[each] for name, made in built.items()}
            say(f"pushing {len(one)} images for {each.name} to {prefix}")
            ran = tested if each == NATIVE else {}
            _push(client, path, workspace, store, one, key, (commit, dirty), ran, jobs)
        if len(platforms) > 1:
            for made in built.values():
                publish_index(store, client, path, made)
        pinned = Pinned(store, workspace, built, pins(built, prefix))
        if asked:
            hold(asked, pinned, insecure=insecure)
        compiled = make_package(pinned, gpus, builder, output)
        made = publishing.publish(
            client, path, store, compiled.data, {n: b.named for n, b in built.items()}, tag,
            inventory=lambda _, image: sbom(workspace, store, plans[image.digest]), key=key,
            date=commit_date(ROOT, commit),
        )  # fmt: skip
    facts(_facts(made, prefix), _table(made, prefix), as_json=json)


def _push(
    client: Any,
    path: str,
    workspace: Any,
    store: Any,
    built: Any,
    key: Any,
    state: tuple[str, bool],
    tested: Any,
    jobs: int,
) -> None:
    """Push the images of a platform, and sign how they were made where there is a `key`."""
    from builder.inspect.inventory import sbom
    from builder.inspect.provenance import sign_results
    from builder.registry.push import push

    keyed = {name: (result.key, result.image) for name, result in built.items()}
    push(store, keyed, f"{client.host}/{path}", client, jobs=jobs, progress=pushing())
    if key:
        say(f"signing them with {key.public}")
        commit, dirty = state
        sign_results(
            client, path, workspace, built, key, commit, dirty=dirty, store=store,
            now=time.time(), jobs=jobs, tested=tested,
            bill=lambda name: sbom(workspace, store, built[name].plan),
        )  # fmt: skip


def _test(engine: str) -> dict[str, Any]:
    """Run the tests of every stage and return how they ended, by name; all of them passed.

    What no change affects has passed already and is not run.
    """
    from builder.build.workspace import Workspace
    from builder.errors import BuilderError
    from builder.sandbox.engines import choose
    from builder.store import Store
    from builder.testing.stage_tests import Tested, run_at_once, with_tests
    from pipeline.errors import PipelineError

    store, workspace = Store.open(), Workspace.load(ROOT)
    try:
        sandbox = choose(engine, store)
    except BuilderError as error:
        raise BuilderError(
            f"the stages' tests cannot run: {error}\nwithout them: release --no-test"
        ) from None
    found: dict[str, Any] = {}

    def ended(stage: str, tested: Tested | BuilderError, printed: BinaryIO | None) -> None:
        if printed:
            shutil.copyfileobj(printed, sys.stderr.buffer)
        if isinstance(tested, BuilderError):
            raise tested
        say(f"tests of {stage}: {'cached' if tested.cached else f'exit code {tested.code}'}")
        if tested.code:
            raise PipelineError(f"the tests of {stage} failed; nothing was released")
        found[stage] = tested

    cores = len(os.sched_getaffinity(0))
    run_at_once(workspace, store, sandbox, with_tests(workspace), [], cores, ended)
    return found


def _facts(release: Any, prefix: str) -> dict[str, Any]:
    return {
        "release": f"{prefix}/pipeline@{release.digest}",
        "package": release.package,
        "tags": list(release.tags),
        "commit": release.commit,
        "date": release.date,
        "dirty": release.dirty,
        "images": dict(release.images),
    }


def _table(release: Any, prefix: str) -> list[tuple[str, ...]]:
    return [
        ("what", "digest"),
        ("release", f"{prefix}/pipeline@{release.digest}"),
        ("package", release.package),
        ("commit", release.commit + (" with changes" if release.dirty else "")),
        *((f"image {name}", digest) for name, digest in release.images.items()),
    ]


@command(
    help={
        "registry": REGISTRY_HELP,
        "gateway": f"{GATEWAY_HELP}; without one, nobody knows what is deployed",
        "insecure": INSECURE_HELP,
        "json": JSON_HELP,
    }
)
def releases(
    registry: str = "", gateway: str = "", insecure: bool = False, json: bool = False
) -> None:
    """List the releases of a registry: who signed them, what was tested, what is deployed.

    Only what keys of this workspace (keys/*.pub) say counts.
    """
    from builder.signing.keys import trusted
    from pipeline.release import publish as publishing
    from pipeline.release.standing import standing

    prefix, keys = named_registry(registry), trusted(ROOT)
    running = _running(gateway, keys, insecure=insecure)
    with opened(prefix, insecure=insecure) as (client, path):
        found = publishing.releases(client, path)
        said = [standing(client, path, release, keys) for release in found]
    rows = [("package", "tags", "date", "commit", "signed by", "tested", "gate", "deployed as",
             "release")]  # fmt: skip
    listed = []
    for r, s in zip(found, said, strict=True):
        functions = running.get(r.package, {})
        # A gate is passed by the models in a packaged image: known of one that is deployed.
        gates = "passed" if functions and all(functions.values()) else "-"
        rows.append(
            (r.package, " ".join(r.tags) or "-", r.date or "-",
             r.commit[:12] + ("+" if r.dirty else ""), " ".join(s.signers) or "-",
             f"{len(s.tested)} of {len(r.images)} images" if s.tested else "-", gates,
             " ".join(sorted(functions)) or "-", r.digest)
        )  # fmt: skip
        listed.append(
            _facts(r, prefix)
            | {"signers": s.signers, "tested": s.tested, "gate": gates == "passed",
               "deployed": sorted(functions)}
        )  # fmt: skip
    facts({"releases": listed}, rows, as_json=json)


def _running(gateway: str, keys: Any, *, insecure: bool) -> dict[str, dict[str, bool]]:
    """Return package -> the functions that were made by it -> whether their gate is signed."""
    from builder.errors import BuilderError
    from builder.oci.reference import Reference
    from builder.store import Store
    from pipeline.release.standing import passed_gate
    from pipeline.release.trace import Places
    from pipeline.serving.openfaas import deployed

    found: dict[str, dict[str, bool]] = {}
    if not (gateway or os.environ.get("OPENFAAS_URL")):
        return found
    images = deployed(gateway_at(gateway, 30, insecure=insecure))
    with Places(Store.open(), insecure=insecure, notice=say) as places:
        for name, image in images.items():
            try:
                package = places.package_named(image)
                pinned = places.pinned(Reference.parse(image))
                source = places.registry(pinned.host)
                passed = passed_gate(source, pinned.repository, pinned.digest, keys)
            except BuilderError as error:
                say(f"not known which release {name} is of: {error}")
                continue
            if package:
                found.setdefault(package, {})[name] = passed
    return found


@command(
    help={
        "release": "the package's digest, the release's, or a tag",
        "registry": REGISTRY_HELP,
        "output": "the file to write",
        "insecure": INSECURE_HELP,
        "json": JSON_HELP,
    },
)
def pull_release(
    release: str,
    registry: str = "",
    output: str = PACKAGE,
    insecure: bool = False,
    json: bool = False,
) -> None:
    """Get a released package back, byte for byte; the source is not needed."""
    from builder.oci import canonical
    from pipeline.spec.compile import write

    data = _package(release, named_registry(registry), insecure=insecure)
    write(data, Path(output))
    digest = canonical.sha256(data)
    facts(
        {"package": output, "digest": digest},
        [("package", "digest"), (output, digest)],
        as_json=json,
    )


def _package(which: str, prefix: str, *, insecure: bool) -> bytes:
    from pipeline.release.publish import fetch

    with opened(prefix, insecure=insecure) as (client, path):
        return fetch(client, path, which)


@command(
    help={
        "old": "a package file, or a release's digest or tag",
        "new": "what to compare it with",
        "registry": REGISTRY_HELP,
        "insecure": INSECURE_HELP,
        "json": JSON_HELP,
    },
)
def diff(
    old: str, new: str, registry: str = "", insecure: bool = False, json: bool = False
) -> None:
    """Say what changed between two packages: parameters, images, layers, wheels and debs."""
    from dataclasses import asdict

    from pipeline.errors import PipelineError
    from pipeline.release.difference import compare
    from pipeline.release.publish import is_release_name

    def get(which: str) -> bytes:
        if Path(which).is_file():
            return Path(which).read_bytes()
        if not is_release_name(which):
            raise PipelineError(f"there is no file {which}; compile it, or name another package")
        if not (registry or os.environ.get("PLATELINE_REGISTRY")):
            raise PipelineError(
                f"there is no file {which}; if it is a release, say which registry has it with "
                "--registry HOST/PREFIX"
            )
        return _package(which, named_registry(registry), insecure=insecure)

    changes = compare(get(old), get(new))
    rows = [("what", "name", "old", "new")]
    rows += [(c.kind, c.name, _brief(c.old), _brief(c.new)) for c in changes]
    facts(
        {"changes": [asdict(change) for change in changes]},
        rows if changes else [("nothing changed",)],
        as_json=json,
    )


def _brief(value: str) -> str:
    """Return a digest cut to twelve digits, and anything else as it is."""
    return value[:19] if value.startswith("sha256:") else value or "-"
