"""What is packaged: the models that validate chose, with their manifest, as one layer's entries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from common import digest
from common.errors import StageError

from builder.oci.entry import Entry

FOLDER = "models"
MANIFEST = "manifest.json"


def check(servable: Path) -> dict[str, Any]:
    """Return the manifest of the folder `servable`, every model's hash checked.

    Raises StageError where the function would refuse to start: no model, or one that is missing or
    is not what the manifest names.
    """
    try:
        manifest = dict(json.loads((servable / MANIFEST).read_text(encoding="utf-8")))
        wanted = {entry["file"]: entry["sha256"] for entry in manifest["models"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StageError(f"cannot read {servable / MANIFEST}: {error!r}; validate again") from None
    if not wanted:
        raise StageError(f"{servable / MANIFEST} names no model; validate again")
    found = digest.file_hashes(servable)
    for name, expected in wanted.items():
        if found.get(name) != expected.removeprefix("sha256:"):
            raise StageError(
                f"the model {servable / name} has sha256 {found.get(name, '(no such file)')}, "
                f"{MANIFEST} wants {expected}; validate again"
            )
    return manifest


def entries(servable: Path) -> list[Entry]:
    """Return all below `servable` as it goes to /models: root's, 0755 and 0644."""
    found = [Entry(path=FOLDER, kind="dir", mode=0o755)]
    for path in sorted(servable.rglob("*")):
        name = f"{FOLDER}/{path.relative_to(servable).as_posix()}"
        if path.is_dir():
            found.append(Entry(path=name, kind="dir", mode=0o755))
        else:
            found.append(Entry(path=name, kind="file", mode=0o644, content=path))
    return found
