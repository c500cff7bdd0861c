"""The task that looks at this machine."""

from __future__ import annotations

import os
import sys

from cli.command import command
from cli.output import JSON_HELP, facts, say


@command(
    help={"fix": "install what is missing and start the engine, on Debian and Ubuntu as root",
          "stop-engine": "end the Docker engine that --fix started",
          "json": JSON_HELP}
)  # fmt: skip
def doctor(fix: bool = False, stop_engine: bool = False, json: bool = False) -> None:
    """Say what this machine has and what it lacks; exit with 1 where the demo cannot run."""
    from cli import engine, machine_parts

    if stop_engine:
        ended = engine.stop()
        say("the engine has ended" if ended else "no engine that `doctor --fix` started runs")
        return

    found = machine_parts.checks()
    missing = [check for check in found if not check.found]
    if fix and missing:
        machine_parts.fix(missing, say, _agreed)
        found = machine_parts.checks()
        missing = [check for check in found if not check.found]
    rows = [("part", "found", "used for", "install with")]
    rows += [
        (
            check.name,
            check.found or ("MISSING" if check.required else "missing"),
            check.use,
            f"apt-get install {' '.join(check.packages)}"
            if check.packages and not check.found
            else "see below"
            if check.lacks
            else "",
        )
        for check in found
    ]
    facts(
        {
            check.name: {"found": check.found, "required": check.required, "lacks": check.lacks}
            for check in found
        },
        rows,
        as_json=json,
    )
    for check in missing:
        if check.lacks:
            say(f"{check.name}: {check.lacks}")
    if any(check.required for check in missing):
        raise SystemExit(1)
    if any(check.packages for check in missing) and not fix:
        say("the demo can run; `invoke doctor --fix` (as root) installs the rest for the tests")


def _agreed() -> bool:
    """Ask on a terminal; in CI, or without one, nobody is there to ask."""
    if os.environ.get("CI") or not sys.stdin.isatty():
        return True
    return input("run them? [y/N] ").strip().lower() in ("y", "yes")
