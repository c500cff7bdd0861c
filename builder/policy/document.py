"""The policy file: which rules there are, and the exceptions from each with their reasons.

Format: docs/policy.md. A table that is left out asks for nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

from builder import toml
from builder.errors import BuilderError
from builder.oci.reference import Reference
from builder.signing.keys import PublicKey, read_public
from builder.toml import Table

RULES = ("signatures", "bases", "advisories", "licences", "tests")


@dataclass(frozen=True, slots=True)
class Policy:
    """What is asked for; a rule that is not in `rules` is not.

    `keys` are those whose signatures and statements count, of which `at_least` must have signed.
    `bases` are names of images, with or without a digest; `licences` SPDX ids, some WITH an
    exception; `advisories` a file of OSV records. `exceptions` has for a rule what it does not
    hold for: an image, a package or an advisory, and the reason.
    """

    path: Path
    rules: frozenset[str]
    keys: tuple[PublicKey, ...] = ()
    at_least: int = 0
    bases: tuple[str, ...] = ()
    advisories: Path = Path()
    licences: frozenset[str] = frozenset()
    exceptions: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def read(path: Path) -> Policy:
    """Read a policy; raises BuilderError that names what is wrong in it, with its line.

    Paths in it are relative to its folder.
    """
    root = toml.read(path, "--policy")
    root.known(*RULES)
    rules = frozenset(root.content)
    if not rules:
        raise BuilderError(f"{path} asks for nothing; write one of {', '.join(RULES)}")
    tables = {rule: root.table(rule) for rule in RULES}
    keys, at_least = _signatures(tables["signatures"], path) if "signatures" in rules else ((), 0)
    tables["bases"].known("allowed")
    return Policy(
        path=path,
        rules=rules,
        keys=keys,
        at_least=at_least,
        bases=tables["bases"].texts("allowed", _base),
        advisories=_advisories(tables["advisories"], path) if "advisories" in rules else Path(),
        licences=_licences(tables["licences"]) if "licences" in rules else frozenset(),
        exceptions={rule: _exceptions(tables[rule]) for rule in rules - {"bases"}}
        | ({} if "tests" not in rules else {"tests": _tests(tables["tests"])}),
    )


def _signatures(table: Table, path: Path) -> tuple[tuple[PublicKey, ...], int]:
    table.known("keys", "at-least", "except")
    names = table.texts("keys", lambda name: read_public(path.parent / name))
    if not names:
        raise table.fail("keys", "must name a public key at least: the files of those that count")
    keys = tuple(
        {key.id: key for name in names for key in [read_public(path.parent / name)]}.values()
    )
    least = table.content.get("at-least", len(keys))
    if isinstance(least, bool) or not isinstance(least, int) or not 1 <= least <= len(keys):
        raise table.fail(
            "at-least", f"must be a whole number from 1 to {len(keys)}, the keys named"
        )
    return keys, least


def _base(text: str) -> None:
    if Reference.parse(text).tag:
        raise BuilderError(f"{text!r} has a tag, which can move; name it by @sha256:… or without")


def _advisories(table: Table, path: Path) -> Path:
    table.known("file", "except")
    name = table.text_of("file", lambda _: None)
    if not name:
        raise table.fail("file", "must name a file, zip or folder of OSV records")
    return path.parent / name


def _licences(table: Table) -> frozenset[str]:
    table.known("allowed", "except")
    names = table.texts("allowed", _licence)
    if not names:
        raise table.fail("allowed", "must name a licence at least, as SPDX spells it")
    return frozenset(map(_licence, names))


def _licence(text: str) -> str:
    """Return one licence in its one spelling; raises BuilderError for what SPDX does not know."""
    try:
        found = str(canonicalize_license_expression(text))
    except InvalidLicenseExpression:
        raise BuilderError(
            f"{text!r} is no licence of SPDX; see https://spdx.org/licenses/"
        ) from None
    if {"AND", "OR"} & {*found.split()}:
        raise BuilderError(f"{text!r} is several licences; list each by itself")
    return found


def _tests(table: Table) -> Mapping[str, str]:
    table.known("passed", "except")
    if table.content.get("passed") is not True:
        raise table.fail("passed", "must be true; leave the table out where tests do not matter")
    return _exceptions(table)


def _exceptions(table: Table) -> Mapping[str, str]:
    inner = table.table("except")
    for name in inner.content:
        if not inner.text_of(name, lambda _: None).strip():
            raise inner.fail(name, "needs a reason")
    return dict(inner.content)
