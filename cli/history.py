"""The tasks about earlier runs: list them, compare two."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from cli.command import command
from cli.output import JSON_HELP, facts, say, table
from cli.pipeline import RUNS, runs_folder

_RUNS_HELP = f"the folder of the runs ({RUNS}, or $PLATELINE_RUNS)"


@command(help={"runs": _RUNS_HELP, "json": JSON_HELP})
def runs(runs: str = "", json: bool = False) -> None:
    """List the runs of this folder, the newest last: when, of what, how they ended, the result.

    Of the parameters those are shown that are not the same in all runs of a pipeline. A run whose
    record cannot be read is listed with the reason.
    """
    from pipeline.errors import PipelineError
    from pipeline.history import reading
    from pipeline.history.comparison import asked

    known, unreadable = [], {}
    for folder in reading.folders(runs_folder(runs)):
        try:
            known.append(reading.read(folder))
        except PipelineError as error:
            unreadable[folder.name] = str(error)
    given = [(run, asked(run)) for run in known]
    first: dict[str, Any] = {}
    for run, parameters in given:
        first.setdefault(run.name, parameters)
    varied = {
        (run.name, key)
        for run, parameters in given
        for key in {**first[run.name], **parameters}
        if parameters.get(key) != first[run.name].get(key)
    }
    listed: list[dict[str, Any]] = [
        {
            "run": run.folder.name, "name": run.name, "started": run.started,
            "package": run.package_digest, "state": run.state, "seconds": run.seconds,
            "parameters": {k: v for k, v in parameters.items() if (run.name, k) in varied},
            "result": _result(run), "page": str(run.page),
        }
        for run, parameters in given
    ]  # fmt: skip
    rows = [("run", "when (UTC)", "package", "state", "seconds", "parameters", "result")]
    rows += [
        (one["run"], time.strftime("%Y-%m-%d %H:%M", time.gmtime(one["started"])),
         one["package"][:19], one["state"], f"{one['seconds']:.1f}",
         " ".join(f"{k}={v}" for k, v in one["parameters"].items()) or "–", one["result"])
        for one in listed
    ]  # fmt: skip
    rows += [(name, "–", "–", "unreadable", "–", "–", why) for name, why in unreadable.items()]
    facts({"runs": listed, "unreadable": unreadable}, rows, as_json=json)


def _result(run: Any) -> str:
    """Return what came of a run in a few words: its failed steps, or its gate and its worst Z'."""
    from pipeline.history import reading

    failed = [step.title for step in run.steps.values() if step.state == "failed"]
    if failed:
        return f"failed: {', '.join(failed)}"
    passed = [s.outputs["passed"] for s in run.steps.values() if "passed" in s.outputs]
    words = ["passed" if all(value is True for value in passed) else "not passed"] if passed else []
    numbers = reading.metrics(run)
    for ending, said in ((" z_factor log_odds", "Z′ by log odds"), (" z_factor", "by probability")):
        found = [value for name, value in numbers.items() if name.endswith(ending)]
        words += [f"{said} {min(found):.3f}"] if found else []
    return ", ".join(words) or "–"


@command(
    positional=["one", "other"],
    help={
        "one": "a run: the beginning of its name is enough",
        "other": "the run to compare it with",
        "runs": _RUNS_HELP,
        "json": JSON_HELP,
    },
)
def compare(one: str, other: str, runs: str = "", json: bool = False) -> None:
    """Compare two runs: parameters, images, metrics, wells whose call changed, and why it moved."""
    from pipeline.history import comparison, reading

    first, second = (reading.read(reading.find(runs_folder(runs), word)) for word in (one, other))
    found = comparison.compare(first, second)
    names = first.folder.name, second.folder.name
    if json:
        facts({"one": names[0], "other": names[1], **asdict(found)}, [], as_json=True)
        return
    rows: list[tuple[str, ...]] = [("what differs", "name", *names)]
    if found.package:
        rows.append(("package", first.name, *found.package))
    for what, pairs in (
        ("parameter", found.parameters), ("image", found.images), ("state", found.states),
        ("metric", found.metrics), ("call of a well", found.wells),
    ):  # fmt: skip
        rows += [(what, key, _said(a), _said(b)) for key, (a, b) in pairs.items()]
    table(rows if len(rows) > 1 else [("nothing differs",)])
    say(f"{len(found.wells)} of {found.wells_of_both} wells changed their call")
    for title, why in found.causes.items():
        print(f"why {title} made other numbers:")
        for each in why or ("nothing that the records hold; it is not deterministic",):
            print(f"  {each}")


def _said(value: Any) -> str:
    return "–" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
