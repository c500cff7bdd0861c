"""Which pins are affected by which advisories, and which of those are ignored for a reason."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from builder.errors import BuilderError
from builder.inspect.audit import advisories
from builder.inspect.audit.advisories import Advisory, Affected
from builder.inspect.audit.pins import Pin, canonical_name

IGNORED = "audit-ignore.txt"
COMMAND_LINE = "--ignore"


@dataclass(frozen=True, slots=True)
class Finding:
    """A pin and the advisories that tell of one weakness of it: all its names, the first by order.

    `reason` is why it is ignored; empty where it is not.
    """

    pin: Pin
    names: tuple[str, ...]
    severity: str
    summary: str
    reason: str = ""


def _pypi(version: str) -> Any:
    from packaging.version import Version

    return Version(version)  # PEP 440; InvalidVersion is a ValueError


def _debian(version: str) -> Any:
    from debian.debian_support import Version

    return Version(version)  # deb-version(7); raises ValueError


def find(pins: Sequence[Pin], records: Iterable[Advisory]) -> list[Finding]:
    """Return what is affected, sorted by package; advisories of one weakness are one finding.

    Withdrawn ones do not count. Raises BuilderError for a record about a pinned package whose
    versions cannot be compared.
    """
    by_name: dict[tuple[str, str], list[Pin]] = {}
    for pin in pins:
        by_name.setdefault((pin.ecosystem, pin.name), []).append(pin)
    found: dict[Pin, list[Finding]] = {}
    for record in records:
        if record.withdrawn:
            continue
        for affected in record.affected:
            for pin in _named(by_name, affected):
                order = _pypi if affected.ecosystem == "PyPI" else _debian
                if advisories.affects(affected, pin.version, order, record.where):
                    severity = affected.severity or record.severity
                    new = Finding(pin, record.names, severity, record.summary)
                    found[pin] = _merged([*found.get(pin, ()), new])
    return [f for pin in pins for f in sorted(found.get(pin, ()), key=lambda f: f.names)]


def _named(by_name: Mapping[tuple[str, str], list[Pin]], affected: Affected) -> list[Pin]:
    """Return the pins of the package that is affected; `Debian` alone is every release of it."""
    if affected.ecosystem == "PyPI":
        return by_name.get(("PyPI", canonical_name(affected.name)), [])
    if affected.ecosystem == "Debian":
        return [
            pin
            for (ecosystem, name), pins in by_name.items()
            if ecosystem.startswith("Debian:") and name == affected.name
            for pin in pins
        ]
    return by_name.get((affected.ecosystem, affected.name), [])


def _merged(findings: Sequence[Finding]) -> list[Finding]:
    """Join those of a pin that share a name, directly or through others."""
    joined: list[Finding] = []
    for finding in findings:
        same = [other for other in joined if set(other.names) & set(finding.names)]
        joined = [other for other in joined if other not in same]
        all_of = [*same, finding]
        joined.append(
            replace(
                all_of[0],
                names=tuple(sorted({name for one in all_of for name in one.names})),
                severity=next((one.severity for one in all_of if one.severity), ""),
                summary=next((one.summary for one in all_of if one.summary), ""),
            )
        )
    return joined


def ignored(root: Path, given: Sequence[str]) -> dict[str, str]:
    """Return id -> reason: the lines of `audit-ignore.txt`, `ID reason`, and the ids of `--ignore`.

    Raises BuilderError for a line without a reason.
    """
    path = root / IGNORED
    found = {}
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.partition("#")[0].strip()
        if not line:
            continue
        identity, _, reason = line.partition(" ")
        if not reason.strip():
            raise BuilderError(
                f"{IGNORED}:{number}: {identity} is ignored without a reason; write it after the id"
            )
        found[identity] = reason.strip()
    return found | dict.fromkeys(given, COMMAND_LINE)


def judged(findings: Sequence[Finding], reasons: Mapping[str, str]) -> list[Finding]:
    """Return the findings with the reason of each that one of its names is ignored for."""
    return [
        replace(f, reason=next((reasons[n] for n in f.names if n in reasons), "")) for f in findings
    ]


def unused(findings: Sequence[Finding], reasons: Mapping[str, str]) -> list[str]:
    """Return the ids that are ignored and were not found: they may go."""
    names = {name for finding in findings for name in finding.names}
    return [identity for identity in reasons if identity not in names]
