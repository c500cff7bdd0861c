"""What every task shares: how it prints facts, progress and errors, and how it ends."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from builder.errors import BuilderError
from pipeline.errors import PipelineError

ROOT = Path(__file__).resolve().parent.parent
JSON_HELP = "print the facts as one JSON object on stdout"
CHANGED_HELP = "only what a git range touches, from this revision to the working tree"
JOBS_HELP = "how many layers to make at the same time"
TARGETS_HELP = "names separated by commas (all)"
ENGINE_HELP = "auto, bubblewrap or docker"
REGISTRY_HELP = "HOST/PREFIX that holds the images ($PLATELINE_REGISTRY)"
INSECURE_HELP = "speak plain HTTP to a registry that is not on this machine"


@contextmanager
def errors() -> Iterator[None]:
    """Turn an error into one message and exit code 1, Ctrl-C into 130."""
    try:
        yield
    except (BuilderError, PipelineError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("interrupted; nothing half-made was kept", file=sys.stderr)
        raise SystemExit(130) from None


def say(line: str) -> None:
    """Print one line of progress, on stderr."""
    print(line, file=sys.stderr, flush=True)


def table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows, the first of which is the head, in columns."""
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


def teaching(body: Callable[..., None], name: str) -> Callable[..., None]:
    """Return `body`, but with the task's help where `--help` came in the place of a positional.

    invoke takes whatever follows the task's name for its first positional argument.
    """

    @functools.wraps(body)
    def helped(*arguments: Any, **options: Any) -> None:
        if "--help" in options.values() or "-h" in options.values():
            words = [sys.executable, "-m", "invoke", "--search-root", str(ROOT), "--help", name]
            raise SystemExit(subprocess.run(words, check=False).returncode)
        body(*arguments, **options)

    return helped
