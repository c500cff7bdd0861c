"""What tasks cost here and at another revision, side by side: shows what got slower.

    ./invoke bench --compare REV [--rounds N] [--instructions]

Whole processes, in turns, here and in a checkout of REV with this .venv and this store. The cost is
processor time, with that of children: other work on the machine changes it less than the clock on
the wall. With --instructions it is the instructions of the first process, by valgrind, once each:
they hardly differ from run to run. Writes everything into one JSON file.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path

from benchmarks.figures import ROOT, machine
from builder.errors import BuilderError
from builder.inspect.checkout import git

# A task's words; {new} is a number that no run had before, {out} a file to write.
TASKS = {
    "build-images, nothing changed": "build-images",
    "compile, cached": "compile --allow-local --output {out}",
    "compile, a setting changed": "compile --allow-local --plates-at-once {new} --output {out}",
    "a mistake": "buld-images",
}
_VALGRIND = ("valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null")
_SLOWER = 1.05
_numbers = count(os.getpid() * 1000)


@dataclass(frozen=True, slots=True)
class Cost:
    """Costs of one task: their median, the least and the most, and how often it ran."""

    median: float
    least: float
    most: float
    rounds: int


@dataclass(frozen=True, slots=True)
class Compared:
    """A task here and there; `ratio` is the median of the rounds' ratios, above 1 where slower."""

    task: str
    unit: str
    here: Cost
    there: Cost
    ratio: float


def compared(task: str, unit: str, here: Sequence[float], there: Sequence[float]) -> Compared:
    """Return what two series of rounds, in turns, say.

    >>> compared("x", "s", [2.0, 4.0, 9.0], [1.0, 2.0, 3.0]).ratio
    2.0
    """
    ratio = statistics.median(a / b for a, b in zip(here, there, strict=True))
    return Compared(task, unit, _cost(here), _cost(there), round(ratio, 3))


def _cost(values: Sequence[float]) -> Cost:
    return Cost(statistics.median(values), min(values), max(values), len(values))


@contextmanager
def checkout(revision: str) -> Iterator[Path]:
    """Yield a checkout of `revision`; raises BuilderError where there is none."""
    try:
        commit = git(ROOT, "rev-parse", "--verify", f"{revision}^{{commit}}").decode().strip()
    except BuilderError:
        raise BuilderError(f"{revision} is no revision of this checkout; see git log") from None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "checkout"
        git(ROOT, "worktree", "add", "--detach", str(folder), commit)
        try:
            yield folder
        finally:
            git(ROOT, "worktree", "remove", "--force", str(folder))


def seconds(folder: Path, words: str, out: Path) -> float:
    """Return the processor time of a task and its children, in seconds."""
    before = _used()
    _run((), folder, words, out)
    return _used() - before


def instructions(folder: Path, words: str, out: Path) -> float:
    """Return how many instructions the first process of a task executed, children left out."""
    said = _run(_VALGRIND, folder, words, out)
    found = re.search(r"I\s+refs:\s+([0-9,]+)", said)
    if found is None:
        raise SystemExit(f"valgrind counted nothing for {words!r}: {said[-500:]}")
    return float(found[1].replace(",", ""))


def _used() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _run(before: Sequence[str], folder: Path, words: str, out: Path) -> str:
    """Run a task with the code of `folder`; returns what it said, raises SystemExit if it broke."""
    arguments = words.format(new=next(_numbers), out=out).split()
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run(
        [*before, sys.executable, "-P", "-m", "cli", *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if "Traceback" in done.stderr or (done.returncode and words != TASKS["a mistake"]):
        raise SystemExit(f"{words!r} failed in {folder}: {done.stderr[-1000:]}")
    return done.stderr


def main() -> None:
    """Measure, print a table, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--compare", required=True, metavar="REV")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--instructions", action="store_true")
    parser.add_argument("--output", type=Path, default=ROOT / "dist/bench.json")
    given = parser.parse_args()
    if given.instructions and shutil.which("valgrind") is None:
        raise SystemExit("error: counting instructions needs valgrind; apt-get install valgrind")
    try:
        _compare(given)
    except BuilderError as error:
        raise SystemExit(f"error: {error}") from None


def _compare(given: argparse.Namespace) -> None:
    measure, unit = (instructions, "instructions") if given.instructions else (seconds, "s")
    rows: list[Compared] = []
    with checkout(given.compare) as there, tempfile.TemporaryDirectory() as scratch:
        # Each its own: one that finds the other's package in its place has something to do.
        outs = {ROOT: Path(scratch) / "here.yaml", there: Path(scratch) / "there.yaml"}
        for task, words in TASKS.items():
            for pause in (2, 0):  # what is made once is made, and old enough not to be read again
                for folder, out in outs.items():
                    _run((), folder, words, out)
                time.sleep(pause)
            rounds = 1 if given.instructions else given.rounds
            pairs = [[measure(f, words, out) for f, out in outs.items()] for _ in range(rounds)]
            rows.append(compared(task, unit, [p[0] for p in pairs], [p[1] for p in pairs]))
            _show(rows[-1])
    document = {
        "commit": git(ROOT, "rev-parse", "HEAD").decode().strip(),
        "changed": bool(git(ROOT, "status", "--porcelain").strip()),
        "compared_with": git(ROOT, "rev-parse", f"{given.compare}^{{commit}}").decode().strip(),
        "machine": machine(),
        "tasks": [asdict(row) for row in rows],
    }
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(f"all of it is in {given.output}")


def _show(row: Compared) -> None:
    scale, unit = (1e-6, "M") if row.unit == "instructions" else (1000, "ms")
    here, there = (
        f"{c.median * scale:,.0f} {unit} ({c.least * scale:,.0f} to {c.most * scale:,.0f})"
        for c in (row.here, row.there)
    )
    slower = "slower" if row.ratio > _SLOWER else "faster" if row.ratio < 1 / _SLOWER else "same"
    print(f"{row.task:32} {here:26} {there:26} {row.ratio:6.2f} {slower}", flush=True)


if __name__ == "__main__":
    main()
