"""The driver and the launcher, brought by the user: a file, or an image by digest that holds it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from builder import oci
from builder.errors import BuilderError
from builder.oci.reference import Reference
from builder.sandbox import unpack
from builder.store import Store
from pipeline.errors import PipelineError
from pipeline.run import beneath

VERSION = "2.17"  # of the backend whose options and workflow this room knows


@dataclass(frozen=True, slots=True)
class Programs:
    """KFP's two programs, as files of this machine."""

    driver: Path
    launcher: Path


def bring(driver: str, launcher: str, store: Store, pull: Callable[[str], oci.Image]) -> Programs:
    """Return the programs that the options `--driver` and `--launcher` name.

    An image is pulled, its blobs checked, and its entry point is the program, as in KFP's images.
    Raises PipelineError where an option is missing, or names nothing that can be executed.
    """
    found = {}
    for option, given in (("driver", driver), ("launcher", launcher)):
        if not given:
            raise PipelineError(
                f"the engine kfp needs KFP's own {option}; give --{option} with a file, or with "
                f"KFP's image by digest (HOST/…/kfp-{option}@sha256:…, version {VERSION})"
            )
        path = _from_image(given, store, pull) if "@sha256:" in given else Path(given).resolve()
        if not (path.is_file() and os.access(path, os.X_OK)):
            raise PipelineError(
                f"--{option} {given}: {path} is not a program; name KFP's own, or its image by "
                "digest"
            )
        found[option] = path
    return Programs(**found)


def _from_image(given: str, store: Store, pull: Callable[[str], oci.Image]) -> Path:
    reference = Reference.parse(given)
    try:
        image = store.image(reference.digest)
        folder = unpack.whole(store, image)
    except BuilderError:
        image = pull(given)
        folder = unpack.whole(store, image)
    words = image.config.get("config", {}).get("Entrypoint") or []
    path = str(words[0]).strip("/") if words else ""
    if not path or beneath.kind(folder, path) != "file":
        raise PipelineError(
            f"the image {given} has no program as its entry point; name the one of KFP's "
            "driver or launcher"
        )
    return folder / path
