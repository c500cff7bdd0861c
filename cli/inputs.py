"""What a build came from: the files of the checkout and of the store that it read."""

from __future__ import annotations

import sys
from typing import Any

from builder.errors import BuilderError
from cli import answers
from cli.output import ROOT

# The rooms whose code decides what a build or a compiled package is.
_CODE = ("builder", "cli", "pipeline")
_FILES = ("tasks.py", "requirements.lock")


def keep(answer: Any, workspace: Any, store: Any, **how: Any) -> None:
    """Keep what a build found out, for `cli.answers`, with all that it read.

    Whatever else `answers.keep` takes is in `how`.
    """
    from builder.build.workspace import files
    from builder.signing import named

    try:
        recipes = list(workspace.inputs())
    except BuilderError:
        return  # links lead to what would have to be watched too: nothing is kept then
    code = (path for room in _CODE for path in files(str(ROOT / room), ".py"))
    installed = (path for path in sys.path if path.startswith(sys.prefix))
    keys = ROOT / named.FOLDER
    trusted = files(str(keys)) if keys.exists() else [str(keys)]
    blobs, results = used(store)
    answers.keep(
        answer,
        inputs=[
            *recipes, *code, *installed, *trusted, *(str(ROOT / name) for name in _FILES), *blobs,
        ],
        results=results,
        **how,
    )  # fmt: skip


def used(store: Any) -> tuple[set[str], set[str]]:
    """Return the files of the store that were used: blobs and the like, and results."""
    results = {path for path in store.used if path.startswith(f"{store.root / 'results'}/")}
    return store.used - results, results
