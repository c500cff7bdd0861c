"""uvicorn, told to end as OpenFaaS wants it: announced, then without losing a request."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import Any

# Not by the names that `uvicorn` itself has: parts.py leaves its command line out.
from uvicorn.config import Config
from uvicorn.server import Server as Uvicorn

from .app import make
from .connection import Connection
from .service import Service
from .settings import Settings

LINGER = 0.5  # s; a connection accepted last may not have sent its request yet
# Longer than the 90 s for which Go's clients, the gateway's among them, keep a connection.
KEEP_ALIVE = 120


def _config(app: Any, settings: Settings, port: int, grace: int | None = None) -> Config:
    return Config(
        app,
        host=settings.host,
        port=port,
        http=Connection.within(settings.write_timeout),
        ws="none",
        lifespan="off",
        log_config=None,  # warnings go to stderr as they are
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nothing here asks for the client's address
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=grace,
    )


class MetricsServer(Uvicorn):
    """Tells the metrics on a port of their own, with the same limits for heads and slow peers."""

    def __init__(self, service: Service) -> None:
        settings = service.settings
        super().__init__(_config(service.metrics.app(), settings, settings.metrics_port, grace=1))

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the server of the models, which ends this one."""
        yield

    async def while_serving(self, listening: socket.socket, serving: Awaitable[None]) -> None:
        """Answer on `listening` until `serving` has ended."""
        telling = asyncio.create_task(self.serve([listening]))
        try:
            await serving
        finally:
            self.should_exit = True
            await telling


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to a port of a name or address; raises OSError."""
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError:
        listening.close()
        raise
    return listening


class Server(Uvicorn):
    """Serves `service` until SIGTERM, then drains; a second signal ends it at once."""

    def __init__(self, service: Service) -> None:
        settings = service.settings
        super().__init__(_config(make(service), settings, settings.port))
        self._service = service

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Drain at signals; unlike uvicorn's own, they do not end the process a second time."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._drain)
        yield

    def _drain(self) -> None:
        if self._service.draining or not self._service.healthy:
            self.should_exit = True
            return
        self._service.drain()
        interval = self._service.settings.healthcheck_interval
        print(f"draining: serving for {interval:g} s more", flush=True)
        asyncio.get_running_loop().call_later(interval, self._end)

    def _end(self) -> None:
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no more, answer all that was accepted, and end."""
        for server in self.servers:
            server.close()
        await asyncio.sleep(LINGER)
        await super().shutdown(sockets)
