"""What made a package: the commit, each image's key and digest, the lock files and their packages.

It is one line of JSON at the end of the pipeline's own description. So it is part of the package's
digest, and an API server gives it back with every version and run, while it drops comments.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from builder.oci import canonical
from pipeline.errors import PipelineError
from pipeline.spec.documents import load_json, load_yaml

_MARK = "made from: "


@dataclass(frozen=True)
class Provenance:
    """`commit` is empty outside of a git checkout; `images` has name -> key, digest, layers (what
    made one -> its digest); `locks` has path -> sha256, packages (name -> version)."""

    commit: str
    dirty: bool
    images: Mapping[str, Mapping[str, Any]]
    locks: Mapping[str, Mapping[str, Any]]

    def described(self, text: str) -> str:
        """Return a pipeline's description that begins with `text` and carries this."""
        return f"{text}\n\n{_MARK}{canonical.dumps(asdict(self)).decode()}"


def redescribed(description: str, made: Mapping[str, Any]) -> str:
    """Return a description that says `made`, as `read` returns it, in the place of what it said."""
    text, mark, _ = description.rpartition(_MARK)
    return f"{text}{mark}{canonical.dumps(made).decode()}"


def read(package: bytes) -> dict[str, Any]:
    """Return what a package says of its making; raises PipelineError where it says nothing.

    `package` is the file, or what an API server gives of a version or of a run, as JSON or YAML.
    """
    documents = load_yaml(package, "the package")
    document: Any = documents[0] if documents else None
    while isinstance(document, dict) and "pipeline_spec" in document:
        document = document["pipeline_spec"]
    info = document.get("pipelineInfo") if isinstance(document, dict) else None
    description = info.get("description") if isinstance(info, dict) else None
    _, mark, line = str(description or "").rpartition(_MARK)
    if not mark:
        raise PipelineError(
            "the package does not say what it was made from; it was not made by `invoke compile`"
        )
    found = load_json(line, "the package's line on its making")
    if not isinstance(found, dict) or not found.keys() >= {"commit", "dirty", "images", "locks"}:
        raise PipelineError("the package's line on its making is damaged; get the package again")
    return found
