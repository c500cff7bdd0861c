"""Which files of the workspace a recipe may see.

Rules: https://docs.docker.com/build/concepts/context/#dockerignore-files.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path


@dataclass(frozen=True)
class Rule:
    """One line: its pattern, whether it lets a path in again, and its part before any wildcard."""

    pattern: re.Pattern[str]
    again: bool
    fixed: str


@dataclass(frozen=True)
class Ignore:
    """The rules of a `.dockerignore` in order."""

    rules: tuple[Rule, ...] = ()

    @staticmethod
    def parse(text: str) -> Ignore:
        """Read the file's text."""
        found = []
        for raw in text.splitlines():
            line = raw.strip()
            if not line or line.startswith("#"):
                continue
            again = line.startswith("!")
            line = posixpath.normpath("/" + line.removeprefix("!").strip()).strip("/")
            if line:
                fixed = re.split(r"[*?\[\\]", line, maxsplit=1)[0]
                found.append(Rule(glob_pattern(line), again, fixed))
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
        for rule in self.rules:
            if hidden == rule.again and any(rule.pattern.fullmatch(p) for p in prefixes):
                hidden = not rule.again
        return hidden

    def hides_in_seen(self, path: str) -> bool:
        """Tell the same of a path whose folder is not left out: one match, unless a rule is `!`."""
        if any(rule.again for rule in self.rules):
            return self.hides(path)
        return self._any.fullmatch(path) is not None

    @cached_property
    def _any(self) -> re.Pattern[str]:
        return re.compile("|".join(f"(?:{r.pattern.pattern})" for r in self.rules) or "(?!)")

    def may_let_in(self, folder: str) -> bool:
        """Tell whether a `!` rule could let something in that is below the hidden `folder`."""
        inside = folder + "/"
        return any(
            rule.again and (rule.fixed.startswith(inside) or inside.startswith(rule.fixed))
            for rule in self.rules
        )


def glob_pattern(pattern: str, *, deep: bool = True) -> re.Pattern[str]:
    """Translate a pattern of Go's filepath.Match; `deep` makes `**` any number of folders."""
    out, index = "", 0
    while index < len(pattern):
        char = pattern[index]
        if deep and pattern.startswith("**/", index):
            out += "(?:.*/)?"
            index += 3
            continue
        if deep and pattern.startswith("**", index):
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
