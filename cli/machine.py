"""The task that looks at this machine."""

from __future__ import annotations

from cli.command import command
from cli.output import JSON_HELP, facts, say


@command(
    help={"fix": "install what is missing and start the engine, on Debian and Ubuntu as root",
          "json": JSON_HELP}
)  # fmt: skip
def doctor(fix: bool = False, json: bool = False) -> None:
    """Say what this machine has and what it lacks; exit with 1 where the demo cannot run."""
    from cli import machine_parts

    found = machine_parts.checks()
    missing = [check for check in found if not check.found]
    if fix and missing:
        machine_parts.fix(missing, say)
        found = machine_parts.checks()
        missing = [check for check in found if not check.found]
    rows = [("part", "found", "used for", "to get it")]
    rows += [
        (
            check.name,
            check.found or ("MISSING" if check.required else "missing"),
            check.use,
            f"apt-get install {' '.join(check.packages)}"
            if check.packages and not check.found
            else "",
        )
        for check in found
    ]
    facts(
        {check.name: {"found": check.found, "required": check.required} for check in found},
        rows,
        as_json=json,
    )
    if any(check.required for check in missing):
        raise SystemExit(1)
    if missing and not fix:
        say("the demo can run; `invoke doctor --fix` (as root) installs the rest for the tests")
