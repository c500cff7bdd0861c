"""The walk back from a served image: model artifact, package, stage images, locks, commit.

Each thing names the next by digest; what is not where it should be, or is not what the thing before
it names, goes to `missing` and the walk goes on where it can.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from builder import oci
from builder.errors import BuilderError
from builder.oci import canonical
from builder.oci.reference import Reference
from builder.registry.client import Registries, Registry
from builder.registry.http import parse
from builder.store import Store
from builder.store.roots import kept
from pipeline.errors import PipelineError
from pipeline.release import publish
from pipeline.release.difference import Change
from pipeline.spec import provenance
from pipeline.spec.documents import load_yaml
from pipeline.spec.package import PINNED, strings

# What stages/package writes; the two know nothing of each other but these names.
_ARTIFACT = "plateline.artifact"
_PACKAGE = "plateline.package"
BASE_NAME = "org.opencontainers.image.base.name"
BASE_DIGEST = "org.opencontainers.image.base.digest"
_VERSION = re.compile(r"sha256-([0-9a-f]{64})")  # as submit names a version
_TITLE = "org.opencontainers.image.title"


@dataclass
class Trace:
    """What was found. `artifact` and `package` are empty where nothing names them.

    `image` is empty for a walk from a run. `models` are those of the artifact, `metrics` its
    metrics; `stages` has name -> key, digest; `locks` path -> digest.
    """

    image: str
    base: str = ""
    artifact: str = ""
    models: list[dict[str, Any]] = field(default_factory=list)
    metrics: dict[str, Any] = field(default_factory=dict)
    package: str = ""
    stages: dict[str, dict[str, str]] = field(default_factory=dict)
    locks: dict[str, str] = field(default_factory=dict)
    commit: str = ""
    dirty: bool = False
    missing: list[str] = field(default_factory=list)


class Places:
    """The store for names of `localhost/…`, the registries for all others; use it in a `with`."""

    def __init__(
        self,
        store: Store,
        *,
        insecure: bool = False,
        notice: Callable[[str], object] | None = None,
    ) -> None:
        self._store = store
        self._registries = Registries(insecure=insecure, notice=notice)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._registries.__exit__()

    def registry(self, host: str) -> Registry:
        """Return the client of `host`."""
        return self._registries.at(host)

    def pinned(self, reference: Reference) -> Reference:
        """Return `reference` with the digest of its tag, or of the name that the store keeps.

        Raises BuilderError where there is none.
        """
        if reference.local:
            return replace(reference, digest=reference.digest or self._kept(reference))
        return self.registry(reference.host).resolve(reference)

    def manifest(self, reference: Reference) -> bytes:
        """Return the bytes of a manifest by its digest, checked; raises BuilderError without it."""
        if reference.local:
            return self._store.read(reference.digest)
        registry = self.registry(reference.host)
        found = registry.get_manifest(reference.repository, reference.digest)
        if found is None:
            raise BuilderError(f"{reference} is not in the registry")
        return found[1]

    def _kept(self, reference: Reference) -> str:
        named = kept(self._store).get(f"{reference.host}/{reference.repository}")
        if named is None or reference.tag:
            name = f"{reference.host}/{reference.repository}"
            hint = f"it keeps {name} without a tag" if named else "add its @sha256:…"
            raise BuilderError(f"the store keeps nothing as {reference}; {hint}")
        return named.digest

    def package_named(self, image: str) -> str:
        """Return the digest of the package that made a packaged image, or nothing."""
        document = parse(self.manifest(self.pinned(Reference.parse(image))), image)
        notes = document.get("annotations")
        return str(notes.get(_PACKAGE, "")) if isinstance(notes, dict) else ""

    def blob(self, reference: Reference, blob: oci.Descriptor) -> bytes:
        """Return a blob of the repository of `reference`; raises BuilderError without it."""
        if reference.local:
            return self._store.read(blob.digest)
        return self.registry(reference.host).get_blob(reference.repository, blob)

    def package(self, base: Reference, digest: str) -> bytes:
        """Return the package `digest`, released beside `base`, or compiled on this machine.

        Raises BuilderError or PipelineError where it is in neither place.
        """
        if self._store.path(digest).exists():
            return self._store.read(digest)
        if base.local:
            raise BuilderError("the store does not have it; compile it here, or give --package")
        path = base.repository.rpartition("/")[0]
        return publish.fetch(self.registry(base.host), path, digest)


def trace(
    image: Reference, places: Places, root: Path | None = None, package: Path | None = None
) -> Trace:
    """Walk back from `image`, a tag of which is resolved, as far as it goes.

    `root` is a git checkout in which the locks of the commit are compared; `package` a file to be
    taken where its digest is the right one. Raises BuilderError where `image` itself is not there,
    and PipelineError where it is no image.
    """
    image = places.pinned(image)
    document = parse(places.manifest(image), str(image))
    labels: Mapping[str, str] = {}
    if not ("manifests" in document and BASE_NAME in (document.get("annotations") or {})):
        # An index of the package stage says by its annotations what its images do.
        if "layers" not in document or "config" not in document:
            raise PipelineError(f"{image} is no image; name the function's image by its digest")
        config = json.loads(places.blob(image, oci.Descriptor.from_json(document["config"])))
        labels = (config.get("config") or {}).get("Labels") or {}
    found = Trace(str(replace(image, tag="")))
    names = {**labels, **(document.get("annotations") or {})}
    base = _base(names, found)
    _artifact(names, document.get("subject") or {}, places, found)
    found.package = found.package or names.get(_PACKAGE, "")
    if not found.package:
        found.missing.append("the package: the image names none; run the pipeline by `invoke run`")
    elif base:
        _package(found, places, base, package)
        _stages(found, places, base)
        _locks(found, root)
    return found


def changes(old: Trace, new: Trace) -> list[Change]:
    """Return what differs between two walks: image, models, package, stages, commit, …; pure."""
    return sorted(
        Change(kind, name, one.get(name, ""), other.get(name, ""))
        for kind, one, other in (
            ("image", {"": old.image}, {"": new.image}),
            ("base", {"": old.base}, {"": new.base}),
            ("model", _models(old), _models(new)),
            ("package", {"": old.package}, {"": new.package}),
            ("stage", _stage_digests(old), _stage_digests(new)),
            ("lock", old.locks, new.locks),
            ("commit", {"": old.commit}, {"": new.commit}),
        )
        for name in {*one, *other}
        if one.get(name) != other.get(name)
    )


def _models(found: Trace) -> dict[str, str]:
    return {str(model.get("name", "")): str(model.get("sha256", "")) for model in found.models}


def _stage_digests(found: Trace) -> dict[str, str]:
    return {name: stage["digest"] for name, stage in found.stages.items()}


def trace_run(document: bytes, places: Places, root: Path | None = None) -> Trace:
    """Walk back from what an API server gives of a version, or of a run that holds its pipeline.

    `root` is as for `trace`. Raises PipelineError where the pipeline was not compiled here.
    """
    whole = (load_yaml(document, "the run") or [None])[0]
    if not isinstance(whole, dict):
        raise PipelineError("the file holds no run; give the JSON that the API answers with")
    version = whole.get("pipeline_version_reference")
    if version and "pipeline_spec" not in whole:
        raise PipelineError(
            "the run names its pipeline instead of holding it; give what the API says at "
            f"/apis/v2beta1/pipelines/{version.get('pipeline_id')}/versions/"
            f"{version.get('pipeline_version_id')}"
        )
    made = provenance.read(document)
    found = Trace("")
    given = (whole.get("runtime_config") or {}).get("parameters") or {}
    named = _VERSION.fullmatch(str(whole.get("display_name", "")))
    found.package = str(given.get("package_digest") or (f"sha256:{named[1]}" if named else ""))
    if not found.package:
        found.missing.append(
            "the package's digest: neither a parameter package_digest nor a version's name has it"
        )
    _made(made, found)
    pins = sorted(filter(PINNED.fullmatch, strings(whole)))
    for name, entry in found.stages.items():
        # Two images may be the same one; its repository says which is meant.
        held = [pin for pin in pins if pin.endswith(f"@{entry['digest']}")]
        if held:
            own = [pin for pin in held if f"/{name}@" in pin]
            _image(found, places, name, Reference.parse((own or held)[0]))
        else:
            found.missing.append(f"the image of {name}: the pipeline runs no {entry['digest']}")
    found.base = found.stages.get("function", {}).get("image", "")
    _locks(found, root)
    return found


def _base(names: Mapping[str, str], found: Trace) -> Reference | None:
    try:
        base = Reference.parse(f"{names[BASE_NAME]}@{names[BASE_DIGEST]}")
    except (KeyError, BuilderError):
        found.missing.append("the base: the image was not made by the package stage")
        return None
    found.base = str(base)
    return base


def _artifact(
    names: Mapping[str, str], subject: Mapping[str, Any], places: Places, found: Trace
) -> None:
    if _ARTIFACT not in names:
        found.missing.append("the artifact: the run had no artifact_repo")
        return
    found.artifact = names[_ARTIFACT]
    try:
        reference = Reference.parse(found.artifact)
        if subject.get("digest", reference.digest) != reference.digest:
            found.missing.append(f"the image's subject is {subject['digest']}, not the artifact")
        document = json.loads(places.manifest(reference))
        found.package = (document.get("annotations") or {}).get(_PACKAGE, "")
        files = {
            entry.get("annotations", {}).get(_TITLE): oci.Descriptor.from_json(entry)
            for entry in document["layers"]
        }
        index = json.loads(places.blob(reference, files["manifest.json"]))
        keep = ("name", "sha256", "variant", "model_type", "fold")
        found.models = [{k: m[k] for k in keep if k in m} for m in index["models"]]
        if "metrics.json" in files:
            found.metrics = json.loads(places.blob(reference, files["metrics.json"]))
    except (BuilderError, ValueError, KeyError) as error:
        found.missing.append(f"the artifact {found.artifact}: {error}")


def _package(found: Trace, places: Places, base: Reference, file: Path | None) -> None:
    try:
        data = file.read_bytes() if file else places.package(base, found.package)
        if canonical.sha256(data) != found.package:
            where = file or "what was released under it"
            raise PipelineError(f"{where} is another one, {canonical.sha256(data)}")
        made = provenance.read(data)
    except (BuilderError, PipelineError, OSError) as error:
        found.missing.append(f"the package {found.package}: {error}")
        return
    _made(made, found)


def _made(made: Mapping[str, Any], found: Trace) -> None:
    found.stages = {
        name: {"digest": image["digest"], "key": image["key"]}
        for name, image in made["images"].items()
    }
    found.locks = {path: lock["sha256"] for path, lock in made["locks"].items()}
    found.commit, found.dirty = made["commit"], made["dirty"]


def _stages(found: Trace, places: Places, base: Reference) -> None:
    """Look for each stage's image beside the base, which must be the package's function."""
    function = found.stages.get("function", {}).get("digest", base.digest)
    if function != base.digest:
        found.missing.append(f"the package's function is {function}, the image's base another one")
    path = base.repository.rpartition("/")[0]
    for name, entry in found.stages.items():
        repository = f"{path}/{name}" if path else name
        _image(found, places, name, Reference(base.host, repository, digest=entry["digest"]))


def _image(found: Trace, places: Places, name: str, reference: Reference) -> None:
    """Note where the image of a stage is, or that it is not there."""
    try:
        places.manifest(reference)
        found.stages[name]["image"] = str(reference)
    except BuilderError as error:
        found.missing.append(f"the image of {name}: {error}")


def _locks(found: Trace, root: Path | None) -> None:
    """Compare the locks with those of the commit, where `root` is a checkout that has it."""
    if not found.locks:
        return
    if not found.commit:
        found.missing.append("the commit: the package was compiled outside of a git checkout")
        return
    if found.dirty:
        found.missing.append("the locks were not compared: the package was made of a changed tree")
        return
    for path, digest in found.locks.items() if root else ():
        command = ["git", "-C", str(root), "show", f"{found.commit}:{path}"]
        try:
            shown = subprocess.run(command, capture_output=True, check=False)
        except FileNotFoundError:
            return
        if shown.returncode:
            found.missing.append(f"{path} at {found.commit[:12]}: this checkout does not have it")
        elif canonical.sha256(shown.stdout) != digest:
            found.missing.append(f"{path} at {found.commit[:12]} is another file than was used")
