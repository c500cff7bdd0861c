"""The task that fails a run whose models are not good enough. `python3 -m common.reject`

It is a task of its own because a step that fails loses its outputs, and the report of the models
that were refused is what a person wants to read.
"""

from __future__ import annotations

from .errors import StageError
from .stage_io import StageIO, run_stage


def reject(task: StageIO) -> None:
    """Raise StageError that says what was asked of the models."""
    threshold = task.parameter("f1_threshold", float)
    raise StageError(
        f"a model is below the weighted F1 of {threshold:g} on its held-out wells (see the report "
        "of validate); nothing was packaged. Lower f1_threshold, or set on_reject=skip"
    )


if __name__ == "__main__":
    run_stage("reject", reject)
