"""A step of an earlier run, run again in another image with the inputs that it had."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from builder import oci
from builder.oci.reference import Reference
from builder.sandbox.process import Sandbox
from builder.store import Store
from pipeline.errors import PipelineError
from pipeline.run import beneath, places
from pipeline.run.record import DONE, Record, Step
from pipeline.run.step import attempts
from pipeline.run.step.context import RunContext
from pipeline.run.step.kept import FILE, Kept, read
from pipeline.spec.documents import MOST_BYTES, load_json

# What a step's name gets: outputs of the run itself stay as they are.
_SUFFIX = "-again"


def last(runs: Path, stage: str) -> Kept:
    """Return the step of the newest run in the folder `runs` that ran the image of `stage`.

    Of several it is one that failed, or else the first by name. Raises PipelineError where no run
    has one.
    """
    folders = sorted((f for f in runs.glob("*") if (f / "steps").is_dir()), reverse=True)
    for folder in folders:
        found = list(_of_stage(folder, stage))
        if found:
            failed = [kept for kept in found if not _ended_well(kept)]
            return (failed or found)[0]
    raise PipelineError(
        f"no run in {runs} has a step of {stage} that can be run again; run a package with "
        "`invoke run` first, or name the folder of the runs with PLATELINE_RUNS"
    )


def _of_stage(run: Path, stage: str) -> Iterator[Kept]:
    for path in sorted((run / "steps").glob(f"*/{FILE}")):
        name = path.parent.name
        kept = read(run, name)
        image = Reference.parse(kept.task.container["image"])
        if image.repository.rpartition("/")[2] == stage and not name.endswith(_SUFFIX):
            yield kept


def _ended_well(kept: Kept) -> bool:
    """Tell whether the step left its outputs; those that failed may have left some."""
    try:
        record = load_json(beneath.read(kept.run, "run.json", MOST_BYTES), "run.json")
        return bool(record["steps"][kept.task.name]["state"] in DONE)
    except (OSError, KeyError, TypeError):
        return False  # the run was ended before it could write its record


def run(kept: Kept, image: oci.Image, store: Store, sandbox: Sandbox) -> tuple[Step, Path]:
    """Run a step again in `image`; return how it ended and its folder, which has `log.txt`.

    It has the parameters, artifacts, claims and secrets of its run, whose own outputs stay as they
    are; no cache and no retry. To a claim that it may write it writes. Raises PipelineError where
    an input is not there any more.
    """
    label = kept.task.name
    reference = f"localhost/again@{image.digest}"
    task = replace(
        kept.task, name=f"{label}{_SUFFIX}", caching=False, retry={},
        container={**kept.task.container, "image": reference},
    )  # fmt: skip
    for entry in (entry for entries in task.artifacts.values() for entry in entries):
        if places.artifact(kept.run, entry["uri"]) and not places.artifact_path(
            kept.run, entry["uri"]
        ):
            raise PipelineError(
                f"the input {entry['uri']} of {label} is not in {kept.run} any more; run the "
                "package again"
            )
    home = places.step_folder(kept.run, task.name)
    shutil.rmtree(home, ignore_errors=True)
    record = Record(lambda _: None, lambda _name, _parameters: label)
    context = RunContext(
        folder=kept.run, sandbox=sandbox, store=store, images={reference: image}, kubernetes={},
        volumes=kept.volumes, secrets=kept.secrets, facts=kept.facts, cache=None,
        network=kept.network, publish=kept.publish, slots=threading.Semaphore(1), record=record,
    )  # fmt: skip
    try:
        attempts.run(task, context)
    except PipelineError:
        if task.name not in record.steps or record.steps[task.name].state != "failed":
            raise
    return record.steps[task.name], home
