"""Which files of the workspace a recipe may see.

Rules: https://docs.docker.com/build/concepts/context/#dockerignore-files.
"""

from __future__ import annotations

import posixpath
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from builder.errors import BuilderError

# A class of characters as in Go's filepath.Match: a ] is escaped within it.
_CLASS = re.compile(r"\[(\^?)((?:\\.|[^\\\]])+)\]", re.DOTALL)


def composed(name: str) -> str:
    """Return `name` in Unicode's composed form (NFC), in which names that look alike are equal."""
    return unicodedata.normalize("NFC", name)


@dataclass(frozen=True)
class Rule:
    """One line: its pattern, whether it lets a path in again, and its part before any wildcard."""

    number: int
    text: str
    pattern: re.Pattern[str]
    again: bool
    fixed: str

    @staticmethod
    def parse(number: int, text: str, *, again: bool) -> Rule:
        """Read the pattern `text`; raises BuilderError where it does not end."""
        fixed = re.split(r"[*?\[\\]", text, maxsplit=1)[0]
        return Rule(number, text, glob_pattern(text), again, fixed)

    def matches(self, path: str) -> bool:
        """Tell whether the pattern is of `path` or of a folder that it is in."""
        parts = path.split("/")
        return any(
            self.pattern.fullmatch("/".join(parts[: depth + 1])) for depth in range(len(parts))
        )


@dataclass(frozen=True)
class Ignore:
    """The rules of a `.dockerignore` in order."""

    rules: tuple[Rule, ...] = ()

    @staticmethod
    def parse(text: str) -> Ignore:
        """Read the file's text; a byte order mark at its start does not count.

        Raises BuilderError for a pattern that does not end, with its line.
        """
        found = []
        for number, raw in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
            line = raw.strip()
            if not line or raw.startswith("#"):
                continue
            again = line.startswith("!")
            line = posixpath.normpath(line.removeprefix("!").strip() or ".")
            line = line.lstrip("/")
            if line in ("", "."):
                if again:
                    raise BuilderError(f".dockerignore:{number}: ! stands alone; name a path")
                continue
            try:
                found.append(Rule.parse(number, line, again=again))
            except BuilderError as error:
                raise BuilderError(f".dockerignore:{number}: {error}") from None
        return Ignore(tuple(found))

    @staticmethod
    def load(root: Path) -> Ignore:
        """Read `root/.dockerignore`; without one nothing is left out."""
        path = root / ".dockerignore"
        # File names that are not UTF-8 are held against the rules in the same way.
        data = path.read_bytes() if path.exists() else b""
        return Ignore.parse(data.decode("utf-8", "surrogateescape"))

    def hides(self, path: str) -> bool:
        """Tell whether `path`, or a folder it is in, is left out; the last match decides.

        Raises BuilderError where a rule would decide otherwise if it were typed in the Unicode form
        of the name on the disk: a name that looks like a rule's would silently not be hidden.
        """
        hidden = _hidden(self.rules, path)
        if not path.isascii() and hidden != _hidden(self._composed, composed(path)):
            raise self._looks_alike(path)
        return hidden

    @cached_property
    def _composed(self) -> tuple[Rule, ...]:
        return tuple(Rule.parse(r.number, composed(r.text), again=r.again) for r in self.rules)

    def _looks_alike(self, path: str) -> BuilderError:
        pairs = zip(self.rules, self._composed, strict=True)
        rule = next(r for r, c in pairs if r.matches(path) != c.matches(composed(path)))
        return BuilderError(
            f".dockerignore:{rule.number}: {rule.text!a} looks like a rule for {path!a}, "
            "but their letters are composed in different Unicode forms, so it is none; write the "
            "rule in the form of the file's name, or rename the file"
        )

    def hides_in_seen(self, path: str) -> bool:
        """Tell the same of a path whose folder is not left out: one match, unless a rule is `!`."""
        if not path.isascii() or any(rule.again for rule in self.rules):
            return self.hides(path)
        return self._any.fullmatch(path) is not None

    @cached_property
    def _any(self) -> re.Pattern[str]:
        return re.compile("|".join(f"(?:{r.pattern.pattern})" for r in self.rules) or "(?!)")

    def may_let_in(self, folder: str) -> bool:
        """Tell whether a `!` rule could let something in that is below the hidden `folder`."""
        return _may_let_in(self.rules, folder + "/") or (
            not folder.isascii() and _may_let_in(self._composed, composed(folder) + "/")
        )


def _hidden(rules: Sequence[Rule], path: str) -> bool:
    hidden = False
    for rule in rules:
        if hidden == rule.again and rule.matches(path):
            hidden = not rule.again
    return hidden


def _may_let_in(rules: Sequence[Rule], inside: str) -> bool:
    return any(
        rule.again and (rule.fixed.startswith(inside) or inside.startswith(rule.fixed))
        for rule in rules
    )


def glob_pattern(pattern: str, *, deep: bool = True) -> re.Pattern[str]:
    """Translate a pattern of Go's filepath.Match; `deep` makes `**` any number of folders.

    Matching takes time in proportion to the path, times its folders for each `**` within a name.
    Raises BuilderError for a [ that does not end, a \\ that nothing follows, and more than
    three `**` within names.
    """
    # As in moby/patternmatcher: ** is whole folders, even where no / follows, or all at the end.
    first, *rest = _split(list(_tokens(pattern, deep=deep)), "**")
    out = _names(first)
    loose = 0
    for number, piece in enumerate(rest, 1):
        names = _names(piece)
        if number == len(rest):
            out += f"(?:.*/)?{names}" if piece else ".*"
        elif not piece:
            continue  # **/** is **
        elif piece[-1] == "/" or not any(rest[number:]):
            # Where it fits first is as good as any place: what follows may begin at each later one.
            out += f"(?>(?:.*?/)??{names})"
        else:
            loose += 1
            out += f"(?:.*/)?{names}"
    if loose > 3:
        raise BuilderError(f"{pattern!r} has too many ** within names; write * there")
    try:
        return re.compile(out, re.DOTALL)
    except (re.error, OverflowError) as error:
        raise BuilderError(f"{pattern!r} is not a pattern ({error})") from None


def _tokens(pattern: str, *, deep: bool) -> Iterator[str]:
    """Yield `**`, `*`, `/`, and regular expressions of one character each."""
    index = 0
    while index < len(pattern):
        char = pattern[index]
        if deep and pattern.startswith("**", index):
            index += 3 if pattern.startswith("**/", index) else 2
            yield "**"
            continue
        if char in "*/":
            yield char
        elif char == "?":
            yield "[^/]"
        elif char == "[":
            found = _CLASS.match(pattern, index)
            if not found:
                raise BuilderError(f"in {pattern!r} a [ does not end; write \\[ for the character")
            yield "[" + found[1] + re.sub(r"([\[&~|])", r"\\\1", found[2]) + "]"
            index = found.end() - 1
        elif char == "\\":
            index += 1
            if index == len(pattern):
                raise BuilderError(f"{pattern!r} ends with \\; write \\\\ for the character")
            if deep and pattern[index].isalnum():
                # Docker reads that as a regular expression, of which it refuses most.
                raise BuilderError(
                    f"in {pattern!r} \\ stands before {pattern[index]!r}; leave the \\ out"
                )
            yield re.escape(pattern[index])
        else:
            yield re.escape(char)
        index += 1


def _names(tokens: Sequence[str]) -> str:
    """Return the regular expression of what has no `**`.

    Between two * of a name, where the text fits first is as good as any later place, so there is
    nothing to come back to: a name of many * takes no longer than one of one.
    """
    return "/".join(map(_name, _split(tokens, "/")))


def _name(tokens: Sequence[str]) -> str:
    first, *rest = ("".join(text) for text in _split(tokens, "*"))
    if not rest:
        return first
    return first + "".join(f"(?>[^/]*?{text})" for text in rest[:-1] if text) + f"[^/]*{rest[-1]}"


def _split(tokens: Sequence[str], at: str) -> list[list[str]]:
    found: list[list[str]] = [[]]
    for token in tokens:
        if token == at:
            found.append([])
        else:
            found[-1].append(token)
    return found
