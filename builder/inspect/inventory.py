"""What is in an image, from the locks that made it: a CycloneDX bill of materials.

Source: https://cyclonedx.org/docs/1.6/json/; package URLs: https://github.com/package-url/purl-spec.
The same image gives the same bytes; a change of the workspace's own files alone does not change it.
"""

from __future__ import annotations

import datetime
import json
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from builder.build.plan import ImagePlan
from builder.build.workspace import Workspace
from builder.oci import canonical, layer
from builder.oci.reference import Reference
from builder.packages import debian, download
from builder.store import Store

FORMAT = "sbom-1"


@dataclass(frozen=True, slots=True)
class Part:
    """One component of an image; `kind` is deb, wheel, file, source, recipe or image."""

    kind: str
    name: str
    version: str = ""
    sha256: str = ""
    qualifiers: tuple[tuple[str, str], ...] = ()


def parts(workspace: Workspace, plan: ImagePlan) -> list[Part]:
    """Return what the image of `plan` is made of, what it stands on included; sorted, once each.

    Of an image of a registry only the digest is known. The workspace's own files are not listed:
    the layers are them.
    """
    found = {*_parts(workspace, plan)}
    return sorted(found, key=lambda p: (p.kind, p.name, p.version, p.sha256, p.qualifiers))


def _parts(workspace: Workspace, plan: ImagePlan) -> Iterator[Part]:
    if plan.pulled:
        reference = Reference.parse(plan.name)
        where = (("repository_url", f"{reference.host}/{reference.repository}"),)
        name = reference.repository.rpartition("/")[2]
        yield Part("image", name, reference.digest, qualifiers=where)
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
            suite = debian.suite(target.folder)
            for package in debian.read_lock(target.folder):
                architecture = package.path.rpartition("_")[2].removesuffix(".deb")
                qualifiers = (("arch", architecture), ("distro", suite))
                yield Part("deb", package.name, package.version, package.sha256, qualifiers)
        for name, version, sha256 in inputs.get("wheels", ()):
            yield Part("wheel", name, version, sha256)
        address = next(iter(re.findall(r"\S+://\S+", step.created_by)), "").partition("#")[0]
        if "commit" in inputs:
            yield Part("source", address, inputs["commit"])
        elif "file" in inputs:
            yield Part("file", address, sha256=inputs["file"])


def sbom(workspace: Workspace, store: Store, plan: ImagePlan) -> bytes:
    """Return the bill of materials of the image of `plan` as CycloneDX 1.6 JSON.

    It is an action like any other: the store remembers it for the parts it was made from.
    """
    made_of = parts(workspace, plan)
    rows = [[p.kind, p.name, p.version, p.sha256, p.qualifiers] for p in made_of]
    action = canonical.dumps({"format": FORMAT, "name": plan.name, "parts": rows})
    key = canonical.sha256(action).removeprefix("sha256:")
    known = store.get_result(key)
    if known and store.path(known["sbom"]).exists():
        return store.read(known["sbom"])
    data = render(plan.name, made_of)
    store.put_result(key, {"sbom": store.add(data).digest})
    return data


def render(name: str, made_of: list[Part]) -> bytes:
    """Return the CycloneDX document of the image `name`; pure."""
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output import make_outputter
    from cyclonedx.schema import OutputFormat, SchemaVersion

    image = Component(name=name, type=ComponentType.CONTAINER, bom_ref=f"image:{name}")
    components = [_component(part) for part in made_of]
    bom = Bom(
        components=components,
        # A random number would make every document another one.
        serial_number=uuid.uuid5(uuid.NAMESPACE_URL, repr((name, made_of))),
    )
    bom.metadata.component = image
    bom.metadata.timestamp = datetime.datetime.fromtimestamp(layer.EPOCH, datetime.UTC)
    bom.register_dependency(image, components)
    made = make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string()
    return canonical.dumps(json.loads(made))


def package_url(part: Part) -> Any:
    """Return the PackageURL of a Debian package, a wheel or an image; None for another part."""
    from packageurl import PackageURL

    types = {"deb": ("deb", "debian"), "wheel": ("pypi", None), "image": ("oci", None)}
    if part.kind not in types:
        return None
    return PackageURL(*types[part.kind], part.name, part.version, dict(part.qualifiers))


def _component(part: Part) -> Any:
    from cyclonedx.model import (
        ExternalReference,
        ExternalReferenceType,
        HashAlgorithm,
        HashType,
        XsUri,
    )
    from cyclonedx.model.component import Component, ComponentType

    types = {"deb": ComponentType.LIBRARY, "wheel": ComponentType.LIBRARY,
             "image": ComponentType.CONTAINER}  # fmt: skip
    purl = package_url(part)
    kind = {"source": ExternalReferenceType.VCS, "file": ExternalReferenceType.DISTRIBUTION}
    links = (
        [ExternalReference(type=kind[part.kind], url=XsUri(part.name))] if part.kind in kind else ()
    )
    return Component(
        name=part.name,
        version=part.version or None,
        type=types.get(part.kind, ComponentType.FILE),
        bom_ref=str(purl) if purl else f"{part.kind}:{part.name}",
        purl=purl,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=part.sha256)] if part.sha256 else (),
        external_references=links,
    )
