"""In which line of a package a place stands, such as `comp-inner.make.text`."""

from __future__ import annotations

import re
from collections import deque
from typing import Any

_PART = re.compile(r"[^.\[\]()\s]+")
Keys = dict[str, tuple[int, Any]]


class Lines:
    """The lines of a package's keys. A place is found as far as its parts can be followed."""

    def __init__(self, data: bytes) -> None:
        """`data` is a package that was read already: its depth and aliases are bounded."""
        import yaml

        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        self._documents = list(yaml.compose_all(data, Loader=loader))
        self._known: dict[int, Keys] = {}

    def of(self, where: str) -> int:
        """Return the line, from 1, of the last part of `where` that is there.

        Each part is looked for below the one before, the nearest first.
        """
        line, below = 1, self._keys(*self._documents)
        for part in _PART.findall(where):
            if part in below:
                line, node = below[part]
                below = self._keys(node)
        return line

    def _keys(self, *nodes: Any) -> Keys:
        """Return key -> line and node of all below `nodes`; items of lists go by their number."""
        if len(nodes) == 1 and id(nodes[0]) in self._known:
            return self._known[id(nodes[0])]
        found: Keys = {}
        seen: set[int] = set()
        waiting = deque(nodes)
        while waiting:
            node = waiting.popleft()
            if id(node) in seen or isinstance(node.value, str):
                continue
            seen.add(id(node))
            for index, entry in enumerate(node.value):
                key, inner = entry if isinstance(entry, tuple) else (None, entry)
                name = str(index) if key is None else key.value
                at = (key or inner).start_mark.line + 1
                if isinstance(name, str):
                    found.setdefault(name, (at, inner))
                waiting.append(inner)
        if len(nodes) == 1:
            self._known[id(nodes[0])] = found
        return found
