"""Which files of the workspace a recipe may see.

Rules: https://docs.docker.com/build/concepts/context/#dockerignore-files.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Ignore:
    """The patterns of a `.dockerignore` in order, each with whether it lets a path in again."""

    patterns: tuple[tuple[re.Pattern[str], bool], ...] = ()

    @staticmethod
    def parse(text: str) -> Ignore:
        """Read the file's text."""
        found = []
        for raw in text.splitlines():
            line = raw.strip()
            if not line or line.startswith("#"):
                continue
            again = line.startswith("!")
            line = line.removeprefix("!").strip().strip("/")
            if line:
                found.append((glob_pattern(line), again))
        return Ignore(tuple(found))

    @staticmethod
    def load(root: Path) -> Ignore:
        """Read `root/.dockerignore`; without one nothing is left out."""
        path = root / ".dockerignore"
        return Ignore.parse(path.read_text(encoding="utf-8")) if path.exists() else Ignore()

    def hides(self, path: str) -> bool:
        """Tell whether `path`, or a folder it is in, is left out; the last match decides."""
        parts = path.split("/")
        prefixes = ["/".join(parts[: depth + 1]) for depth in range(len(parts))]
        hidden = False
        for pattern, again in self.patterns:
            if hidden == again and any(pattern.fullmatch(prefix) for prefix in prefixes):
                hidden = not again
        return hidden


def glob_pattern(pattern: str) -> re.Pattern[str]:
    """Translate a pattern of Go's filepath.Match, with `**` for any number of folders."""
    out, index = "", 0
    while index < len(pattern):
        char = pattern[index]
        if pattern.startswith("**/", index):
            out += "(?:.*/)?"
            index += 3
            continue
        if pattern.startswith("**", index):
            out += ".*"
            index += 2
            continue
        if char == "*":
            out += "[^/]*"
        elif char == "?":
            out += "[^/]"
        elif char == "[" and "]" in pattern[index:]:
            end = pattern.index("]", index)
            out += "[" + pattern[index + 1 : end].replace("\\", "\\\\") + "]"
            index = end
        elif char == "\\" and index + 1 < len(pattern):
            index += 1
            out += re.escape(pattern[index])
        else:
            out += re.escape(char)
        index += 1
    return re.compile(out)
