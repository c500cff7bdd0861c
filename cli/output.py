"""What every task shares: how it prints facts, progress and errors, and how it ends."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
JSON_HELP = "print the facts as one JSON object on stdout"
CHANGED_HELP = "only what a git range touches, from this revision to the working tree"
JOBS_HELP = "how many layers to make at the same time"
TARGETS_HELP = "names separated by commas (all)"
ENGINE_HELP = "auto, bubblewrap, podman or docker"
REGISTRY_HELP = "HOST/PREFIX that holds the images ($PLATELINE_REGISTRY)"
INSECURE_HELP = "speak plain HTTP to a registry that is not on this machine"

_DIGEST = re.compile(r"(sha256:[0-9a-f]{12})[0-9a-f]{52}")


def say(line: str) -> None:
    """Print one line of progress, on stderr."""
    print(line, file=sys.stderr, flush=True)


def table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows, the first of which is the head, in columns; a terminal gets digests cut."""
    if sys.stdout.isatty():
        rows = [[_DIGEST.sub(r"\1…", cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())


def facts(found: Mapping[str, Any], rows: Sequence[Sequence[str]], *, as_json: bool) -> None:
    """Print facts as one JSON object, or as a table."""
    if as_json:
        print(json.dumps(found))
    else:
        table(rows)
