"""Advisories as OSV.dev exports them, read from a file, an archive or a folder.

Format: https://ossf.github.io/osv-schema/ (1.7). Which versions are affected is decided by its
section "Evaluation". Nothing is asked of a network.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.errors import BuilderError

# A record has some kilobytes; a list of all of PyPI's has less than 200 MB.
_MOST_BYTES = 1 << 30
_EVENTS = ("introduced", "fixed", "last_affected", "limit")


@dataclass(frozen=True, slots=True)
class Range:
    """The events of a range in the record's order: each a kind and a version ("0": before all)."""

    kind: str
    events: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Affected:
    """What an advisory says of one package: whole ranges, and versions by name."""

    ecosystem: str
    name: str
    ranges: tuple[Range, ...]
    versions: tuple[str, ...]
    severity: str


@dataclass(frozen=True, slots=True)
class Advisory:
    """One record. `names` are its id and aliases, its own first; `where` is its file."""

    names: tuple[str, ...]
    summary: str
    severity: str
    modified: str
    withdrawn: bool
    affected: tuple[Affected, ...]
    where: str


def read(path: Path) -> Iterator[Advisory]:
    """Yield the records of a JSON file (one, a list, or an answer of OSV's API), zip or folder.

    Raises BuilderError, naming the file, for what is none or has another form than OSV's.
    """
    if path.is_dir():
        for inner in sorted(path.rglob("*.json")):
            yield from _records(_bytes(inner), str(inner))
        return
    data = _bytes(path)
    if data[:4] == b"PK\x03\x04":
        yield from _zipped(path)
    else:
        yield from _records(data, str(path))


def _bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            data = stream.read(_MOST_BYTES + 1)
    except OSError as error:
        raise BuilderError(
            f"the advisories {path} cannot be read ({error.strerror}); give a file, zip or folder "
            "of OSV records"
        ) from None
    if len(data) > _MOST_BYTES:
        raise BuilderError(f"{path} has more than {_MOST_BYTES >> 20} MiB; give a smaller part")
    return data


def _zipped(path: Path) -> Iterator[Advisory]:
    left = _MOST_BYTES
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if info.filename.endswith(".json"):
                    with archive.open(info) as stream:
                        data = stream.read(left + 1)
                    left -= len(data)
                    if left < 0:
                        raise BuilderError(
                            f"{path} unpacks to more than {_MOST_BYTES >> 20} MiB; give a smaller "
                            "part"
                        )
                    yield from _records(data, f"{path}: {info.filename}")
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, EOFError) as error:
        raise BuilderError(f"{path} cannot be unpacked ({error}); copy it again") from None


def _records(data: bytes, where: str) -> Iterator[Advisory]:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BuilderError(
            f"{where}: not JSON ({error}); give records as OSV.dev has them"
        ) from None
    if isinstance(document, dict) and "vulns" in document and "id" not in document:
        document = document["vulns"]
    for entry in document if isinstance(document, list) else [document]:
        yield _advisory(entry, where)


def _advisory(entry: Any, where: str) -> Advisory:
    identity = entry.get("id") if isinstance(entry, dict) else None
    if not isinstance(identity, str) or not identity:
        raise BuilderError(f"{where}: a record without an id is no OSV record; take it out")
    where = f"{where}: {identity}"
    aliases = _list(entry, "aliases", str, where) + _list(entry, "upstream", str, where)
    return Advisory(
        names=tuple(dict.fromkeys([identity, *aliases])),
        summary=_text(entry, "summary", where) or _text(entry, "details", where).partition("\n")[0],
        severity=_severity(entry, where),
        modified=_text(entry, "modified", where),
        withdrawn=bool(entry.get("withdrawn")),
        affected=tuple(_affected(a, where) for a in _list(entry, "affected", dict, where)),
        where=where,
    )


def _affected(entry: dict[str, Any], where: str) -> Affected:
    package = entry.get("package") or {}  # none where only a repository's commits are named
    if not isinstance(package, dict):
        raise _malformed(where, "package")
    return Affected(
        ecosystem=_text(package, "ecosystem", where),
        name=_text(package, "name", where),
        ranges=tuple(_range(r, where) for r in _list(entry, "ranges", dict, where)),
        versions=tuple(_list(entry, "versions", str, where)),
        severity=_severity(entry, where),
    )


def _range(entry: dict[str, Any], where: str) -> Range:
    events = []
    for event in _list(entry, "events", dict, where):
        known = [(kind, event[kind]) for kind in _EVENTS if kind in event]
        if len(known) != 1 or not isinstance(known[0][1], str):
            raise _malformed(where, "events")
        events += known
    if not any(kind == "introduced" for kind, _ in events):
        raise _malformed(where, "events (none of them is `introduced`)")
    return Range(_text(entry, "type", where), tuple(events))


def _severity(entry: dict[str, Any], where: str) -> str:
    """Return a word such as HIGH where the record has one, or else the newest CVSS vector."""
    for member, name in (("database_specific", "severity"), ("ecosystem_specific", "urgency")):
        inner = entry.get(member) or {}
        if isinstance(inner, dict) and isinstance(word := inner.get(name), str) and word:
            return word.upper()
    scores = _list(entry, "severity", dict, where)
    known = sorted((str(s.get("type", "")), str(s.get("score", ""))) for s in scores)
    return known[-1][1] if known else ""


def _list(entry: Mapping[str, Any], member: str, kind: type, where: str) -> list[Any]:
    found = entry.get(member)
    if found is None:
        return []
    if not isinstance(found, list) or not all(isinstance(inner, kind) for inner in found):
        raise _malformed(where, member)
    return found


def _text(entry: Mapping[str, Any], member: str, where: str) -> str:
    found = entry.get(member)
    if found is not None and not isinstance(found, str):
        raise _malformed(where, member)
    return found or ""


def _malformed(where: str, member: str) -> BuilderError:
    return BuilderError(
        f"{where}: its {member} are not of OSV's form; take the record out or mend it"
    )


Order = Callable[[str], Any]


def affects(affected: Affected, version: str, order: Order, where: str) -> bool:
    """Tell whether `version` is affected; `order` gives what versions are compared by.

    Ranges of commits say nothing of a version. Raises BuilderError, naming the record, for a
    version in a range that `order` refuses by ValueError.
    """
    own = order(version)
    for named in affected.versions:
        try:
            if named == version or order(named) == own:
                return True
        except ValueError:
            continue  # another form of a version: it is not ours, since ours is well-formed
    try:
        return any(_within(r, own, order) for r in affected.ranges if r.kind != "GIT")
    except ValueError as error:
        raise BuilderError(
            f"{where}: a version of {affected.name} cannot be compared ({error}); take the record "
            "out or mend it"
        ) from None


def _within(found: Range, own: Any, order: Order) -> bool:
    """Walk through the events in the order of their versions, as the specification does.

    At one version, what begins comes after what ends: {fixed: 2}, {introduced: 2} affects 2.
    """
    events = [
        ((0, 0) if kind == "introduced" and version == "0" else (1, order(version)), kind)
        for kind, version in found.events
        if (kind, version) != ("limit", "*")
    ]
    events.sort(key=lambda event: (event[0], event[1] == "introduced"))
    affected = False
    for (known, at), kind in events:
        reached = not known or own >= at
        if kind == "introduced" and reached:
            affected = True
        elif (kind in ("fixed", "limit") and reached) or (kind == "last_affected" and own > at):
            affected = False
    return affected
