"""A released package that names its images elsewhere: a new release, which names the old one."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from builder import oci
from builder.errors import BuilderError
from builder.oci import canonical
from builder.registry import pull
from builder.registry.client import Registry
from builder.registry.http import parse
from builder.registry.push import INVENTORY
from builder.signing.keys import PublicKey, SigningKey
from builder.store import Store
from pipeline.errors import PipelineError
from pipeline.release.publish import (
    Release,
    fetch,
    find,
    named_images,
    publish,
    releases,
    repository,
)
from pipeline.release.verify import verify
from pipeline.spec import lint, provenance
from pipeline.spec.documents import load_yaml
from pipeline.spec.package import PINNED, strings


def relocate(
    registry: Registry,
    path: str,
    store: Store,
    digest: str,
    keys: Sequence[PublicKey],
    own: SigningKey,
) -> Release:
    """Publish the release `digest` of `path` again with a package that pulls from there.

    The images stay the same. Raises PipelineError where the old release, or an image of it, is not
    signed by one of `keys`: nobody signs what nobody vouched for.
    """
    for checked in verify(registry, path, digest, keys):
        if not checked.signers:
            raise PipelineError(
                f"the {checked.name} is not signed by {' or '.join(map(str, keys))}, so no new "
                "package was made of it"
            )
    home = repository(path)
    _, entries = find(registry, path, digest)
    (old,) = [each for each in releases(registry, path) if each.digest == digest]
    images = {}
    for name, image in named_images(entries).items():
        found = pull.named(store, registry, home, image)
        if found is None:
            raise PipelineError(f"{registry.host}/{home} lost the image {name}; copy it again")
        images[name] = found
    data = relocated(
        fetch(registry, path, digest), {n: i.digest for n, i in images.items()},
        f"{registry.host}/{path}", digest,
    )  # fmt: skip
    bills = _bills(registry, home, entries)
    lacking = sorted(
        name for name, named in images.items() if any(i.digest not in bills for i in named.images)
    )
    if lacking:
        raise PipelineError(f"the release has no bill of materials of {', '.join(lacking)}")
    return publish(
        registry, path, store, data, images,
        inventory=lambda _, image: bills[image.digest], key=own, date=old.date,
    )  # fmt: skip


def relocated(package: bytes, images: Mapping[str, str], prefix: str, release: str) -> bytes:
    """Return `package` with every image of `images` (name -> digest) pulled from `prefix`/<name>.

    What it was made from says the old package, and `release`. Raises PipelineError for a package
    that names an image which is not of the release, and where the new one does not pass the lint.
    """
    made = provenance.read(package)
    loaded = load_yaml(package, "the package")
    moved: dict[str, str] = {}
    for name, digest in images.items():
        for pin in filter(PINNED.fullmatch, strings(loaded)):
            if pin.endswith(f"/{name}@{digest}"):
                moved[pin] = f"{prefix}/{name}@{digest}"
    stay = sorted({pin for pin in strings(loaded) if PINNED.fullmatch(pin)} - moved.keys())
    if stay:
        raise PipelineError(
            f"the package names {', '.join(stay[:3])}, which the release does not hold; it was not "
            "made by `invoke release`"
        )
    fresh = _mapped(loaded, moved)
    info = fresh[0]["pipelineInfo"]
    made["relocated"] = {"package": canonical.sha256(package), "release": release}
    info["description"] = provenance.redescribed(info["description"], made)
    data = yaml.safe_dump_all(fresh, sort_keys=True, explicit_start=False).encode()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "package.yaml"
        file.write_bytes(data)
        if findings := lint.lint(file):
            raise PipelineError(f"the new package has faults: {'; '.join(map(str, findings))}")
    return data


def _mapped(node: Any, moved: Mapping[str, str]) -> Any:
    if isinstance(node, dict):
        return {key: _mapped(value, moved) for key, value in node.items()}
    if isinstance(node, list):
        return [_mapped(value, moved) for value in node]
    return moved.get(node, node) if isinstance(node, str) else node


def _bills(registry: Registry, home: str, entries: Sequence[oci.Descriptor]) -> dict[str, bytes]:
    """Return the bills of materials of a release by the digest of their image."""
    found = {}
    for entry in entries:
        manifest = (
            registry.get_manifest(home, entry.digest) if entry.artifact_type == INVENTORY else None
        )
        if manifest:
            document = parse(manifest[1], entry.digest)
            try:
                image = oci.Descriptor.from_json(document.get("subject")).digest
                blob = oci.Descriptor.from_json(document["layers"][0])
            except (BuilderError, LookupError, TypeError):
                raise PipelineError(f"{entry.digest} is no bill of materials") from None
            found[image] = registry.get_blob(home, blob)
    return found
