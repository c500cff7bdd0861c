"""What is in an image, from the locks that made it, and its bill of materials.

The same image gives the same bytes; a change of the workspace's own files alone does not change it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from builder.build.plan import ImagePlan
from builder.build.workspace import Workspace
from builder.errors import BuilderError
from builder.inspect.bill import cyclonedx, licences, spdx
from builder.inspect.bill.part import UNKNOWN, Part
from builder.oci import canonical
from builder.oci.reference import Reference
from builder.packages import debian, download, wheels
from builder.packages.lock_file import Requirements, normalized
from builder.platform import Platform, of_config
from builder.store import Store

if TYPE_CHECKING:
    from builder.packages import sdist

FORMAT = "sbom-3"
FORMATS = {"cyclonedx": cyclonedx.render, "spdx": spdx.render}


def parts(workspace: Workspace, plan: ImagePlan) -> list[Part]:
    """Return what the image of `plan` is made of, what it stands on included; sorted, once each.

    Of an image of a registry only the digest is known. The workspace's own files are not listed:
    the layers are them. No licence is read (`licensed`).
    """
    found: dict[Part, set[str]] = {}
    for part in _parts(workspace, plan):
        # Of a package that is there twice, a file is left out where neither has it.
        whole, excluded = replace(part, excluded=()), {*part.excluded}
        found[whole] = found.get(whole, excluded) & excluded
    made_of = [replace(part, excluded=tuple(sorted(less))) for part, less in found.items()]
    return sorted(made_of, key=lambda p: (p.kind, p.name, p.version, p.sha256, p.qualifiers))


def _parts(workspace: Workspace, plan: ImagePlan) -> Iterator[Part]:
    if plan.pulled:
        reference = Reference.parse(plan.name)
        where = (("repository_url", f"{reference.host}/{reference.repository}"),)
        name = reference.repository.rpartition("/")[2]
        yield Part("image", name, reference.digest, qualifiers=where, licence=UNKNOWN)
        return
    for below in (plan.base, *plan.needs):
        if below:
            yield from _parts(workspace, below)
    target = workspace.target(plan.name)
    recipe = target.folder / "Dockerfile"
    yield Part("recipe", target.recipe.path, sha256=download.sha256_file(recipe))
    for step in plan.layers:
        inputs = step.plan.inputs
        if "debian" in inputs:
            yield from _debs(target.folder, of_config(plan.config))
        for name, version, sha256 in inputs.get("wheels", ()):
            yield Part(
                "wheel", normalized(name), version, sha256, licence=UNKNOWN,
                excluded=tuple(inputs.get("exclude", {}).get(name, ())),
            )  # fmt: skip
        address = next(iter(re.findall(r"\S+://\S+", step.created_by)), "").partition("#")[0]
        if "commit" in inputs:
            yield Part("source", address, inputs["commit"], licence=UNKNOWN)
        elif "file" in inputs:
            yield Part("file", address, sha256=inputs["file"], licence=UNKNOWN)


def differing(workspace: Workspace, plan: ImagePlan) -> list[sdist.Sdist]:
    """Return the sdists whose wheels in the image need not come out the same again."""
    from builder.packages import sdist  # costs time

    folders = dict.fromkeys(asked.folder for asked in _asked(workspace, plan))
    pinned = (made for folder in folders for made in sdist.read_lock(folder))
    return [made for made in pinned if made.allowed]


def _debs(folder: Path, platform: Platform) -> Iterator[Part]:
    """Yield the system and the packages of a lock of Debian's, named as scanners look them up."""
    suite = debian.suite(folder)
    number = debian.RELEASES.get(suite, "")
    yield Part("system", "debian", number or suite)
    distro = f"debian-{number}" if number else suite
    for package in debian.read_lock(folder, platform):
        architecture = package.path.rpartition("_")[2].removesuffix(".deb")
        upstream = [("upstream", package.source)] if package.source != package.name else []
        qualifiers = (("arch", architecture), ("distro", distro), *upstream)
        yield Part("deb", package.name, package.version, package.sha256, qualifiers, UNKNOWN)


def licensed(workspace: Workspace, store: Store, plan: ImagePlan) -> list[Part]:
    """Return `parts` with the licence of each package, which is read from the package itself.

    The store remembers it by the package's hash. A wheel or .deb that is not here is downloaded.
    Raises BuilderError where that fails.
    """
    known = {
        sha256: licence
        for asked in _asked(workspace, plan)
        for sha256, licence in _licences(asked, store, of_config(plan.config)).items()
    }
    return [
        replace(part, licence=known.get(part.sha256, part.licence))
        for part in parts(workspace, plan)
    ]


def _asked(workspace: Workspace, plan: ImagePlan) -> Iterator[Requirements]:
    """Yield the folder, with the variant, of each target that is in the image of `plan`."""
    if not plan.pulled:
        yield workspace.target(plan.name).requirements
        for below in (plan.base, *plan.needs):
            if below:
                yield from _asked(workspace, below)


def _licences(asked: Requirements, store: Store, platform: Platform) -> Mapping[str, str]:
    """Return SHA-256 -> licence of the packages of a target's locks."""
    folder = asked.folder
    cache = download.downloads_folder()
    found: dict[str, str] = {}
    if (folder / "debian.in").exists():
        debs = debian.read_lock(folder, platform)
        # Together, since the licences of one may lie in another.
        key = _key({"debs": [package.sha256 for package in debs]})
        said = store.get_result(key)
        if said is None:
            said = {"licences": licences.of_debs(debs, debian.fetch(debs, cache))}
            store.put_result(key, said)
        found |= {package.sha256: str(said["licences"][package.name]) for package in debs}
    if asked.path.exists():
        pinned = wheels.read_lock(asked, platform)
        keys = {wheel.sha256: _key({"wheel": wheel.sha256}) for wheel in pinned}
        results = {sha256: store.get_result(key) for sha256, key in keys.items()}
        unread = [wheel for wheel in pinned if results[wheel.sha256] is None]
        paths = wheels.fetch(asked, unread, cache, platform)
        for wheel, path in zip(unread, paths, strict=True):
            results[wheel.sha256] = {"licence": licences.of_wheel(path)}
            store.put_result(keys[wheel.sha256], results[wheel.sha256] or {})
        found |= {sha256: str(said["licence"]) for sha256, said in results.items() if said}
    return found


def _key(action: Mapping[str, object]) -> str:
    document = canonical.dumps({"format": licences.FORMAT, **action})
    return canonical.sha256(document).removeprefix("sha256:")


def sbom(workspace: Workspace, store: Store, plan: ImagePlan, form: str = "cyclonedx") -> bytes:
    """Return the bill of materials of the image of `plan` in one of FORMATS.

    It is an action like any other: the store remembers it for the parts it was made from. Raises
    BuilderError as `licensed` does, and for a form that there is not.
    """
    if form not in FORMATS:
        raise BuilderError(f"there is no format {form!r}; there are {', '.join(FORMATS)}")
    rows = [
        [p.kind, p.name, p.version, p.sha256, p.qualifiers, p.excluded]
        for p in parts(workspace, plan)
    ]
    action = {"sbom": FORMAT, "form": form, "name": plan.name, "parts": rows}
    key = _key(action)
    known = store.get_result(key)
    if known and store.path(known["sbom"]).exists():
        return store.read(known["sbom"])
    data = FORMATS[form](plan.name, licensed(workspace, store, plan))
    store.put_result(key, {"sbom": store.add(data).digest})
    return data
