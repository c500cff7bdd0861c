"""What every task shares: how it prints facts, progress and errors, and how it ends."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from builder.errors import BuilderError
from cli import password
from pipeline.errors import PipelineError

ROOT = Path(__file__).resolve().parent.parent
JSON_HELP = "print the facts as one JSON object on stdout"
CHANGED_HELP = "only what a git range touches, from this revision to the working tree"
JOBS_HELP = "how many layers to make at the same time"
COMPRESSION_HELP = "how layers are compressed: gzip, or zstd where registry and engines take it"
PLATFORM_HELP = "linux/amd64, linux/arm64 or both, separated by a comma (linux/amd64)"
TARGETS_HELP = "names separated by commas (all)"
ENGINE_HELP = "auto, bubblewrap, podman or docker"
REGISTRY_HELP = "HOST/PREFIX that holds the images ($PLATELINE_REGISTRY)"
INSECURE_HELP = "speak plain HTTP to a registry that is not on this machine"

# 128 + the number of the signal that ends a program: Ctrl-C, and a reader that went away.
_INTERRUPTED, _UNREAD = 130, 141
_DIGEST = re.compile(r"(sha256:[0-9a-f]{12})[0-9a-f]{52}")


def say(line: str) -> None:
    """Print one line of progress, on stderr."""
    print(line, file=sys.stderr, flush=True)


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Return rows, the first of which is the head, in columns; a terminal gets digests cut."""
    if sys.stdout.isatty():
        rows = [[_DIGEST.sub(r"\1…", cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
    return "\n".join(lines)


def table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows in columns."""
    print(columns(rows))


def told(found: Mapping[str, Any], rows: Sequence[Sequence[str]], *, as_json: bool) -> str:
    """Return facts as one JSON object, or as a table."""
    return json.dumps(found) if as_json else columns(rows)


def facts(found: Mapping[str, Any], rows: Sequence[Sequence[str]], *, as_json: bool) -> None:
    """Print facts as one JSON object, or as a table."""
    print(told(found, rows, as_json=as_json))


def ended(body: Callable[[], None], as_json: bool) -> None:
    """Run a body; an error becomes one message and exit code 1, Ctrl-C exit code 130.

    With `as_json` the error is a JSON object on stdout as well. No program that the body starts
    gets the signing key's password.
    """
    password.hold()
    try:
        body()
        sys.stdout.flush()
    except (BuilderError, PipelineError) as error:
        print(f"error: {error}", file=sys.stderr)
        if as_json:
            print(json.dumps({"error": str(error)}))
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("interrupted; partial output was removed", file=sys.stderr)
        raise SystemExit(_INTERRUPTED) from None
    except BrokenPipeError:
        unread()


def unread() -> NoReturn:
    """Exit as a program does whose reader went away, for example `head`."""
    # Python would complain once more when it flushes stdout at the end.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise SystemExit(_UNREAD) from None
