"""A TOML file that people write: what is wrong in it is named with its line."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.errors import BuilderError

_MOST_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the file, and where it stands; `error` is what is raised for a wrong one."""

    path: Path
    text: str
    keys: tuple[str, ...]
    content: Mapping[str, Any]
    error: type[Exception] = BuilderError

    def fail(self, key: str, why: str) -> Exception:
        """Return the error about a key of this table, or about the table itself."""
        keys = (*self.keys, key) if key else self.keys
        return self.error(f"{self.path}, line {line(self.text, keys)}: {'.'.join(keys)} {why}")

    def known(self, *allowed: str) -> None:
        """Refuse keys other than `allowed`."""
        for key in self.content:
            if key not in allowed:
                close = difflib.get_close_matches(key, allowed, n=1)
                meant = f"did you mean {close[0]}?" if close else f"there are {', '.join(allowed)}"
                raise self.fail(key, f"is no setting; {meant}")

    def table(self, key: str) -> Table:
        """Return the table `key`, an empty one where it is not there."""
        found = self.content.get(key, {})
        if not isinstance(found, dict):
            raise self.fail(key, "must be a table")
        return Table(self.path, self.text, (*self.keys, key), found, self.error)

    def text_of(self, key: str, check: Callable[[str], object], default: str = "") -> str:
        """Return a text; `check` raises `error` for one that does not fit."""
        found = self.content.get(key, default)
        if not isinstance(found, str):
            raise self.fail(key, f"must be text, not {found!r}")
        if key in self.content:
            self._fits(key, found, check)
        return found

    def texts(self, key: str, check: Callable[[str], object]) -> tuple[str, ...]:
        """Return a list of texts, each of which fits as in `text_of`."""
        found = self.content.get(key, [])
        if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
            raise self.fail(key, "must be a list of texts")
        for one in found:
            self._fits(key, one, check)
        return tuple(found)

    def _fits(self, key: str, found: str, check: Callable[[str], object]) -> None:
        try:
            check(found)
        except self.error as error:
            raise self.fail(key, f"does not fit: {error}") from None


def read(path: Path, option: str, error: type[Exception] = BuilderError) -> Table:
    """Return the whole file as a table; `option` is how a person names it.

    Raises `error` for a file that cannot be read, is too large, or is no TOML.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise error(f"{path} has more than {_MOST_BYTES >> 20} MiB; make it smaller")
        text = data.decode("utf-8-sig")
        return Table(path, text, (), tomllib.loads(text), error)
    except OSError as why:
        raise error(f"cannot read {path} ({why.strerror}); correct {option}") from None
    except (ValueError, RecursionError) as why:
        raise error(f"{path} is not TOML ({why}); correct it") from None


def line(text: str, keys: tuple[str, ...]) -> int:
    """Return the line on which `keys` stands in a TOML file, or what holds it; 1 without any."""
    current: tuple[str, ...] = ()
    best, found = 0, 1
    for number, written in enumerate(text.splitlines(), 1):
        head = re.match(r"\s*\[\[?([^\[\]]+)\]", written)
        assigned = re.match(r"\s*([\w\"'.-][^=]*?)\s*=", written)
        if head:
            current = here = _key(head[1])
        elif assigned:
            here = current + _key(assigned[1])
        else:
            continue
        if len(here) > best and keys[: len(here)] == here:
            best, found = len(here), number
    return found


def _key(text: str) -> tuple[str, ...]:
    """Return the parts of a dotted key, without quotes."""
    parts = re.findall(r"\"([^\"]*)\"|'([^']*)'|([\w-]+)", text)
    return tuple(next(filter(None, part), "") for part in parts)
