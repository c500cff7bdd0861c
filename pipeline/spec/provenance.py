"""What made a package: the commit, each image's key and digest, the lock files and their packages.

It stands as one line of JSON in a comment at the head of the package, where Kubeflow Pipelines
ignores it, and is part of the package's digest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from builder.oci import canonical
from pipeline.errors import PipelineError
from pipeline.spec.documents import load_json

_MARK = "# made from: "


@dataclass(frozen=True)
class Provenance:
    """`commit` is empty outside of a git checkout; `images` has name -> key, digest, layers (what
    made one -> its digest); `locks` has path -> sha256, packages (name -> version)."""

    commit: str
    dirty: bool
    images: Mapping[str, Mapping[str, Any]]
    locks: Mapping[str, Mapping[str, Any]]

    def line(self) -> str:
        """Return the comment that carries it."""
        return _MARK + canonical.dumps(asdict(self)).decode()


def read(package: bytes) -> dict[str, Any]:
    """Return what a package says of its making; raises PipelineError where it says nothing."""
    first = package.split(b"\n", 1)[0].decode(errors="replace")
    if not first.startswith(_MARK):
        raise PipelineError(
            "the package does not say what it was made from; it was not made by `invoke compile`"
        )
    found = load_json(first.removeprefix(_MARK), "the package's line on its making")
    if not isinstance(found, dict):
        raise PipelineError("the package's line on its making is damaged; get the package again")
    return found
