"""A process as a job: the options of sbatch, the job's script, and the documents that it reads.

Options: https://slurm.schedmd.com/sbatch.html.
"""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from builder.sandbox.confine.limits import VARIABLES
from builder.sandbox.process import Exit, Mount, Process
from builder.store import Store

ROOT = Path(__file__).resolve().parents[3]
# Which queue a site wants is said by sbatch's own variables, as for any other job.
CHOICES = ("SBATCH_ACCOUNT", "SBATCH_CONSTRAINT", "SBATCH_PARTITION", "SBATCH_QOS",
           "SBATCH_RESERVATION", "SBATCH_TIMELIMIT", "SBATCH_WCKEY")  # fmt: skip
_HANDED = ("PATH", "HOME", "USER", "LOGNAME", "SLURM_CONF", *CHOICES, *VARIABLES.values())
_WATCHER = 256 << 20  # bytes of what watches the step, so that the step's own limit comes first
_LONGEST = 200  # letters of a job's name
_NODE = (sys.executable, "-E", "-s", "-B", "-X", "utf8", "-m", "pipeline.run.slurm.node")

# The files of a job's folder.
PROCESS, EXIT, LOG, SLURM_LOG, NODE, LEASE = (
    "process.json", "exit.json", "log.txt", "slurm.txt", "node", "lease",
)  # fmt: skip


def options(process: Process, environ: Mapping[str, str]) -> list[str]:
    """Return the options of sbatch that say what `process` needs.

    A limit that the package does not set is left to the site, and the time that a queue gives to
    SBATCH_TIMELIMIT of `environ`. Slurm itself never starts a job again: the retries are the
    package's.
    """
    found = ["--parsable", "--no-requeue", "--nodes=1", "--ntasks=1", f"--chdir={ROOT}",
             "--export=ALL"]  # fmt: skip
    if process.needs.cpus:
        found.append(f"--cpus-per-task={math.ceil(process.needs.cpus)}")
    if process.needs.memory:
        found.append(f"--mem={math.ceil((process.needs.memory + _WATCHER) / 2**20)}M")
    if process.timeout is not None and "SBATCH_TIMELIMIT" not in environ:
        # No more than that: a package's hour must fit a partition of an hour.
        found.append(f"--time={math.ceil(process.timeout / 60)}")
    return found


def named(title: str, output: Path, array: int = 0) -> list[str]:
    """Return the options that say what a job is called and where Slurm writes what it has to say.

    That is the file `output`; of an `array` of so many jobs, a file in each folder of `output`.
    """
    name = "".join(letter if letter.isprintable() else " " for letter in title)[:_LONGEST]
    place = str(output).replace("%", "%%") + (f"/%a/{SLURM_LOG}" if array else "")
    more = [f"--array=0-{array - 1}"] if array else []
    return [f"--job-name={name}", f"--output={place}", *more]


def script(folder: Path) -> str:
    """Return the job's script: it runs `pipeline.run.slurm.node` with this very interpreter."""
    return f"#!/bin/sh\nexec {shlex.join([*_NODE, str(folder)])}\n"


def array_script(folder: Path) -> str:
    """Return the script of an array, whose jobs have the folders 0, 1, … of `folder`."""
    return f'#!/bin/sh\nexec {shlex.join([*_NODE, str(folder)])}/"$SLURM_ARRAY_TASK_ID"\n'


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that sbatch, and so the job, is given: none that could hold a secret."""
    return {name: environ[name] for name in _HANDED if name in environ}


def ignored(environ: Mapping[str, str]) -> list[str]:
    """Return the variables of sbatch that are not handed on, sorted."""
    return sorted(name for name in environ if name.startswith("SBATCH_") and name not in CHOICES)


def to_document(process: Process, store: Store, own: Path) -> dict[str, Any]:
    """Return `process` as JSON takes it; what it leaves below `own` is listed at its end."""
    return {
        "store": str(store.root.absolute()), "image": process.image.digest,
        "command": process.words(), "env": dict(process.env), "workdir": process.workdir,
        "mounts": [[str(m.source.absolute()), m.target, m.writable] for m in process.mounts],
        "user": process.user, "network": process.network, "timeout": process.timeout,
        "memory": process.memory,
        "own": [str(m.source.absolute()) for m in process.mounts
                if m.writable and m.source.absolute().is_relative_to(own.absolute())],
    }  # fmt: skip


def from_document(document: Mapping[str, Any], store: Store) -> Process:
    """Return the process of a document; raises BuilderError where the store lacks its image."""
    return Process(
        image=store.image(document["image"]), command=tuple(document["command"]),
        env=document["env"], workdir=document["workdir"], user=document["user"],
        mounts=tuple(Mount(Path(source), target, w) for source, target, w in document["mounts"]),
        network=document["network"], timeout=document["timeout"], memory=document["memory"],
    )  # fmt: skip


def exit_document(ended: Exit, left: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    """Return how a step ended as JSON takes it; `left` is folder -> name -> size in bytes."""
    return {"exit": asdict(ended), "left": left}
