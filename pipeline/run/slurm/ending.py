"""Why a job ended that left no end of its own, and whether what it left can be seen."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from builder.sandbox.process import Exit
from pipeline.run.slurm.queue import Word

AGAIN = "run the package again; steps that ended well come from the cache"
# State of Slurm -> why the step ended, and what mends that.
_CAUSES = {
    "CANCELLED": ("somebody cancelled its job {job} (scancel)", AGAIN),
    "REVOKED": ("Slurm took its job {job} away", AGAIN),
    "NODE_FAIL": ("its node {node} failed", f"{AGAIN}, or give the step a retry in the package"),
    "BOOT_FAIL": ("its node {node} did not start", AGAIN),
    "PREEMPTED": (
        "Slurm preempted it for another job",
        f"{AGAIN}; SBATCH_PARTITION or SBATCH_QOS name a queue that is not preempted",
    ),
}
# Reasons for which a job would wait until somebody changes it or the partition.
NEVER = ("BadConstraints", "PartitionNodeLimit", "PartitionTimeLimit",
         "launch failed requeued held", "launch_failed_requeued_held")  # fmt: skip


def by_slurm(word: Word, job: str, seconds: float) -> Exit | None:
    """Return the end of a job that Slurm itself ended after `seconds`; None where it did not."""
    if word.state in ("TIMEOUT", "DEADLINE"):
        return Exit(code=143, signal=15, timed_out=True, seconds=seconds)
    if word.state == "OUT_OF_MEMORY":
        return Exit(code=137, signal=9, out_of_memory=True)
    if word.state in _CAUSES:
        cause, advice = _CAUSES[word.state]
        cause = f"{cause.format(job=job, node=word.node)} (Slurm says {word.state})"
        return Exit(code=143, signal=15, broke=cause, advice=advice)
    return None


def lacking(left: Mapping[str, Mapping[str, int]]) -> str:
    """Return the first file of `left` that this machine does not see whole, or ""."""
    for folder, names in left.items():
        try:
            with os.scandir(folder) as entries:
                seen = {entry.name: entry.stat(follow_symlinks=False).st_size for entry in entries}
        except OSError:
            return folder
        for name, size in names.items():
            if seen.get(name) != size:
                return str(Path(folder, name))
    return ""
