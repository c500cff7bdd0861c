"""A fault of a package, and how its parts are walked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Found = Iterator["Finding"]


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """A fault or a note: the rule, the place in the package, and a message that holds the way out.

    `line` is that of the place in the package's file, from 1.
    """

    where: str
    rule: str
    message: str
    line: int = field(default=0, compare=False)

    def __str__(self) -> str:
        return f"{self.where}: {self.message} [{self.rule}]"


def declared(component: Mapping[str, Any], side: str, kind: str) -> Mapping[str, Any]:
    """Return name -> definition of a component; `side` is inputs or outputs, `kind` parameters
    or artifacts."""
    found: Mapping[str, Any] = component.get(f"{side[:-1]}Definitions", {}).get(kind, {})
    return found


def texts(node: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield the place and the text of every string below `node`, keys included."""
    if isinstance(node, str):
        yield path, node
    elif isinstance(node, Mapping):
        for key, inner in node.items():
            yield from texts(key, path)
            yield from texts(inner, f"{path}.{key}" if path else key)
    elif isinstance(node, list):
        for index, inner in enumerate(node):
            yield from texts(inner, f"{path}[{index}]")
