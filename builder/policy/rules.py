"""Evidence against a policy: each breach names the image, the package and the rule. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from license_expression import AND, OR, ExpressionError, LicenseWithExceptionSymbol, Licensing
from packaging.version import InvalidVersion, Version

from builder.errors import BuilderError
from builder.inspect.audit import findings, pins
from builder.inspect.audit.advisories import Advisory
from builder.inspect.audit.pins import Pin
from builder.inspect.bill.part import UNKNOWN, Part
from builder.oci.reference import Reference
from builder.packages.lock_file import normalized
from builder.policy.document import Policy
from builder.policy.evidence import Evidence


@dataclass(frozen=True, slots=True, order=True)
class Breach:
    """What is not as the policy asks: `package` is empty where the image as a whole is meant."""

    image: str
    rule: str
    package: str
    why: str


def lines(breaches: Iterable[Breach]) -> list[str]:
    """Return breaches in sentences; what is wrong with several images alike is said once."""
    together: dict[tuple[str, str, str], list[str]] = {}
    for breach in breaches:
        key = (breach.rule, breach.package, breach.why)
        together.setdefault(key, []).append(_short(breach.image))
    return [_line(*key, images) for key, images in sorted(together.items())]


def _line(rule: str, package: str, why: str, images: Sequence[str]) -> str:
    where = f"image {', '.join(images)}" + (f", package {package}" if package else "")
    # A bill of materials comes from elsewhere: its words must not move a terminal's cursor.
    return "".join(c if c.isprintable() else "?" for c in f"{where}, rule {rule}: {why}")


def _short(image: str) -> str:
    name, _, digest = image.partition("@")
    return f"{name.rpartition('/')[2]}@{digest[:19]}" if digest else image


def judge(
    policy: Policy, images: Sequence[Evidence], records: Sequence[Advisory] = ()
) -> list[Breach]:
    """Return the breaches of `policy`, sorted; `records` are those of its file of advisories.

    A check that cannot be made is a breach. Raises BuilderError for a record about one of the
    packages whose versions cannot be compared.
    """
    rules: Mapping[str, Callable[[Policy, Evidence], Iterator[Breach]]] = {
        "signatures": _signatures,
        "bases": _bases,
        "licences": _licences,
        "tests": _tests,
        "advisories": partial(_advisories, records=records),
    }
    found = {
        breach
        for rule, check in rules.items()
        if rule in policy.rules
        for image in images
        if not {image.image, image.image.partition("@")[0]} & {*policy.exceptions.get(rule, {})}
        for breach in check(policy, image)
    }
    if "advisories" in policy.rules and not records:
        why = f"{policy.advisories} has no advisory"
        found |= {Breach(image.image, "advisories", "", why) for image in images}
    return sorted(found)


def _signatures(policy: Policy, image: Evidence) -> Iterator[Breach]:
    made = [key for key in policy.keys if key in image.signers]
    if len(made) < policy.at_least:
        names = " and ".join(key.name for key in made) or "none"
        asked = ", ".join(map(str, policy.keys))
        why = f"{policy.at_least} of {asked} must have signed it; {names} did"
        if problem := image.problems.get("signatures"):
            why = f"its signatures cannot be read: {problem}"
        yield Breach(image.image, "signatures", "", why)


def _tests(_: Policy, image: Evidence) -> Iterator[Breach]:
    if not image.tested:
        problem = image.problems.get("tests")
        why = f"no test result can be read: {problem}" if problem else (
            "nobody whose word counts says that its tests passed; run `invoke test-stage`"
        )  # fmt: skip
        yield Breach(image.image, "tests", "", why)


def _known(image: Evidence, rule: str) -> Iterator[Breach]:
    """Yield the breach that nobody says what an image is made of."""
    if image.parts is None:
        why = image.problems.get("parts") or "no key whose word counts signed one"
        yield Breach(image.image, rule, "", f"there is no bill of materials to check: {why}")


def _bases(policy: Policy, image: Evidence) -> Iterator[Breach]:
    yield from _known(image, "bases")
    for part in image.parts or ():
        if part.kind != "image":
            continue
        where = dict(part.qualifiers).get("repository_url", part.name)
        names = {where, f"{where}@{part.version}"}
        allowed = {_name(Reference.parse(base)) for base in policy.bases}
        if not names & allowed:
            why = "it stands on a base image that the policy does not allow"
            yield Breach(image.image, "bases", f"{where}@{part.version}", why)


def _name(base: Reference) -> str:
    name = f"{base.host}/{base.repository}"
    return f"{name}@{base.digest}" if base.digest else name


def _licences(policy: Policy, image: Evidence) -> Iterator[Breach]:
    yield from _known(image, "licences")
    for part in image.parts or ():
        shown = f"{part.name} {part.version}".strip()
        if part.kind in ("system", "recipe") or _excepted(part, policy.exceptions["licences"]):
            continue
        if part.licence in ("", UNKNOWN):
            yield Breach(image.image, "licences", shown, f"its licence is not known ({UNKNOWN})")
        elif not allowed(part.licence, policy.licences):
            why = f"{part.licence} is not allowed"
            yield Breach(image.image, "licences", shown, why)


def allowed(expression: str, licences: Iterable[str]) -> bool:
    """Tell whether one may use what is under an SPDX expression, under `licences` alone.

    Of alternatives one is enough; an exception (WITH) gives more rights than the licence alone.
    """
    known = frozenset(licences)

    def holds(node: Any) -> bool:
        if isinstance(node, AND):
            return all(map(holds, node.args))
        if isinstance(node, OR):
            return any(map(holds, node.args))
        if isinstance(node, LicenseWithExceptionSymbol):
            return str(node) in known or node.license_symbol.key in known
        return getattr(node, "key", None) in known  # there is no node for nothing

    try:
        return holds(Licensing().parse(expression))
    except (ExpressionError, ValueError):
        return False


def _advisories(policy: Policy, image: Evidence, records: Sequence[Advisory]) -> Iterator[Breach]:
    yield from _known(image, "advisories")
    ignored = policy.exceptions["advisories"]
    ecosystems = {affected.ecosystem.partition(":")[0] for r in records for affected in r.affected}
    found = []
    for part in image.parts or ():
        if part.kind not in ("deb", "wheel", "image") or _excepted(part, ignored):
            continue
        shown = f"{part.name} {part.version}"
        try:
            pin = _pin(part)
            found.append(pin)
        except BuilderError as error:
            yield Breach(image.image, "advisories", shown, str(error))
            continue
        ecosystem = pin.ecosystem.partition(":")[0]
        if ecosystem not in ecosystems and records:
            why = f"{policy.advisories} has no advisory about anything of {ecosystem}"
            yield Breach(image.image, "advisories", shown, why)
    for finding in findings.judged(findings.find(found, records), ignored):
        if not finding.reason:
            shown = f"{finding.pin.package} {finding.pin.version}"
            why = f"{' '.join(finding.names)}, severity {finding.severity or 'unknown'}"
            yield Breach(image.image, "advisories", shown, why)


def _excepted(part: Part, exceptions: Mapping[str, str]) -> bool:
    """Tell whether a package is excepted, in every version or in this one."""
    return part.name in exceptions or f"{part.name} {part.version}" in exceptions


def _pin(part: Part) -> Pin:
    """Return a part as advisories name it; raises BuilderError where that cannot be told."""
    if part.kind == "image":
        raise BuilderError("what is in this base image is not known")
    qualifiers = dict(part.qualifiers)
    try:
        if part.kind == "wheel":
            name = normalized(part.name)
            return Pin("PyPI", name, name, str(Version(part.version)), part.sha256)
        number = int(qualifiers.get("distro", "").removeprefix("debian-"))
        source = qualifiers.get("upstream", part.name)
        return pins.deb(part.name, source, part.version, number, part.sha256)
    except (InvalidVersion, ValueError):
        raise BuilderError("its version or release has no form that advisories know") from None
