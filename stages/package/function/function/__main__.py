"""Serve the models of $MODELS on $HOST:$PORT."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import uvicorn
from common.errors import StageError

from .app import make
from .models import load


def main() -> None:
    """Load, then listen: what answers is ready. Exits with 1 where the models do not fit."""
    try:
        models = load(Path(os.environ.get("MODELS", "/models")))
    except StageError as error:
        print(f"function: {error}", file=sys.stderr, flush=True)
        raise SystemExit(1) from None
    pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)))
    uvicorn.run(
        make(models, pool),
        host=os.environ.get("HOST", "0.0.0.0"),  # noqa: S104 - a container's own address
        port=int(os.environ.get("PORT", "8080")),
        access_log=False,
    )


main()
