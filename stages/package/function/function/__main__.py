"""Serve the models of $MODELS on $HOST:$PORT, and metrics on $METRICS_PORT.

What is imported when is what the start takes: the models load in threads, mostly without Python's
lock, while the libraries of the server are imported.
"""

from __future__ import annotations

import gc
import os
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from common.errors import StageError

from .parts import left_out
from .settings import Settings

if TYPE_CHECKING:
    from .models import Models


def loading(settings: Settings) -> Future[Models]:
    """Begin to load the models."""
    with left_out():
        from .models import load

    pool = ThreadPoolExecutor(1, "loading")
    return pool.submit(load, settings.models, settings.workers, settings.intra_op_threads)


async def serve(settings: Settings, models: Future[Models]) -> None:
    """Listen, wait for the models, and serve until told to end; raises StageError."""
    import asyncio

    with left_out():
        from .server import MetricsServer, Server, listen
        from .service import Service

    service = Service(settings)
    try:
        listening = listen(settings.host, settings.metrics_port)
    except OSError as error:
        raise StageError(
            f"cannot listen on {settings.host}:{settings.metrics_port} ({error.strerror}); "
            "set METRICS_PORT"
        ) from None
    server = Server(service)
    serving = asyncio.create_task(MetricsServer(service).while_serving(listening, server.serve()))
    try:
        await asyncio.to_thread(service.load, models.result)
        print(f"ready: {len(service.models.models)} models on port {settings.port}", flush=True)
    except StageError:
        server.should_exit = True
        raise
    finally:
        await serving


def main() -> None:
    """Exit with 1 where the settings or the models do not fit, with 0 when told to end."""
    gc.disable()  # nothing that is imported or loaded goes again; Service.load enables it
    try:
        settings = Settings.of(os.environ)
        models = loading(settings)
        import uvloop

        uvloop.run(serve(settings, models))
    except StageError as error:
        print(f"function: {error}", file=sys.stderr, flush=True)
        raise SystemExit(1) from None


main()
