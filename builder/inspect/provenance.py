"""How an image was made, as SLSA provenance: action key, recipe, locks, packages, commit.

Source: https://slsa.dev/spec/v1.0/provenance. The same build gives the same predicate: it has no
time and no machine in it; who signs adds the time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from builder import oci
from builder.build.make import Built
from builder.build.plan import FORMAT, ImagePlan
from builder.build.workspace import Workspace
from builder.inspect.bill.part import Part, package_url
from builder.inspect.inventory import differing, parts
from builder.packages import download, sdist
from builder.platform import NATIVE, of_config
from builder.registry.client import Registry
from builder.registry.http import parse
from builder.signing.keys import SigningKey
from builder.signing.newest import Record, newest, remember
from builder.signing.predicates import BILL, TEST_RESULT, passing
from builder.signing.results import ACTION_KEY, PROVENANCE, action_key, timed
from builder.signing.signatures import sign, state, statements
from builder.store import Store
from builder.testing.stage_tests import Tested

VERSION = "0.1.0"
# Who builds, as provenance says it of images and of packages.
BUILDER = {"id": "urn:plateline:builder", "version": {"plateline": VERSION}}
# The annotation of a wheel that does not come out the same again: why that is allowed.
NOT_REPRODUCIBLE = "plateline.notReproducible"
_BUILD_TYPE = "urn:plateline:image:v1"


def provenance(
    workspace: Workspace, plan: ImagePlan, commit: str, *, dirty: bool
) -> dict[str, Any]:
    """Return the predicate of the image of `plan`, made at `commit` (empty where none is known).

    A wheel that does not come out the same again says so, and why that is allowed.
    """
    differ = {made.wheel_sha256: made.allowed for made in differing(workspace, plan)}
    return {
        "buildDefinition": {
            "buildType": _BUILD_TYPE,
            "externalParameters": {"target": plan.name, "recipe": _recipe(workspace, plan)},
            "internalParameters": {ACTION_KEY: plan.key, "format": FORMAT, "dirty": dirty},
            "resolvedDependencies": [
                *source(commit),
                *(_lock(workspace, path) for path in _locks(workspace, plan)),
                # The operating system is said by its packages, each of which has a digest.
                *(
                    _material(p, differ.get(p.sha256, ""))
                    for p in parts(workspace, plan)
                    if p.kind != "system"
                ),
            ],
        },
        "runDetails": {"builder": BUILDER},
    }


def source(commit: str) -> list[dict[str, Any]]:
    """Return the commit as a material, or nothing without one."""
    return [{"name": "source", "digest": {"gitCommit": commit}}] if commit else []


def sign_results(
    registry: Registry,
    path: str,
    workspace: Workspace,
    built: Mapping[str, Built],
    key: SigningKey,
    commit: str,
    *,
    dirty: bool,
    store: Store,
    now: float,
    bill: Callable[[str], bytes] | None = None,
    tested: Mapping[str, Tested] | None = None,
    jobs: int = 4,
) -> None:
    """Sign each of `built` in `path`/<name>: the image, and that it is the result of its key.

    `bill` returns a bill of materials (CycloneDX) by an image's name, and `tested` has the images
    whose tests passed: these are signed too. What `key` said there before is not said again, unless
    `store` knows of a newer result of the same action key. `now` is the time to say, in seconds
    since 1970. Raises RegistryError, and BuilderError as `sign` does.
    """

    def one(name: str) -> None:
        repository, result = f"{path}/{name}", built[name]
        sign(registry, repository, result.image.manifest, key)
        said = statements(registry, repository, result.image.digest, [key.public], PROVENANCE)
        seen, digest = newest(store, result.key), result.image.digest
        overtaken = seen is not None and seen.digest != digest
        if overtaken or result.key not in [action_key(each.predicate) for each in said]:
            made = timed(provenance(workspace, result.plan, commit, dirty=dirty), now)
            state(registry, repository, result.image.manifest, key, PROVENANCE, made)
            remember(store, result.key, Record(digest, int(now), key.public.id))
        if bill:
            document = parse(bill(name), "the bill of materials")
            state(registry, repository, result.image.manifest, key, BILL, document)
        if tested and name in tested:
            sign_tests(registry, repository, result.image.manifest, key, tested[name])

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(one, built))


def sign_tests(
    registry: Registry, repository: str, image: oci.Descriptor, key: SigningKey, tested: Tested
) -> None:
    """Say with `key` that the tests of an image passed, as they did; raises RegistryError."""
    assert tested.code == 0
    state(registry, repository, image, key, TEST_RESULT, passing(tested.files))


def _recipe(workspace: Workspace, plan: ImagePlan) -> str:
    return workspace.target(plan.name).recipe.path


def _locks(workspace: Workspace, plan: ImagePlan) -> list[str]:
    """Return the paths of the lock files of a target and of all that it is made from, sorted."""
    if plan.pulled:
        return []
    platform, target = of_config(plan.config), workspace.target(plan.name)
    # The Python of NATIVE compiles for every platform.
    wheels = target.requirements.lock(platform)
    names = {platform.debian_lock, wheels, NATIVE.debian_lock, sdist.LOCK}
    own = [target.folder / name for name in names if (target.folder / name).exists()]
    below = [need for need in (plan.base, *plan.needs) if need]
    paths = {path.relative_to(workspace.root).as_posix() for path in own}
    return sorted(paths.union(*(_locks(workspace, need) for need in below)))


def _lock(workspace: Workspace, path: str) -> dict[str, Any]:
    return {"name": path, "digest": {"sha256": download.sha256_file(workspace.root / path)}}


def _material(part: Part, allowed: str) -> dict[str, Any]:
    """Return a part of an image as a ResourceDescriptor of in-toto.

    `allowed` is empty, or why it need not come out the same again.
    """
    url = package_url(part)
    found = {"uri": url.to_string()} if url else {"name": part.name}
    noted = {"annotations": {NOT_REPRODUCIBLE: allowed}} if allowed else {}
    return found | {"digest": dict(_digests(part))} | noted


def _digests(part: Part) -> Iterator[tuple[str, str]]:
    if part.sha256:
        yield "sha256", part.sha256
    elif part.kind == "source":
        yield "gitCommit", part.version
    elif part.kind == "image":
        yield "sha256", part.version.removeprefix("sha256:")
