"""What the answer of a task with nothing to do came from: files of the checkout and the store."""

from __future__ import annotations

import sys
from typing import Any

from builder.errors import BuilderError
from cli import answers
from cli.output import ROOT

# The rooms whose code decides what a build or a compiled package is.
_CODE = ("builder", "cli", "pipeline")
_FILES = ("tasks.py", "requirements.lock")


def keep(text: str, workspace: Any, store: Any, *more: str, **how: Any) -> None:
    """Keep what a task prints, for `cli.answers`, with all that it read and `more` files.

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
    results = {path for path in store.used if path.startswith(f"{store.root / 'results'}/")}
    answers.keep(
        text,
        inputs=[
            *recipes, *code, *installed, *trusted, *(str(ROOT / name) for name in _FILES), *more,
            *(store.used - results),
        ],
        results=results,
        **how,
    )  # fmt: skip
