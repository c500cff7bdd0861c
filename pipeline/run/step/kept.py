"""What is kept of a step so that it can be run again as it was: its task and what it was lent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.run import beneath, places
from pipeline.run.step.context import RunContext, Task, Volume
from pipeline.spec.documents import MOST_BYTES, load_json

FILE = "again.json"  # beside the step's input.json
_FORMAT = 1


@dataclass(frozen=True)
class Kept:
    """A step as it ran: in which run, what it was, and what it was lent.

    `publish` is as in RunContext.
    """

    run: Path
    task: Task
    volumes: Mapping[str, Volume]
    secrets: Mapping[str, Path]
    facts: Mapping[str, str]
    network: bool
    publish: frozenset[str] | None


def keep(task: Task, context: RunContext, home: Path) -> None:
    """Write what `read` needs into the step's folder `home`; raises OSError."""
    document = {
        "format": _FORMAT, "task": asdict(task),
        "volumes": {n: [str(v.folder), v.writable] for n, v in context.volumes.items()},
        "secrets": {name: str(folder) for name, folder in context.secrets.items()},
        "facts": dict(context.facts), "network": context.network,
        "publish": None if context.publish is None else sorted(context.publish),
    }  # fmt: skip
    (home / FILE).write_text(json.dumps(document), encoding="utf-8")


def read(run: Path, step: str) -> Kept:
    """Return what was kept of a step of the run in the folder `run`.

    Raises PipelineError where nothing was, or by another version.
    """
    home = places.step_folder(run, step)
    try:
        found = load_json(beneath.read(home, FILE, MOST_BYTES), str(home / FILE))
    except OSError as error:
        raise PipelineError(
            f"{home / FILE} cannot be read ({error.strerror or error}); run the package again"
        ) from None
    if not isinstance(found, dict) or found.get("format") != _FORMAT:
        raise PipelineError(
            f"{home / FILE} was written by another version of plateline; run the package again"
        )
    publish = found["publish"]
    return Kept(
        run=run, task=Task(**found["task"]),
        volumes={n: Volume(Path(f), writable=w) for n, (f, w) in found["volumes"].items()},
        secrets={name: Path(folder) for name, folder in found["secrets"].items()},
        facts=found["facts"], network=found["network"],
        publish=None if publish is None else frozenset(publish),
    )  # fmt: skip
