"""What a layer will be made of, known before it is made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from builder.oci.entry import Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerPlan:
    """One layer to be: `inputs` is all it depends on (JSON; it makes the key), `entries` makes it.

    `entries` may download, unpack and compile; it is called only where no result is known. `name`
    is for people, and so is `files`: what comes from the workspace, path in the image -> file.
    """

    name: str
    inputs: Mapping[str, Any]
    entries: Callable[[], Iterable[Entry]]
    files: Mapping[str, Path] = field(default_factory=dict)
