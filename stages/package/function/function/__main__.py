"""Serve the models of $MODELS on $HOST:$PORT, and metrics on $METRICS_PORT."""

from __future__ import annotations

import asyncio
import os
import sys

import uvloop
from common.errors import StageError

from .server import MetricsServer, Server, listen
from .service import Service
from .settings import Settings


async def serve(settings: Settings) -> None:
    """Listen, load the models, and serve until told to end; raises StageError."""
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
        await asyncio.to_thread(service.load)
        print(f"ready: {len(service.models.models)} models on port {settings.port}", flush=True)
    except StageError:
        server.should_exit = True
        raise
    finally:
        await serving


def main() -> None:
    """Exit with 1 where the settings or the models do not fit, with 0 when told to end."""
    try:
        uvloop.run(serve(Settings.of(os.environ)))
    except StageError as error:
        print(f"function: {error}", file=sys.stderr, flush=True)
        raise SystemExit(1) from None


main()
