"""What the function is at this moment: loading, ready, full or draining; and its inference."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

import numpy as np
from common.errors import StageError
from numpy.typing import NDArray

from . import receipts
from .bodies import Bodies
from .metrics import Metrics
from .models import Model, Models
from .pictures import warm, warm_others
from .receipts import Receipts
from .settings import Settings

# Requests that are decoded at a time, for each worker: one that it runs, one that waits for it.
# The pictures of more would lie in memory, where a body of some kilobytes can be one of 50 MB.
JOBS = 2


class Tiled(Protocol):
    """What was decoded: it has tiles, uint8 [n, 256, 256, 3]."""

    @property
    def tiles(self) -> NDArray[np.uint8]:
        """At least one tile."""


T = TypeVar("T", bound=Tiled)


class NotReadyError(Exception):
    """The models are not loaded yet."""


class Service:
    """The models, the threads that run them, and the state that health and readiness tell."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.pool = ThreadPoolExecutor(settings.workers, "inference")
        self.bodies = Bodies(settings.max_bodies)
        self._turns = asyncio.Semaphore(JOBS * settings.workers)
        self.draining = False
        self.in_flight = 0
        self._models: Models | None = None
        self.receipts: Receipts | None = None

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

    def load(self, models: Callable[[], Models]) -> None:
        """Take what `models` returns and tell OpenFaaS; blocks. Raises StageError."""
        if key := self.settings.receipt_key:
            self.receipts = receipts.read(key, self.settings.image)
        # The pool is idle: nothing is served yet.
        warming = self.pool.submit(warm)
        loaded = models()
        warming.result()
        try:
            self.settings.lock.touch()
        except OSError as error:
            raise StageError(
                f"cannot write {self.settings.lock}: {error.strerror}; mount a writable /tmp"
            ) from None
        gc.freeze()  # what is loaded stays, so no later collection, which stops all, looks at it
        gc.enable()
        self._models = loaded
        self.pool.submit(warm_others)  # a TIFF that comes sooner loads the same, and waits for it

    def drain(self) -> None:
        """Fail health and readiness from now on, and go on serving."""
        self.draining = True
        self.settings.lock.unlink(missing_ok=True)

    async def run(
        self, models: Sequence[Model], decode: Callable[[], T]
    ) -> tuple[T, NDArray[np.float64]]:
        """Return what `decode` returns, and the probabilities [models, tiles] of its tiles.

        Every tile of every model is one piece of work, so that a single request uses all cores;
        the thread that decodes does the first of them itself. Where the caller is cancelled, what
        waits is not begun.
        """
        job = _Job(self)
        async with self._turns:
            try:
                asked, first, rest = await self.in_pool(job.begin, models, decode)
                values = [first, *[await asyncio.wrap_future(future) for future in rest]]
            except asyncio.CancelledError:
                job.cancelled = True
                raise
        return asked, np.array(values).reshape(-1, len(models)).T

    async def in_pool(self, function: Any, *arguments: Any) -> Any:
        """Return `function(*arguments)`, off the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self.pool, function, *arguments)


class _Job:
    """One request's work in the pool."""

    def __init__(self, service: Service) -> None:
        self._pool = service.pool
        self._seconds = service.metrics.inference
        self.cancelled = False

    def begin(
        self, models: Sequence[Model], decode: Callable[[], T]
    ) -> tuple[T, float, list[Future[float]]]:
        asked = decode()
        first, *others = [(model, tile) for tile in asked.tiles for model in models]
        rest = [self._pool.submit(self._run, *piece) for piece in others]
        return asked, self._run(*first), rest

    def _run(self, model: Model, tile: NDArray[np.uint8]) -> float:
        if self.cancelled:
            raise CancelledError
        began = time.perf_counter()
        value = model.run(tile)
        self._seconds.labels(model.name).observe(time.perf_counter() - began)
        return value
