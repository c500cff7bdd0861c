"""The task that holds the locks against advisories."""

from __future__ import annotations

import datetime
from pathlib import Path

from cli.command import command
from cli.output import JSON_HELP, ROOT, facts, say, table


@command(
    help={
        "advisories": "OSV records: a JSON file, or a zip or folder of them as OSV.dev exports",
        "variants": "variants of targets whose locks count as well, for example train-cuda12",
        "ignore": "an advisory's id that does not count; audit-ignore.txt has others with reasons",
        "json": JSON_HELP,
    },
    repeated=["ignore"],
)
def audit(advisories: str, ignore: list[str], variants: str = "", json: bool = False) -> None:
    """Hold the locks against advisories, and show how old each pin is; exit with 1 if affected."""
    from builder.build.workspace import Workspace
    from builder.inspect.audit import advisories as osv
    from builder.inspect.audit import findings, pins
    from builder.packages import sdist
    from builder.packages.download import downloads_folder

    named = [name for name in variants.split(",") if name]
    workspace = Workspace.load(ROOT)
    locked = pins.pins(workspace, named)
    records = list(osv.read(Path(advisories)))
    reasons = findings.ignored(ROOT, ignore)
    found = findings.judged(findings.find(locked, records), reasons)
    today = datetime.datetime.now(datetime.UTC).date()
    made = {pin: pins.made(pin, downloads_folder()) for pin in locked}
    newest = max((record.modified for record in records), default="")[:10] or "unknown"
    say(f"{len(records)} advisories, the newest of {newest}; {len(locked)} pins")
    rows = [("package", "version", "advisories", "severity", "targets", "ignored because")]
    rows += [
        (f.pin.package, f.pin.version, " ".join(f.names), f.severity or "unknown",
         " ".join(f.pin.targets), f.reason)
        for f in found
    ]  # fmt: skip
    if not json:
        table(rows if found else [("nothing that is locked is affected",)])
        print()
    by_age = sorted(made.items(), key=lambda item: (item[1] is None, item[1] or today))
    ages = [("package", "version", "newest file of", "days", "targets")]
    ages += [
        (pin.package, pin.version, str(day or "unknown"), str((today - day).days) if day else "",
         " ".join(pin.targets))
        for pin, day in by_age
    ]  # fmt: skip
    less = pins.excluded(workspace, named)
    if less and not json:
        left_out = [("package", "files that are left out", "target")]
        table([*left_out, *((e.package, e.pattern, e.target) for e in less)])
        print()
    differ = [
        (name, wheel)
        for name, target in workspace.targets.items()
        for wheel in sdist.read_lock(target.folder)
        if wheel.allowed
    ]
    for name, wheel in differ:
        say(f"{name}: {wheel.name} {wheel.version} need not be reproducible: {wheel.allowed}")
    document = {
        "not_reproducible": [
            {"target": name, "package": wheel.name, "version": wheel.version,
             "allowed": wheel.allowed}
            for name, wheel in differ
        ],
        "advisories": len(records),
        "newest": newest,
        "findings": [
            {"ecosystem": f.pin.ecosystem, "package": f.pin.package, "name": f.pin.name,
             "version": f.pin.version, "targets": f.pin.targets, "ids": f.names,
             "severity": f.severity, "summary": f.summary, "ignored": f.reason}
            for f in found
        ],
        "pins": [
            {"ecosystem": pin.ecosystem, "package": pin.package, "version": pin.version,
             "targets": pin.targets, "newest_file": str(day) if day else None}
            for pin, day in by_age
        ],
        "excluded": [
            {"target": e.target, "package": e.package, "pattern": e.pattern} for e in less
        ],
    }  # fmt: skip
    facts(document, ages, as_json=json)
    for identity in findings.unused(found, reasons):
        say(f"{identity} is ignored and affects nothing that is locked; take it out")
    if any(not f.reason for f in found):
        raise SystemExit(1)
