"""A released model, taken out of the image or artifact that holds it. `python3 -m package.fetch`

It is named by digest, and each byte is checked against that: who scores plates with it later knows
which model it was.
"""

from __future__ import annotations

import json
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from common import digest
from common.errors import StageError
from common.stage_io import StageIO, run_stage

from builder import oci
from builder.errors import BuilderError
from builder.oci.reference import Reference
from builder.registry.client import Registries
from builder.registry.pull import listed
from builder.store import Store

from . import documents, models
from .documents import ARTIFACT, MODELS
from .place import TITLE
from .stage import credentials_file

MOST_FILES, MOST_BYTES = 256, 16 << 30  # of a model, unpacked
_HINT = "name the image or the artifact that the package stage put out, with its @sha256:…"


def fetch(task: StageIO) -> None:
    """Run the step: put out the servable and its digest."""
    given = task.parameter("model", str)
    folder = task.output("servable")
    try:
        reference = Reference.parse(given)
        if not reference.digest:
            raise StageError(f"model = {given} is not pinned by a digest; {_HINT}")
        folder.mkdir(parents=True, exist_ok=True)
        with Registries(credentials_file(), notice=_say) as registries:
            fetch_model(reference, folder, registries)
    except BuilderError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise StageError(f"cannot fetch the model {given}: {error}") from None
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise StageError(f"cannot write {folder}: {error.strerror or error}; make room") from None
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    task.set_parameter("digest", digest.folder_digest(folder))
    print(f"fetched {reference}", flush=True)


def _say(line: str) -> None:
    print(line, flush=True)


def fetch_model(reference: Reference, folder: Path, registries: Registries) -> None:
    """Write the models of a pinned image or artifact, and their manifest, into `folder`.

    Raises BuilderError where it cannot be had or is not what its digest says, StageError where it
    holds no model, or one that is not what its manifest names.
    """
    manifest = _manifest(reference, registries)
    if "manifests" in manifest and documents.BASE_NAME in (manifest.get("annotations") or {}):
        layer = _layer_of_all(manifest, reference, registries)
    else:
        layer = models_layer(manifest, reference)
    packed = folder / ".layer"
    with packed.open("w+b") as file:
        if reference.local:
            with Store.open().open_blob(layer.digest) as source:
                shutil.copyfileobj(source, file, 1 << 20)
        else:
            registry = registries.at(reference.host)
            registry.read_blob(reference.repository, layer, file.write)
        file.seek(0)
        unpack(file, folder, reference)
    packed.unlink()
    models.check(folder)


def _manifest(reference: Reference, registries: Registries) -> dict[str, Any]:
    if reference.local:
        data = Store.open().read(reference.digest)
    else:
        registry = registries.at(reference.host)
        found = registry.get_manifest(reference.repository, reference.digest)
        if found is None:
            raise BuilderError("it is not in the registry; push it, or correct the digest")
        data = found[1]
    try:
        return dict(json.loads(data))
    except (ValueError, TypeError):
        raise StageError(f"{reference} is no image and no artifact; {_HINT}") from None


def _layer_of_all(
    index: dict[str, Any], reference: Reference, registries: Registries
) -> oci.Descriptor:
    """Return the layer with the models, which is the same in the image for each platform."""
    found = {}
    for entry in listed(index, str(reference)):
        one = replace(reference, digest=entry.digest)
        layer = models_layer(_manifest(one, registries), one)
        found[layer.digest] = layer
    if len(found) != 1:
        raise StageError(f"{reference} has other models for one platform than another; {_HINT}")
    return found.popitem()[1]


def models_layer(manifest: dict[str, Any], reference: Reference) -> oci.Descriptor:
    """Return the layer with the models: an artifact's by its title, an image's last one.

    Raises StageError for what is neither.
    """
    layers = manifest.get("layers")
    if "manifests" in manifest or not isinstance(layers, list) or not layers:
        what = "an index, such as a release," if "manifests" in manifest else "something else"
        raise StageError(f"{reference} is {what} and no image with a model; {_HINT}")
    found = [oci.Descriptor.from_json(entry, str(reference)) for entry in layers]
    if manifest.get("artifactType") != ARTIFACT:
        return found[-1]
    for blob in found:
        if blob.annotations.get(TITLE) == MODELS:
            return blob
    raise StageError(f"the artifact {reference} has no {MODELS}; package the model again")


def unpack(packed: IO[bytes], folder: Path, reference: Reference) -> None:
    """Write the files that a layer of models holds into `folder`.

    A layer of the package stage has the folder `models` and plain files in it. Raises StageError
    for any other entry, so that nothing is written elsewhere, and for more than a model has.
    """
    left = MOST_BYTES
    names: set[str] = set()
    try:
        with tarfile.open(fileobj=packed, mode="r|gz") as archive:
            for member in archive:
                parent, _, name = member.name.removeprefix("./").rpartition("/")
                if member.isdir() and member.name.strip("./") == models.FOLDER:
                    continue
                plain = member.isreg() and name not in {"", ".", ".."} and "\0" not in name
                if not plain or parent != models.FOLDER or name in names or name.startswith("."):
                    raise StageError(
                        f"{reference} has {member.name[:80]!r} where a model's files should be; "
                        f"it was not made by the package stage: {_HINT}"
                    )
                names.add(name)
                left -= member.size
                if left < 0 or len(names) > MOST_FILES:
                    raise StageError(
                        f"{reference} unpacks to more than {MOST_FILES} files or "
                        f"{MOST_BYTES >> 30} GiB; no model is that large"
                    )
                source = archive.extractfile(member)
                assert source is not None, "a regular file can be read"
                with (folder / name).open("wb") as file:
                    shutil.copyfileobj(source, file, 1 << 20)
    except (tarfile.TarError, EOFError) as error:
        raise StageError(
            f"the last layer of {reference} is no tar ({error}), so it holds no model; {_HINT}"
        ) from None


if __name__ == "__main__":
    run_stage("package.fetch", fetch)
