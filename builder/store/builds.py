"""The last build of each target in each checkout: what `explain` compares with and `gc` keeps.

An entry of the store's results like any other; what the image was made of is a blob beside it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from builder import oci
from builder.errors import BuilderError
from builder.oci import canonical
from builder.store import Store


def remember(store: Store, root: Path, name: str, image: str, record: Mapping[str, Any]) -> None:
    """Keep that the target `name` of the workspace at `root` became `image`, made as `record` says.

    `image` is the manifest's digest, `record` what `ImagePlan.record` returns. Nothing is written
    where that is known already.
    """
    entry = _entry(store, root, name)
    if entry and entry["key"] == record["key"] and entry["image"] == image and _whole(store, entry):
        return
    blob = store.add(canonical.dumps(record))
    document = {"root": str(root.resolve()), "target": name, "key": record["key"], "image": image,
                "record": blob.digest, "size": blob.size}  # fmt: skip
    store.put_result(_key(root, name), {"last": document})


def record(store: Store, root: Path, name: str) -> dict[str, Any] | None:
    """Return what the last build of a target was made of, or None; damage counts as none."""
    entry = _entry(store, root, name)
    try:
        found: dict[str, Any] | None = json.loads(store.read(entry["record"])) if entry else None
    except BuilderError:
        return None
    return found


def _whole(store: Store, entry: Mapping[str, Any]) -> bool:
    record = oci.Descriptor(media_type="", digest=entry["record"], size=entry.get("size", -1))
    return store.has(record)


def _entry(store: Store, root: Path, name: str) -> dict[str, Any] | None:
    found = store.get_result(_key(root, name))
    return found["last"] if found else None


def _key(root: Path, name: str) -> str:
    action = {"last build of": name, "in": str(root.resolve())}
    return canonical.sha256(canonical.dumps(action)).removeprefix("sha256:")
