"""What the function is at this moment: loading, ready, full or draining; and its inference."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from common.errors import StageError
from numpy.typing import NDArray

from .metrics import Metrics
from .models import Model, Models, load
from .settings import Settings

LARGE = 1 << 20  # bytes; so many bodies above this size are held at a time as there are workers


class NotReadyError(Exception):
    """The models are not loaded yet."""


class Service:
    """The models, the threads that run them, and the state that health and readiness tell."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.pool = ThreadPoolExecutor(settings.workers, "inference")
        self.large = asyncio.Semaphore(settings.workers)
        self.draining = False
        self.in_flight = 0
        self._models: Models | None = None

    @property
    def models(self) -> Models:
        """The loaded models; raises NotReadyError before."""
        if self._models is None:
            raise NotReadyError
        return self._models

    @property
    def healthy(self) -> bool:
        """Whether the function serves, and will go on to."""
        return self._models is not None and not self.draining

    @property
    def full(self) -> bool:
        """Whether one more request would be too many."""
        return 0 < self.settings.max_inflight <= self.in_flight

    def load(self) -> None:
        """Load the models and tell OpenFaaS; blocks. Raises StageError."""
        # The pool is idle: nothing is served yet.
        models = load(self.settings.models, self.pool, self.settings.intra_op_threads)
        try:
            self.settings.lock.touch()
        except OSError as error:
            raise StageError(
                f"cannot write {self.settings.lock}: {error.strerror}; mount a writable /tmp"
            ) from None
        self._models = models

    def drain(self) -> None:
        """Fail health and readiness from now on, and go on serving."""
        self.draining = True
        self.settings.lock.unlink(missing_ok=True)

    async def run(self, models: Sequence[Model], tiles: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Return probabilities [models, tiles]; where the caller is cancelled, so is what waits.

        Every tile of every model is one piece of work, so that a single request uses all cores.
        """
        loop = asyncio.get_running_loop()
        work = [
            loop.run_in_executor(self.pool, self._timed, model, tile)
            for tile in tiles
            for model in models
        ]
        values = np.array(await asyncio.gather(*work))
        return values.reshape(len(tiles), len(models)).T

    def _timed(self, model: Model, tile: NDArray[np.uint8]) -> float:
        began = time.perf_counter()
        value = model.run(tile)
        self.metrics.inference.labels(model.name).observe(time.perf_counter() - began)
        return value

    async def in_pool(self, function: Any, *arguments: Any) -> Any:
        """Return `function(*arguments)`, off the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self.pool, function, *arguments)
